// ReLU, depthwise k×k, pointwise: forward with sums for batch norm, and backward.
// Included once per instruction set, inside its namespace: no include guard.

// Rows of output that are worked on together: small maps would leave registers and loops idle.
inline int rows_a_block(const Window& w) { return std::clamp(64 / w.out_width, 1, w.out_height); }

struct KernelRowOffsets {
  std::ptrdiff_t a[kMaxTaps], b[kMaxTaps];
};

// Rows of a kernel over a plane, and over packed weights.
inline KernelRows kernel_rows(const Window& w, const Plane& plane, KernelRowOffsets& memory) {
  for (int y = 0; y < w.kernel_height; ++y)
    memory.a[y] = y * w.dilation * plane.row, memory.b[y] = y * w.kernel_width * plane.step;
  return {w.kernel_height, memory.a, memory.b};
}

// Output rows [first, last) of the depthwise convolution, packed.
inline void spread_rows(const Window& w, const Plane& plane, const SpreadKernels& kernels, const KernelRows& rows,
                        const float* image, const float* depthwise, int first, int last, float* out) {
  for (int y = first; y < last; ++y, out += w.out_width * plane.step)
    kernels.forward({image + y * w.stride_height * plane.row, plane.step, depthwise, plane.step, out, plane.step,
                     w.out_width, static_cast<int>(plane.step)},
                    rows);
}

// Row y of the gradient of the depthwise convolution's input: for each phase of the stride a depthwise
// convolution of the output's gradient, which lies in a plane `back`, with the taps of that phase, mirrored.
inline void spread_back_row(const Window& w, const GradientPlane& back, const float* gradient, const float* depthwise,
                            int y, float* dx) {
  const int s = w.stride_width, d = w.dilation;
  KernelRowOffsets memory;
  for (int phase = 0; phase < s; ++phase) {
    int taps = 0, last = 0, apart = 1;
    for (int tx = 0; tx < w.kernel_width; ++tx)
      if ((phase - tx * d) % s == 0) ++taps, apart = tx - last, last = tx;
    KernelRows rows{0, memory.a, memory.b};
    for (int ty = 0; taps && ty < w.kernel_height; ++ty) {
      const int up = y + w.top - ty * d;
      if (up < 0 || up % s || up / s >= w.out_height) continue;
      memory.a[rows.count] = up / s * back.row + (phase - last * d) / s * back.step;
      memory.b[rows.count++] = (ty * w.kernel_width + last) * back.step;
    }
    const int start = (w.left - phase + s - 1) / s, first = start * s + phase - w.left;
    if (first >= w.width) continue;
    if (taps == 1) apart = 1;
    spread_back(std::max(taps, 1), apart * d / s,
                {gradient + back.inside() + start * back.step, back.step, depthwise, -apart * back.step,
                 dx + first * back.step, s * back.step, (w.width - first - 1) / s + 1, static_cast<int>(back.step)},
                rows);
  }
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
                          ChannelSums::size(w.filters)));
  float* image = arena.take(plane.size());
  float* spread = arena.take(block * w.out_width * plane.step);
  Summed write{w.filters, ChannelSums(arena, w.filters)};
  clear_border(plane, w, image);
  KernelRowOffsets memory;
  const KernelRows rows = kernel_rows(w, plane, memory);
  const SpreadKernels depthwise_kernels = spread_kernels(w);
  for (std::int64_t index = first; index < last; ++index) {
    read_plane(source, w, plane, index, image);
    for (int y = 0; y < w.out_height; y += block) {
      const int end = std::min(y + block, w.out_height);
      spread_rows(w, plane, depthwise_kernels, rows, image, depthwise, y, end, spread);
      float* z = output.z + (index * w.out_height + y) * w.out_width * output.pixel;
      Product p{spread, plane.step, 1, pointwise, filters, z, output.pixel, (end - y) * w.out_width, w.channels,
                static_cast<int>(filters), false};
      if (index == first && y == 0) write.sums.begin(p);
      p.ahead[0] = ahead(p, 1, output_rows(w, output.z, output.pixel, index, y, end));
      if (index + 1 < last) p.ahead[1] = ahead(p, 1, source_rows(w, source, index + 1, y, end));
      product(p, write);
    }
    write.sums.take(w.out_height * w.out_width, w.filters, sums);
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
  const int block = rows_a_block(w), block_pixels = block * w.out_width;
  Arena arena(scratch.get(Arena::round(plane.size()) + Arena::round(block_pixels * channels) +
                          Arena::round(block_pixels * filters) + Arena::round(back.size()) +
                          Arena::round(w.width * channels)));
  float* image = arena.take(plane.size());
  float* spread = arena.take(block_pixels * channels);
  float* dz = arena.take(block_pixels * filters);
  float* dspread = arena.take(back.size());
  float* dx = arena.take(w.width * channels);
  float* d_pointwise = parts + w.taps() * channels;
  float* d_affine = d_pointwise + w.channels * filters;
  clear_border(plane, w, image);
  clear_border(back, w, dspread);
  KernelRowOffsets memory;
  const KernelRows rows = kernel_rows(w, plane, memory);
  const SpreadKernels depthwise_kernels = spread_kernels(w);
  for (std::int64_t index = first; index < last; ++index) {
    read_plane(source, w, plane, index, image);
    for (int y = 0; y < w.out_height; y += block) {
      const int end = std::min(y + block, w.out_height), pixels = (end - y) * w.out_width;
      read_incoming(incoming, w, index, y, end, dz, w.out_width * filters, filters);
      spread_rows(w, plane, depthwise_kernels, rows, image, depthwise, y, end, spread);
      Product p{spread, 1, channels, dz, filters, d_pointwise, filters, w.channels, pixels, static_cast<int>(filters), true};
      if (to.z) p.ahead[0] = ahead(p, 1, source_rows(w, {to.z, to.pixel}, index, y, end));
      if (index + 1 < last) p.ahead[1] = ahead(p, 1, source_rows(w, source, index + 1, y, end));
      product(p);
      for (int row = y; row < end; ++row) {
        Product back_row{dz + (row - y) * w.out_width * filters, filters, 1, pointwise, channels,
                         dspread + row * back.row + back.inside(), channels, w.out_width, w.filters,
                         static_cast<int>(channels), false};
        if (index + 1 < last) {
          back_row.ahead[0] = ahead(back_row, 1, output_rows(w, incoming.g, incoming.g_pixel, index + 1, row, row + 1));
          if (incoming.slope)
            back_row.ahead[1] = ahead(back_row, 1, output_rows(w, incoming.z, incoming.z_pixel, index + 1, row, row + 1));
        }
        product(back_row);
      }
      for (int c = 0; c < channels; c += kLanes)
        depthwise_kernels.gradient({image + y * w.stride_height * plane.row + c, w.stride_height * plane.row, channels,
                                    dspread + y * back.row + back.inside() + c, back.row, channels, end - y,
                                    w.out_width, parts + c, channels},
                                   rows);
    }
    if (!to.z) continue;
    for (int y = 0; y < w.height; ++y) {
      spread_back_row(w, back, dspread, depthwise, y, dx);
      const float* seen = w.rectify ? image + (y + w.top) * plane.row + w.left * channels : nullptr;
      return_row({dx, channels, seen, channels, 1.0f, (index * w.height + y) * w.width, w.width}, source, w.channels, to,
                 d_affine);
    }
  }
}
