// ReLU, depthwise k×k, pointwise: forward with sums for batch norm, and backward.
// Included once per instruction set, inside its namespace: no include guard.

// Rows of output that are worked on together: small maps would leave registers and loops idle.
inline int rows_a_block(const Window& w) { return std::clamp(64 / w.out_width, 1, w.out_height); }

inline void spread_rows(const Window& w, const Plane& plane, const float* image, const float* depthwise,
                        const Taps& taps, int first, int last, float* out) {
  for (int y = first; y < last; ++y, out += w.out_width * plane.step)
    spread_row(image + y * w.stride_height * plane.row, w.stride_width * plane.step, depthwise, taps, out, plane.step,
               w.out_width, static_cast<int>(plane.step));
}

// Images [first, last) of z = pointwise(depthwise([relu](source))); sums: 2 * filters. Weights are packed
// for the forward pass.
void separable_forward(const Window& w, const Source& source, const float* depthwise, const float* pointwise,
                       std::int64_t first, std::int64_t last, const Output& output, double* sums) {
  thread_local Scratch scratch;
  const Plane plane(w);
  const std::ptrdiff_t filters = padded(w.filters);
  const int block = rows_a_block(w);
  Arena arena(scratch.get(Arena::round(plane.size()) + Arena::round(block * w.out_width * plane.step) +
                          Arena::round(block * w.out_width * filters)));
  float* image = arena.take(plane.size());
  float* spread = arena.take(block * w.out_width * plane.step);
  float* result = arena.take(block * w.out_width * filters);
  std::memset(image, 0, sizeof(float) * plane.size());
  std::ptrdiff_t a[kMaxTaps], b[kMaxTaps];
  window_taps(w, plane, plane.step, a, b);
  const Taps taps{w.taps(), a, b};
  for (std::int64_t index = first; index < last; ++index) {
    read_plane(source, w, plane, index, image);
    for (int y = 0; y < w.out_height; y += block) {
      const int end = std::min(y + block, w.out_height);
      const int pixels = (end - y) * w.out_width;
      spread_rows(w, plane, image, depthwise, taps, y, end, spread);
      product({spread, plane.step, 1, pointwise, filters, result, filters, pixels, w.channels,
               static_cast<int>(filters), false});
      write_block(result, filters, (index * w.out_height + y) * w.out_width, pixels, w.filters, output, sums);
    }
  }
}

// Gradients over images [first, last). Weights: depthwise packed, pointwise packed for going back. `parts`
// is added to: depthwise (taps, padded channels), pointwise (channels, padded filters), affine: scale
// then shift, padded channels each.
void separable_backward(const Window& w, const Source& source, const float* depthwise, const float* pointwise,
                        const Incoming& incoming, std::int64_t first, std::int64_t last, const SourceGradient& to,
                        float* parts) {
  thread_local Scratch scratch;
  const Plane plane(w);
  const std::ptrdiff_t channels = plane.step, filters = padded(w.filters);
  const GradientPlane back(w, channels);
  const int pixels = w.out_height * w.out_width;
  Arena arena(scratch.get(Arena::round(plane.size()) + Arena::round(pixels * channels) +
                          Arena::round(pixels * filters) + Arena::round(back.size()) +
                          Arena::round(w.width * channels)));
  float* image = arena.take(plane.size());
  float* spread = arena.take(pixels * channels);
  float* dz = arena.take(pixels * filters);
  float* dspread = arena.take(back.size());
  float* dx = arena.take(w.width * channels);
  float* d_pointwise = parts + w.taps() * channels;
  float* d_affine = d_pointwise + w.channels * filters;
  std::memset(image, 0, sizeof(float) * plane.size());
  std::memset(dz, 0, sizeof(float) * pixels * filters);
  std::memset(dspread, 0, sizeof(float) * back.size());
  std::ptrdiff_t a[kMaxTaps], b[kMaxTaps];
  window_taps(w, plane, channels, a, b);
  const Taps taps{w.taps(), a, b};
  const int block = rows_a_block(w);
  for (std::int64_t index = first; index < last; ++index) {
    read_plane(source, w, plane, index, image);
    read_incoming(incoming, w, index, dz, w.out_width * filters, filters);
    spread_rows(w, plane, image, depthwise, taps, 0, w.out_height, spread);
    product({spread, 1, channels, dz, filters, d_pointwise, filters, w.channels, pixels, static_cast<int>(filters),
             true});
    for (int y = 0; y < w.out_height; ++y)
      product({dz + y * w.out_width * filters, filters, 1, pointwise, channels, dspread + y * back.row + back.inside(),
               channels, w.out_width, w.filters, static_cast<int>(channels), false});
    for (int y = 0; y < w.out_height; y += block) {
      const int rows = std::min(block, w.out_height - y);
      for (int c = 0; c < channels; c += kLanes)
        spread_gradient({image + y * w.stride_height * plane.row + c, w.stride_height * plane.row,
                         w.stride_width * channels, dspread + y * back.row + back.inside() + c, back.row, channels, rows,
                         w.out_width},
                        taps, parts + c, channels);
    }
    if (!to.z) continue;
    for (int y = 0; y < w.height; ++y) {
      for_runs(w, back, channels, y, [&](const Run& run) {
        spread_row(dspread + back.inside() + run.start * channels, channels, depthwise, run.taps,
                   dx + run.first * channels, w.stride_width * channels, run.count, static_cast<int>(channels));
      });
      const float* seen = w.rectify ? image + (y + w.top) * plane.row + w.left * channels : nullptr;
      return_row(dx, seen, channels, source, (index * w.height + y) * w.width, w.width, w.channels, to, d_affine);
    }
  }
}
