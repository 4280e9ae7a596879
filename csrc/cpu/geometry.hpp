// What a kernel is told about its tensors. Activations are NHWC: `pixel` floats from one pixel to the
// next, at least as many as there are channels, so that a slice of a wider tensor is one too.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace pnas::cpu {

// A read-only activation whose reader sees scale * z + shift; null pointers stand for z itself.
struct Source {
  const float* z;
  std::ptrdiff_t pixel;
  const float* scale;
  const float* shift;
};

// One convolution, SAME-padded by its caller: `top` and `left` pixels of zeros before, whatever the last
// window needs after. The first tap is `skip` pixels down and right of a window's corner (factorized
// reduction's second path is one pixel off).
struct Window {
  int images;
  int height, width, channels;         // input
  int out_height, out_width, filters;  // output
  int kernel_height, kernel_width;
  int stride_height, stride_width;
  int dilation;
  int top, left, skip;
  bool rectify;

  int taps() const { return kernel_height * kernel_width; }
  // Whether a dense convolution goes by points instead of taps (winograd.hpp). With fewer channels what that saves of
  // the product is spent on the way to points and back; with fewer pixels few taps see any.
  bool by_points() const {
    const int line = kernel_height == 1 ? width : height;
    return taps() == 7 && stride_height == 1 && stride_width == 1 && std::min(channels, filters) >= 16 && line >= 3;
  }
  // Whether only some pixels are ever seen, each by one output.
  bool picks() const { return taps() == 1 && (stride_height > 1 || stride_width > 1 || skip); }
  // The same over an image of just these, where there are such.
  Window picked() const {
    Window w = *this;
    if (!picks()) return w;
    w.height = out_height, w.width = out_width, w.stride_height = w.stride_width = 1, w.top = w.left = w.skip = 0;
    return w;
  }
  // Of the rows, or columns, that are picked those that are inside, `skip` pixels from the edge on.
  int picked_rows() const { return std::min(out_height, (height - skip + stride_height - 1) / stride_height); }
  int picked_columns() const { return std::min(out_width, (width - skip + stride_width - 1) / stride_width); }
  // Pixels from a window's corner to its last tap.
  int reach_down() const { return (kernel_height - 1) * dilation + skip; }
  int reach_right() const { return (kernel_width - 1) * dilation + skip; }
};

// Whether a tap, `offset` pixels from its window's first, is ever inside: on a map smaller than the kernel some
// taps see nothing but padding.
inline bool tap_reaches(int outputs, int stride, int before, int offset, int size) {
  for (int output = 0; output < outputs; ++output) {
    const int place = output * stride - before + offset;
    if (place >= 0 && place < size) return true;
  }
  return false;
}

// Results of a convolution: `pixel` floats from one pixel to the next.
struct Output {
  float* z;
  std::ptrdiff_t pixel;
};

// What reading a gradient of a normalised output means: dz = factor * g + offset + slope * z per channel. The factor
// is the norm's scale where g is of the scaled output and else 1, the two terms are what batch statistics add; all are
// null where there is no norm.
struct Incoming {
  const float* g;
  std::ptrdiff_t g_pixel;
  const float* z;
  std::ptrdiff_t z_pixel;
  const float* factor;
  const float* offset;
  const float* slope;
};

// Weights in PyTorch's (filters, channels, taps), or their gradients, in whatever order they lie in memory.
struct Weight {
  float* data;
  std::ptrdiff_t filter, channel, tap;
  float& at(int f, int c, int t) const { return data[f * filter + c * channel + t * tap]; }
};

// Gradients of a source, written or, where `accumulate`, added to. `z` is null where nobody asks;
// those of scale and shift are null where the source has none.
struct SourceGradient {
  float* z;
  std::ptrdiff_t pixel;
  float* scale;
  float* shift;
  bool accumulate;
};

constexpr int kMaxTaps = 49;

}  // namespace pnas::cpu
