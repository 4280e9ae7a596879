// The two sides of a block's addition, pooled and normalised as they are read.
// A geometry without an instruction set; the kernels are in add.hpp and pool.hpp.
#pragma once

#include <algorithm>

#include "geometry.hpp"

namespace pnas::cpu {

enum class Pool : int { none = 0, average = 1, maximum = 2 };

struct AddSide {
  Source source;
  Pool pool;
  int stride;
  int height, width;  // of the source
  const float* keep;  // a multiplier per image, or null

  float keep_of(std::int64_t image) const { return keep ? keep[image] : 1.0f; }
};

struct AddShape {
  int images, channels, out_height, out_width;
};

constexpr int kPool = 3;

// SAME padding of a 3×3 pool before the first of `size` pixels.
inline int pool_padding(int size, int outputs, int stride) {
  return std::max((outputs - 1) * stride + kPool - size, 0) / 2;
}

}  // namespace pnas::cpu
