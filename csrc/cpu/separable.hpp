// ReLU, depthwise k×k, pointwise: forward with sums for batch norm, and backward.
// Included once per instruction set, inside its namespace: no include guard.

// Output rows [first, end) of an image, which are worked on together: single rows of small maps would leave registers
// and loops idle. What a block needs is read, and what it completes is returned, while it is in the first-level cache.
struct Block {
  struct Rows {
    int first, end;
  };

  std::int64_t image;
  int first, end;

  static int rows(const Window& w) { return std::clamp(64 / w.out_width, 1, w.out_height); }
  static Block begin(const Window& w, std::int64_t image) { return {image, 0, rows(w)}; }
  Block next(const Window& w) const {
    return end == w.out_height ? begin(w, image + 1) : Block{image, end, std::min(end + rows(w), w.out_height)};
  }
  bool is_last(const Window& w) const { return end == w.out_height; }

  Piece outputs(const Window& w, const float* z, std::ptrdiff_t pixel) const {
    return output_rows(w, z, pixel, image, first, end);
  }
  // Of an activation as large as the input.
  Piece inputs(const Window& w, const float* z, std::ptrdiff_t pixel, const Rows& rows) const {
    return rows_of(z, pixel, w.channels, image, w.height, w.width, rows.first, rows.end);
  }
  // Input rows that this block sees and none before it...
  Rows seen(const Window& w) const { return {seen_before(w, first), seen_before(w, end)}; }
  // ...and that none after it does.
  Rows complete(const Window& w) const { return {complete_before(w, first), complete_before(w, end)}; }

 private:
  // Of blocks that end before an output row.
  static int seen_before(const Window& w, int output) {
    if (output == 0 || output == w.out_height) return output == 0 ? 0 : w.height;
    return std::clamp((output - 1) * w.stride_height + w.reach_down() + 1 - w.top, 0, w.height);
  }
  static int complete_before(const Window& w, int output) {
    return output == w.out_height ? w.height : std::clamp(output * w.stride_height - w.top, 0, w.height);
  }
};

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
  const int spread_size = Block::rows(w) * w.out_width * plane.step;
  Arena arena(scratch.get(Arena::round(plane.size()) + Arena::round(spread_size) + ChannelSums::size(w.filters)));
  float* image = arena.take(plane.size());
  float* spread = arena.take(spread_size);
  Summed write{w.filters, ChannelSums(arena, w.filters)};
  clear_border(plane, w, image);
  KernelRowOffsets memory;
  const KernelRows rows = kernel_rows(w, plane, memory);
  const SpreadKernels depthwise_kernels = spread_kernels(w);
  for (Block block = Block::begin(w, first); block.image < last; block = block.next(w)) {
    const Block next = block.next(w);
    const auto seen = block.seen(w);
    read_rows(source, w, plane, block.image, seen.first, seen.end, image);
    spread_rows(w, plane, depthwise_kernels, rows, image, depthwise, block.first, block.end, spread);
    float* z = output.z + (block.image * w.out_height + block.first) * w.out_width * output.pixel;
    Product p{spread, plane.step, 1, pointwise, filters, z, output.pixel, (block.end - block.first) * w.out_width,
              w.channels, static_cast<int>(filters), false};
    if (block.image == first && block.first == 0) write.sums.begin(p);
    p.ahead[0] = ahead(p, 1, block.outputs(w, output.z, output.pixel));
    if (next.image < last) p.ahead[1] = ahead(p, 1, next.inputs(w, source.z, source.pixel, next.seen(w)));
    product(p, write);
    if (block.is_last(w)) write.sums.take(w.out_height * w.out_width, w.filters, sums);
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
  const int most_pixels = Block::rows(w) * w.out_width;
  Arena arena(scratch.get(Arena::round(plane.size()) + Arena::round(most_pixels * channels) +
                          Arena::round(most_pixels * filters) + Arena::round(back.size()) +
                          Arena::round(w.width * channels)));
  float* image = arena.take(plane.size());
  float* spread = arena.take(most_pixels * channels);
  float* dz = arena.take(most_pixels * filters);
  float* dspread = arena.take(back.size());
  float* dx = arena.take(w.width * channels);
  float* d_pointwise = parts + w.taps() * channels;
  float* d_affine = d_pointwise + w.channels * filters;
  clear_border(plane, w, image);
  clear_border(back, w, dspread);
  KernelRowOffsets memory;
  const KernelRows rows = kernel_rows(w, plane, memory);
  const SpreadKernels depthwise_kernels = spread_kernels(w);
  for (Block block = Block::begin(w, first); block.image < last; block = block.next(w)) {
    const Block next = block.next(w);
    const auto seen = block.seen(w), complete = block.complete(w);
    const int height = block.end - block.first;
    float* dspread_rows = dspread + block.first * back.row + back.inside();
    read_rows(source, w, plane, block.image, seen.first, seen.end, image);
    read_incoming(incoming, w, block.image, block.first, block.end, dz, w.out_width * filters, filters);
    spread_rows(w, plane, depthwise_kernels, rows, image, depthwise, block.first, block.end, spread);
    Product p{spread, 1, channels, dz, filters, d_pointwise, filters, w.channels, height * w.out_width,
              static_cast<int>(filters), true};
    if (to.z) p.ahead[0] = ahead(p, 1, block.inputs(w, to.z, to.pixel, complete));
    if (next.image < last) p.ahead[1] = ahead(p, 1, next.inputs(w, source.z, source.pixel, next.seen(w)));
    product(p);
    Product back_rows{dz, filters, 1, pointwise, channels, dspread_rows, channels, w.out_width, w.filters,
                      static_cast<int>(channels), false, height, w.out_width * filters, back.row};
    if (next.image < last) {
      back_rows.ahead[0] = ahead(back_rows, 1, next.outputs(w, incoming.g, incoming.g_pixel));
      if (incoming.slope) back_rows.ahead[1] = ahead(back_rows, 1, next.outputs(w, incoming.z, incoming.z_pixel));
    }
    product(back_rows);
    for (int c = 0; c < channels; c += kLanes)
      depthwise_kernels.gradient({image + block.first * w.stride_height * plane.row + c, w.stride_height * plane.row,
                                  channels, dspread_rows + c, back.row, channels, height, w.out_width, parts + c, channels},
                                 rows);
    if (!to.z) continue;
    for (int y = complete.first; y < complete.end; ++y) {
      spread_back_row(w, back, dspread, depthwise, y, dx);
      const float* rectified = w.rectify ? image + (y + w.top) * plane.row + w.left * channels : nullptr;
      return_row({dx, channels, rectified, channels, 1.0f, (block.image * w.height + y) * w.width, w.width}, source,
                 w.channels, to, d_affine);
    }
  }
}
