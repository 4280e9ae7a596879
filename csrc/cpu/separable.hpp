// ReLU, depthwise k×k, pointwise: forward with sums for batch norm, and backward.
// Included once per instruction set, inside its namespace: no include guard.

// depthwise as (taps, padded channels); pointwise as (channels, padded filters).
inline void pack_depthwise(const Window& w, const float* depthwise, float* out) {
  const std::ptrdiff_t step = padded(w.channels);
  std::memset(out, 0, sizeof(float) * w.taps() * step);
  for (int c = 0; c < w.channels; ++c)
    for (int tap = 0; tap < w.taps(); ++tap) out[tap * step + c] = depthwise[c * w.taps() + tap];
}
inline void pack_transposed(const float* matrix, int rows, int columns, float* out) {
  const std::ptrdiff_t step = padded(rows);
  std::memset(out, 0, sizeof(float) * columns * step);
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c) out[c * step + r] = matrix[r * columns + c];
}
inline void pack_plain(const float* matrix, int rows, int columns, float* out) {
  const std::ptrdiff_t step = padded(columns);
  std::memset(out, 0, sizeof(float) * rows * step);
  for (int r = 0; r < rows; ++r) std::memcpy(out + r * step, matrix + r * columns, sizeof(float) * columns);
}

// Rows of output that are worked on together: small maps would leave registers and loops idle.
inline int rows_a_block(const Window& w) { return std::clamp(64 / w.out_width, 1, w.out_height); }

inline void spread_rows(const Window& w, const Plane& plane, const float* image, const float* depthwise,
                        const Taps& taps, int first, int last, float* out) {
  for (int y = first; y < last; ++y, out += w.out_width * plane.step)
    spread_row(image + y * w.stride_height * plane.row, w.stride_width * plane.step, depthwise, taps, out, plane.step,
               w.out_width, static_cast<int>(plane.step));
}

// Images [first, last) of z = pointwise(depthwise(relu(source))); sums: 2 * filters.
void separable_forward(const Window& w, const Source& source, const float* depthwise_weight,
                       const float* pointwise_weight, std::int64_t first,
                       std::int64_t last, float* z, double* sums) {
  thread_local Scratch scratch;
  const Plane plane(w);
  const std::ptrdiff_t filters = padded(w.filters);
  const int block = rows_a_block(w);
  Arena arena(scratch.get(Arena::round(plane.size()) + Arena::round(w.taps() * plane.step) +
                          Arena::round(w.channels * filters) +
                          Arena::round(block * w.out_width * plane.step) + Arena::round(block * w.out_width * filters)));
  float* image = arena.take(plane.size());
  float* depthwise = arena.take(w.taps() * plane.step);
  float* pointwise = arena.take(w.channels * filters);
  float* spread = arena.take(block * w.out_width * plane.step);
  float* result = arena.take(block * w.out_width * filters);
  std::memset(image, 0, sizeof(float) * plane.size());
  pack_depthwise(w, depthwise_weight, depthwise);
  pack_transposed(pointwise_weight, w.filters, w.channels, pointwise);
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
      const std::int64_t pixel = (index * w.out_height + y) * w.out_width;
      write_block(result, filters, pixel, pixels, w.filters, z, w.filters, sums);
    }
  }
}

// Gradients over some images. The parts are added to: depthwise (taps, padded channels), pointwise
// (channels, padded filters), affine: scale then shift, padded channels each.
struct SeparableParts {
  float* depthwise;
  float* pointwise;
  float* affine;
};

inline std::size_t separable_parts_size(const Window& w) {
  return Arena::round(w.taps() * padded(w.channels)) + Arena::round(w.channels * padded(w.filters)) +
         Arena::round(2 * padded(w.channels));
}
inline SeparableParts separable_parts(const Window& w, float* memory) {
  Arena arena(memory);
  SeparableParts parts;
  parts.depthwise = arena.take(w.taps() * padded(w.channels));
  parts.pointwise = arena.take(w.channels * padded(w.filters));
  parts.affine = arena.take(2 * padded(w.channels));
  return parts;
}

void separable_backward(const Window& w, const Source& source, const float* depthwise_weight,
                        const float* pointwise_weight, const Incoming& incoming,
                        std::int64_t first, std::int64_t last, float* dz_source, bool accumulate,
                        float* part_memory) {
  thread_local Scratch scratch;
  const SeparableParts parts = separable_parts(w, part_memory);
  const Plane plane(w);
  const std::ptrdiff_t channels = plane.step, filters = padded(w.filters);
  const GradientPlane back(w, channels);
  const int pixels = w.out_height * w.out_width;
  Arena arena(scratch.get(Arena::round(plane.size()) + Arena::round(w.taps() * channels) +
                          Arena::round(w.filters * channels) + Arena::round(pixels * channels) +
                          Arena::round(pixels * filters) + Arena::round(back.size()) +
                          Arena::round(w.width * channels)));
  float* image = arena.take(plane.size());
  float* depthwise = arena.take(w.taps() * channels);
  float* pointwise = arena.take(w.filters * channels);
  float* spread = arena.take(pixels * channels);
  float* dz = arena.take(pixels * filters);
  float* dspread = arena.take(back.size());
  float* dx = arena.take(w.width * channels);
  std::memset(image, 0, sizeof(float) * plane.size());
  std::memset(dspread, 0, sizeof(float) * back.size());
  pack_depthwise(w, depthwise_weight, depthwise);
  pack_plain(pointwise_weight, w.filters, w.channels, pointwise);
  std::ptrdiff_t a[kMaxTaps], b[kMaxTaps];
  window_taps(w, plane, channels, a, b);
  const Taps taps{w.taps(), a, b};
  const int block = rows_a_block(w);
  for (std::int64_t index = first; index < last; ++index) {
    read_plane(source, w, plane, index, image);
    read_incoming(incoming, w, index, dz, w.out_width * filters, filters);
    spread_rows(w, plane, image, depthwise, taps, 0, w.out_height, spread);
    product({spread, 1, channels, dz, filters, parts.pointwise, filters, w.channels, pixels,
             static_cast<int>(filters), true});
    for (int y = 0; y < w.out_height; ++y)
      product({dz + y * w.out_width * filters, filters, 1, pointwise, channels, dspread + y * back.row + back.inside(),
               channels, w.out_width, w.filters, static_cast<int>(channels), false});
    for (int y = 0; y < w.out_height; y += block) {
      const int rows = std::min(block, w.out_height - y);
      for (int c = 0; c < channels; c += kLanes)
        spread_gradient({image + y * w.stride_height * plane.row + c, w.stride_height * plane.row,
                         w.stride_width * channels, dspread + y * back.row + back.inside() + c, back.row, channels, rows,
                         w.out_width},
                        taps, parts.depthwise + c, channels);
    }
    for (int y = 0; y < w.height; ++y) {
      for_runs(w, back, channels, y, [&](const Run& run) {
        spread_row(dspread + back.inside() + run.start * channels, channels, depthwise, run.taps,
                   dx + run.first * channels, w.stride_width * channels, run.count, static_cast<int>(channels));
      });
      const float* seen = image + (y + w.top) * plane.row + w.left * channels;
      return_row(dx, seen, channels, source, (index * w.height + y) * w.width, w.width, w.channels, dz_source,
                 accumulate, parts.affine);
    }
  }
}
