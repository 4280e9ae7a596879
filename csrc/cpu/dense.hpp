// [ReLU,] dense convolution: 1×1, 1×7, 7×1, 3×3; forward with sums for batch norm, and backward.
// Included once per instruction set, inside its namespace: no include guard.

// (filters, channels, taps) as taps of (channels, padded filters), for the forward pass...
inline void pack_dense(const Window& w, const float* weight, float* out) {
  const std::ptrdiff_t filters = padded(w.filters), tap_size = w.channels * filters;
  std::memset(out, 0, sizeof(float) * w.taps() * tap_size);
  for (int f = 0; f < w.filters; ++f)
    for (int c = 0; c < w.channels; ++c)
      for (int tap = 0; tap < w.taps(); ++tap) out[tap * tap_size + c * filters + f] = *weight++;
}
// ...and as taps of (filters, padded channels), for the gradient of the input.
inline void pack_dense_back(const Window& w, const float* weight, float* out) {
  const std::ptrdiff_t channels = padded(w.channels), tap_size = w.filters * channels;
  std::memset(out, 0, sizeof(float) * w.taps() * tap_size);
  for (int f = 0; f < w.filters; ++f)
    for (int c = 0; c < w.channels; ++c)
      for (int tap = 0; tap < w.taps(); ++tap) out[tap * tap_size + f * channels + c] = *weight++;
}

// Images [first, last) of z = weight * [relu](source), z_pixel floats a pixel; sums: 2 * filters.
void dense_forward(const Window& w, const Source& source, const float* weight, std::int64_t first, std::int64_t last,
                   float* z, std::ptrdiff_t z_pixel, double* sums) {
  thread_local Scratch scratch;
  const Plane plane(w);
  const std::ptrdiff_t filters = padded(w.filters), tap_size = w.channels * filters;
  Arena arena(scratch.get(Arena::round(plane.size()) + Arena::round(w.taps() * tap_size) +
                          Arena::round(w.out_width * filters)));
  float* image = arena.take(plane.size());
  float* packed = arena.take(w.taps() * tap_size);
  float* result = arena.take(w.out_width * filters);
  std::memset(image, 0, sizeof(float) * plane.size());
  pack_dense(w, weight, packed);
  std::ptrdiff_t a[kMaxTaps], b[kMaxTaps];
  window_taps(w, plane, tap_size, a, b);
  const Taps taps{w.taps(), a, b};
  for (std::int64_t index = first; index < last; ++index) {
    read_plane(source, w, plane, index, image);
    for (int y = 0; y < w.out_height; ++y) {
      product({image + y * w.stride_height * plane.row, w.stride_width * plane.step, 1, packed, filters, result, filters,
               w.out_width, w.channels, static_cast<int>(filters), false},
              taps);
      const std::int64_t pixel = (index * w.out_height + y) * w.out_width;
      write_block(result, filters, pixel, w.out_width, w.filters, z, z_pixel, sums);
    }
  }
}

// Gradients over some images, added to parts: weight as taps of (channels, padded filters), then the
// affine's scale and shift, padded channels each.
inline std::size_t dense_weight_part(const Window& w) { return Arena::round(w.taps() * w.channels * padded(w.filters)); }
inline std::size_t dense_parts_size(const Window& w) {
  return dense_weight_part(w) + Arena::round(2 * padded(w.channels));
}

void dense_backward(const Window& w, const Source& source, const float* weight, const Incoming& incoming,
                    std::int64_t first, std::int64_t last, float* dz_source, bool accumulate,
                    float* parts) {
  thread_local Scratch scratch;
  const Plane plane(w);
  const std::ptrdiff_t channels = plane.step, filters = padded(w.filters), tap_size = w.filters * channels;
  const GradientPlane back(w, filters);
  Arena arena(scratch.get(Arena::round(plane.size()) + Arena::round(w.taps() * tap_size) + Arena::round(back.size()) +
                          Arena::round(w.width * channels) + 2 * Arena::round(2 * w.out_height)));
  float* image = arena.take(plane.size());
  float* packed = arena.take(w.taps() * tap_size);
  float* dz = arena.take(back.size());
  float* dx = arena.take(w.width * channels);
  auto* rows_a = reinterpret_cast<std::ptrdiff_t*>(arena.take(2 * w.out_height));
  auto* rows_b = reinterpret_cast<std::ptrdiff_t*>(arena.take(2 * w.out_height));
  std::memset(image, 0, sizeof(float) * plane.size());
  std::memset(dz, 0, sizeof(float) * back.size());
  pack_dense_back(w, weight, packed);
  std::ptrdiff_t a[kMaxTaps], b[kMaxTaps];
  window_taps(w, plane, 0, a, b);
  for (int y = 0; y < w.out_height; ++y) rows_a[y] = y * w.stride_height * plane.row, rows_b[y] = y * back.row;
  const Taps rows{w.out_height, rows_a, rows_b};
  float* affine = parts + dense_weight_part(w);
  for (std::int64_t index = first; index < last; ++index) {
    read_plane(source, w, plane, index, image);
    read_incoming(incoming, w, index, dz + back.inside(), back.row, filters);
    for (int tap = 0; tap < w.taps(); ++tap)
      product({image + a[tap], 1, w.stride_width * channels, dz + back.inside(), filters,
               parts + tap * w.channels * filters, filters, w.channels, w.out_width, static_cast<int>(filters), true},
              rows);
    for (int y = 0; y < w.height; ++y) {
      for_runs(w, back, tap_size, y, [&](const Run& run) {
        product({dz + back.inside() + run.start * filters, filters, 1, packed, channels, dx + run.first * channels,
                 w.stride_width * channels, run.count, w.filters, static_cast<int>(channels), false},
                run.taps);
      });
      const float* seen = w.rectify ? image + (y + w.top) * plane.row + w.left * channels : nullptr;
      return_row(dx, seen, channels, source, (index * w.height + y) * w.width, w.width, w.channels, dz_source,
                 accumulate, affine);
    }
  }
}
