// The points at which winograd.hpp works: 0, ±p for four p, and ∞. With these p, two and their reciprocals, rounding
// is least; it is ten times that of adding up the taps.
//
// For polynomials in x² the tables hold, from the constant on, the coefficients of Π(x² - p²) over all p and of the
// same without one p: of such are the rows of B.
#pragma once

namespace pnas::cpu {

constexpr int kLineTaps = 7, kTileOutputs = 4, kTileInputs = kLineTaps + kTileOutputs - 1, kPoints = kTileInputs;
constexpr int kPairs = (kPoints - 2) / 2;

struct PointTables {
  float p[kPairs] = {};             // a pair is at the points 1 + 2 i, with +p, and 2 + 2 i
  float all[kPairs + 1] = {};       // Π(x² - q²)
  float without[kPairs][kPairs] = {};  // without[i]: the same over q ≠ p[i]
  float scale[kPairs + 1] = {};     // 1 / 2 p² Π(p² - q²) over q ≠ p, and 1 / Π(-q²) for the point 0
};

constexpr PointTables point_tables() {
  constexpr double p[kPairs] = {2 / 5., 3 / 4., 4 / 3., 5 / 2.};
  PointTables tables;
  for (int left_out = 0; left_out <= kPairs; ++left_out) {
    double product[kPairs + 1] = {1}, value = 1;
    const double at = left_out < kPairs ? p[left_out] * p[left_out] : 0;
    for (int i = 0; i < kPairs; ++i) {
      if (i == left_out) continue;
      const double root = p[i] * p[i];
      for (int k = kPairs; k > 0; --k) product[k] = product[k - 1] - root * product[k];
      product[0] *= -root;
      value *= at - root;
    }
    for (int k = 0; k <= kPairs; ++k) {
      if (left_out == kPairs) tables.all[k] = static_cast<float>(product[k]);
      else if (k < kPairs) tables.without[left_out][k] = static_cast<float>(product[k]);
    }
    if (left_out < kPairs) tables.p[left_out] = static_cast<float>(p[left_out]);
    tables.scale[left_out] = static_cast<float>(1 / (left_out < kPairs ? 2 * at * value : value));
  }
  return tables;
}

constexpr PointTables kTables = point_tables();

}  // namespace pnas::cpu
