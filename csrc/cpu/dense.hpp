// [ReLU,] dense convolution: 1×1, 1×7, 7×1, 3×3; forward with sums for batch norm, and backward.
// Included once per instruction set, inside its namespace: no include guard.

// Images [first, last) of z = weight * [relu](source); sums: 2 * filters. The weight is packed for the
// forward pass.
void dense_forward(const Window& given, const Source& source, const float* weight, std::int64_t first,
                   std::int64_t last, const Output& output, double* sums) {
  if (given.by_points()) return winograd_forward(given, source, weight, first, last, output, sums);
  const Window w = given.picked();
  thread_local Scratch scratch;
  const Plane plane(w, joins_taps(w));
  const std::ptrdiff_t filters = padded(w.filters);
  Arena arena(scratch.get(Arena::round(plane.size()) + ChannelSums::size(w.filters)));
  float* image = arena.take(plane.size());
  Summed write{w.filters, ChannelSums(arena, w.filters)};
  clear_border(plane, w, image);
  std::ptrdiff_t a[kMaxTaps], b[kMaxTaps];
  const Taps taps{window_taps(w, plane, w.channels * filters, a, b), a, b};
  for (std::int64_t index = first; index < last; ++index) {
    read_seen(source, given, plane, index, image);
    float* z = output.z + index * w.out_height * w.out_width * output.pixel;
    Product p{image, w.stride_width * plane.step, 1, weight, filters, z, output.pixel, w.out_width, tap_depth(w),
              static_cast<int>(filters), false, w.out_height, w.stride_height * plane.row, w.out_width * output.pixel};
    if (index == first) write.sums.begin(p, taps);
    p.ahead[0] = ahead(p, taps.count, output_rows(w, output.z, output.pixel, index, 0, w.out_height));
    if (index + 1 < last) p.ahead[1] = ahead(p, taps.count, source_image(given, source, index + 1));
    product(p, taps, write);
    write.sums.take(w.out_height * w.out_width, w.filters, sums);
  }
}

// The gradient of a stride-1 convolution's input, `channels` floats a pixel, from dz in a plane.
inline void input_gradient_by_taps(const Window& w, const GradientPlane& back, const float* dz, const float* weight,
                                   float* dx) {
  const std::ptrdiff_t channels = padded(w.channels);
  std::memset(dx, 0, sizeof(float) * w.height * w.width * channels);
  for (int tap = 0; tap < w.taps(); ++tap) {
    const int down = tap / w.kernel_width - w.top, right = tap % w.kernel_width - w.left;
    // Output row y - down saw input row y through this tap.
    const int first = std::max(0, down), last = std::min(w.height, w.out_height + down);
    if (first >= last || std::abs(right) >= w.width) continue;
    product({dz + back.inside() + (first - down) * back.row - right * back.step, back.step, 1,
             weight + tap * w.filters * channels, channels, dx + first * w.width * channels, channels, w.width, w.filters,
             static_cast<int>(channels), true, last - first, back.row, w.width * channels});
  }
}

// Gradients over images [first, last). The weight is packed for going back. `parts` is added to: weight
// as taps of (channels, padded filters), affine: scale then shift, padded channels each.
void dense_backward(const Window& given, const Source& source, const float* weight, const Incoming& incoming,
                    std::int64_t first, std::int64_t last, const SourceGradient& to, float* parts) {
  if (given.by_points()) return winograd_backward(given, source, weight, incoming, first, last, to, parts);
  const bool picks = given.picks();
  const Window w = given.picked();
  thread_local Scratch scratch;
  const Plane plane(w, joins_taps(w));
  const std::ptrdiff_t channels = padded(w.channels), filters = padded(w.filters);
  const GradientPlane back(w, filters);
  // Where all taps' weights would not stay in the first-level cache: tap by tap over a whole image.
  const bool by_taps = w.taps() > 1 && w.stride_height == 1 && w.stride_width == 1 && w.taps() * w.filters > 192;
  const std::size_t dx_size = w.width * channels * (by_taps ? w.height : 1);
  Arena arena(scratch.get(Arena::round(plane.size()) + Arena::round(back.size()) + Arena::round(dx_size) +
                          2 * Arena::round(2 * w.out_height)));
  float* image = arena.take(plane.size());
  float* dz = arena.take(back.size());
  float* dx = arena.take(dx_size);
  auto* rows_a = reinterpret_cast<std::ptrdiff_t*>(arena.take(2 * w.out_height));
  auto* rows_b = reinterpret_cast<std::ptrdiff_t*>(arena.take(2 * w.out_height));
  float* d_affine = parts + w.taps() * w.channels * filters;
  clear_border(plane, w, image);
  clear_border(back, w, dz);
  std::ptrdiff_t a[kMaxTaps], b[kMaxTaps];
  const int taps = window_taps(w, plane, w.channels * filters, a, b);
  for (int y = 0; y < w.out_height; ++y) rows_a[y] = y * w.stride_height * plane.row, rows_b[y] = y * back.row;
  const Taps rows{w.out_height, rows_a, rows_b};
  for (std::int64_t index = first; index < last; ++index) {
    read_seen(source, given, plane, index, image);
    read_incoming(incoming, w, index, 0, w.out_height, dz + back.inside(), back.row, filters);
    for (int tap = 0; tap < taps; ++tap) {
      Product p{image + a[tap], 1, w.stride_width * plane.step, dz + back.inside(), filters,
                parts + b[tap], filters, tap_depth(w), w.out_width, static_cast<int>(filters), true};
      if (index + 1 < last && tap == 0) {
        p.ahead[0] = ahead(p, rows.count, source_image(given, source, index + 1));
        if (incoming.slope)
          p.ahead[1] = ahead(p, rows.count, output_rows(w, incoming.z, incoming.z_pixel, index + 1, 0, w.out_height));
      }
      product(p, rows);
    }
    if (!to.z) continue;
    if (picks && !to.accumulate) clear_gradient(given, index, to);
    const auto give_back = [&](const float* rows, int y) {
      const float* seen = w.rectify ? image + (y + w.top) * plane.row + w.left * plane.step : nullptr;
      if (picks) {
        if (y < given.picked_rows()) return_picked(given, source, index, y, rows, seen, channels, to, d_affine);
        return;
      }
      return_row({rows, channels, seen, plane.step, 1.0f, (index * w.height + y) * w.width, w.width}, source, w.channels,
                 to, d_affine);
    };
    if (by_taps) {
      input_gradient_by_taps(w, back, dz, weight, dx);
      for (int y = 0; y < w.height; ++y) give_back(dx + y * w.width * channels, y);
      continue;
    }
    for (int y = 0; y < w.height; ++y) {
      for_runs(w, back, w.filters * channels, y, [&](const Run& run) {
        Product p{dz + back.inside() + run.start * filters, filters, 1, weight, channels, dx + run.first * channels,
                  w.stride_width * channels, run.count, w.filters, static_cast<int>(channels), false};
        if (!picks)
          p.ahead[0] =
              ahead(p, run.taps.count, rows_of(to.z, to.pixel, w.channels, index, w.height, w.width, y, y + 1));
        if (index + 1 < last && y < w.out_height)
          p.ahead[1] =
              ahead(p, run.taps.count, output_rows(w, incoming.g, incoming.g_pixel, index + 1, y, y + 1));
        product(p, run.taps);
      });
      give_back(dx, y);
    }
  }
}
