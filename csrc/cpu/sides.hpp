// The two sides of a block's addition, pooled and normalised as they are read.
// A geometry without an instruction set; the kernels are in add.hpp.
#pragma once

#include "geometry.hpp"

namespace pnas::cpu {

enum class Pool : int { none = 0, average = 1, maximum = 2 };

struct AddSide {
  Source source;
  Pool pool;
  int stride;
  int height, width;  // of the source
  const float* keep;  // a multiplier per image, or null
};

struct AddShape {
  int images, channels, out_height, out_width;
};

// The 3×3 SAME window of an output along one axis, cut at the edges: inputs [first, last).
struct Span {
  int first, last;
};
inline Span pool_span(int output, int outputs, int size, int stride) {
  const int total = (outputs - 1) * stride + 3 - size;
  const int start = output * stride - (total > 0 ? total / 2 : 0);
  return {start < 0 ? 0 : start, start + 3 > size ? size : start + 3};
}

}  // namespace pnas::cpu
