// Weights brought into the order that kernels walk them in, and their gradients taken back.
#pragma once

#include <cstring>

#include "geometry.hpp"
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

// Dense (filters, channels, taps) as taps of (channels, padded filters), for the forward pass...
inline std::size_t dense_size(const Window& w, int taps) { return taps * w.channels * padded(w.filters); }
inline void pack_dense(const Window& w, const Weight& weight, int taps, float* out) {
  const std::ptrdiff_t step = padded(w.filters);
  std::memset(out, 0, sizeof(float) * dense_size(w, taps));
  for (int tap = 0; tap < taps; ++tap)
    for (int c = 0; c < w.channels; ++c, out += step)
      for (int f = 0; f < w.filters; ++f) out[f] = weight.at(f, c, tap);
}
inline void unpack_dense(const Window& w, const float* packed, int taps, const Weight& gradient) {
  const std::ptrdiff_t step = padded(w.filters);
  for (int tap = 0; tap < taps; ++tap)
    for (int c = 0; c < w.channels; ++c, packed += step)
      for (int f = 0; f < w.filters; ++f) gradient.at(f, c, tap) = packed[f];
}

// ...and as taps of (filters, padded channels), for the gradient of the input.
inline std::size_t dense_back_size(const Window& w, int taps) { return taps * w.filters * padded(w.channels); }
inline void pack_dense_back(const Window& w, const Weight& weight, int taps, float* out) {
  const std::ptrdiff_t step = padded(w.channels);
  std::memset(out, 0, sizeof(float) * dense_back_size(w, taps));
  for (int tap = 0; tap < taps; ++tap)
    for (int f = 0; f < w.filters; ++f, out += step)
      for (int c = 0; c < w.channels; ++c) out[c] = weight.at(f, c, tap);
}

}  // namespace pnas::cpu
