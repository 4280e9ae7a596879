// Weights brought into the order that kernels walk them in, and their gradients taken back.
#pragma once

#include <cstring>

#include "geometry.hpp"
#include "points.hpp"
#include "table.hpp"

namespace pnas::cpu {

// Depthwise (channels, 1, taps) as (taps, padded channels).
inline std::size_t depthwise_size(const Window& w) { return w.taps() * padded(w.channels); }
inline void pack_depthwise(const Window& w, const Weight& weight, float* out) {
  const std::ptrdiff_t step = padded(w.channels);
  std::memset(out, 0, sizeof(float) * depthwise_size(w));
  for (int tap = 0; tap < w.taps(); ++tap, out += step)
    for (int c = 0; c < w.channels; ++c) out[c] = weight.at(c, 0, tap);
}
inline void unpack_depthwise(const Window& w, const float* packed, const Weight& gradient) {
  const std::ptrdiff_t step = padded(w.channels);
  for (int tap = 0; tap < w.taps(); ++tap, packed += step)
    for (int c = 0; c < w.channels; ++c) gradient.at(c, 0, tap) = packed[c];
}

// A line of taps at the points of winograd.hpp: G.
inline void taps_to_points(const Weight& weight, int f, int c, float* out, std::ptrdiff_t point) {
  float g[kLineTaps];
  for (int tap = 0; tap < kLineTaps; ++tap) g[tap] = weight.at(f, c, tap);
  out[0] = g[0] * kTables.scale[kPairs], out[(kPoints - 1) * point] = g[kLineTaps - 1];
  for (int i = 0; i < kPairs; ++i) {
    const float p = kTables.p[i], square = p * p;
    const float even = g[0] + square * (g[2] + square * (g[4] + square * g[6]));
    const float odd = p * (g[1] + square * (g[3] + square * g[5]));
    out[(2 * i + 1) * point] = (even + odd) * kTables.scale[i], out[(2 * i + 2) * point] = (even - odd) * kTables.scale[i];
  }
}

// Gradients of a line of taps from those at the points: the transposed.
inline void points_to_taps(const float* in, std::ptrdiff_t point, const Weight& gradient, int f, int c) {
  float g[kLineTaps] = {in[0] * kTables.scale[kPairs]};
  g[kLineTaps - 1] = in[(kPoints - 1) * point];
  for (int i = 0; i < kPairs; ++i) {
    const float plus = in[(2 * i + 1) * point] * kTables.scale[i], minus = in[(2 * i + 2) * point] * kTables.scale[i];
    float power = 1.0f;
    for (int tap = 0; tap < kLineTaps; ++tap, power *= kTables.p[i])
      g[tap] += power * (tap % 2 ? plus - minus : plus + minus);
  }
  for (int tap = 0; tap < kLineTaps; ++tap) gradient.at(f, c, tap) = g[tap];
}

// A dense weight as matrices of rows × padded columns, its `filter` stride being that of columns: one matrix a tap, or a
// point where the convolution goes by points.
inline int matrices(const Window& w, int taps) { return w.by_points() ? kPoints : taps; }
inline void pack_matrices(const Window& w, const Weight& weight, int rows, int columns, int taps, float* out) {
  const std::ptrdiff_t step = padded(columns), matrix = rows * step;
  std::memset(out, 0, sizeof(float) * matrices(w, taps) * matrix);
  if (w.by_points()) {
    for (int row = 0; row < rows; ++row, out += step)
      for (int column = 0; column < columns; ++column) taps_to_points(weight, column, row, out + column, matrix);
    return;
  }
  for (int tap = 0; tap < taps; ++tap)
    for (int row = 0; row < rows; ++row, out += step)
      for (int column = 0; column < columns; ++column) out[column] = weight.at(column, row, tap);
}

// Dense (filters, channels, taps) as matrices of (channels, padded filters), for the forward pass...
inline std::size_t dense_size(const Window& w, int taps) { return matrices(w, taps) * w.channels * padded(w.filters); }
inline void pack_dense(const Window& w, const Weight& weight, int taps, float* out) {
  pack_matrices(w, weight, w.channels, w.filters, taps, out);
}
inline void unpack_dense(const Window& w, const float* packed, int taps, const Weight& gradient) {
  const std::ptrdiff_t step = padded(w.filters);
  if (w.by_points()) {
    for (int c = 0; c < w.channels; ++c)
      for (int f = 0; f < w.filters; ++f) points_to_taps(packed + c * step + f, w.channels * step, gradient, f, c);
    return;
  }
  for (int tap = 0; tap < taps; ++tap)
    for (int c = 0; c < w.channels; ++c, packed += step)
      for (int f = 0; f < w.filters; ++f) gradient.at(f, c, tap) = packed[f];
}

// ...and as matrices of (filters, padded channels), for the gradient of the input.
inline std::size_t dense_back_size(const Window& w, int taps) { return matrices(w, taps) * w.filters * padded(w.channels); }
inline void pack_dense_back(const Window& w, const Weight& weight, int taps, float* out) {
  pack_matrices(w, {weight.data, weight.channel, weight.filter, weight.tap}, w.filters, w.channels, taps, out);
}

}  // namespace pnas::cpu
