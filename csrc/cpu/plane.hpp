// Images brought into scratch memory, normalised, rectified and padded, and gradients taken back out.
// Included once per instruction set, inside its namespace: no include guard.

// One image with a border of zeros, `step` floats (a multiple of 8) a pixel.
struct Plane {
  std::ptrdiff_t step, row;
  int height, width;

  explicit Plane(const Window& w)
      : step(padded(w.channels)),
        row(0),
        height(std::max(w.top + w.height, (w.out_height - 1) * w.stride_height + w.reach_down() + 1)),
        width(std::max(w.left + w.width, (w.out_width - 1) * w.stride_width + w.reach_right() + 1)) {
    row = step * width;
  }
  std::size_t size() const { return static_cast<std::size_t>(row) * height; }
};

// The inside of a plane from an image of the source: scale * z + shift, then ReLU if asked.
inline void read_plane(const Source& source, const Window& w, const Plane& plane, std::int64_t image, float* out) {
  const float* z = source.z + image * w.height * w.width * source.pixel;
  for (int y = 0; y < w.height; ++y) {
    float* row = out + (y + w.top) * plane.row + w.left * plane.step;
    for (int x = 0; x < w.width; ++x, z += source.pixel, row += plane.step)
      for_lanes(w.channels, [&](int c, int n) {
        vf v = load_n(z + c, n);
        if (source.scale) v = v * load_n(source.scale + c, n) + load_n(source.shift + c, n);
        store(row + c, w.rectify ? rectified(v) : v);
      });
  }
}

// dz of one image, `step` floats a pixel, into rows that are `row` floats apart.
inline void read_incoming(const Incoming& in, const Window& w, std::int64_t image, float* out, std::ptrdiff_t row,
                          std::ptrdiff_t step) {
  const std::int64_t first = image * w.out_height * w.out_width;
  const float* g = in.g + first * in.g_pixel;
  const float* z = in.z + first * in.z_pixel;
  for (int y = 0; y < w.out_height; ++y) {
    float* at = out + y * row;
    for (int x = 0; x < w.out_width; ++x, g += in.g_pixel, z += in.z_pixel, at += step)
      for_lanes(w.filters, [&](int f, int n) {
        vf v = load_n(g + f, n);
        if (in.slope) v += load_n(in.offset + f, n) + load_n(in.slope + f, n) * load_n(z + f, n);
        store(at + f, v);
      });
  }
}

// A row of gradients with respect to what the reader saw, taken back through ReLU and affine. `seen` is
// the rectified row, or null where there was no ReLU; `sums` collects the gradients of scale (first)
// and shift (`step` floats on).
inline void return_row(const float* gradient, const float* seen, std::ptrdiff_t step, const Source& source,
                       std::int64_t first_pixel, int pixels, int channels, const SourceGradient& to, float* sums) {
  const float* z0 = source.z + first_pixel * source.pixel;
  float* dz0 = to.z + first_pixel * to.pixel;
  for_lanes(channels, [&](int c, int n) {
    const vf scale = source.scale ? load_n(source.scale + c, n) : splat(1.0f);
    vf by_scale{}, by_shift{};
    for (int x = 0; x < pixels; ++x) {
      vf g = load(gradient + x * step + c);
      if (seen) g = load(seen + x * step + c) > 0.0f ? g : vf{};
      float* out = dz0 + x * to.pixel + c;
      store_n(out, to.accumulate ? load_n(out, n) + g * scale : g * scale, n);
      if (source.scale) by_scale += g * load_n(z0 + x * source.pixel + c, n), by_shift += g;
    }
    if (source.scale) {
      store(sums + c, load(sums + c) + by_scale);
      store(sums + step + c, load(sums + step + c) + by_shift);
    }
  });
}

// A block of results, `step` floats a pixel, written out, with their sums and sums of squares added to
// sums[f] and sums[filters + f]. Squares are taken around the block's own mean, in the first-level
// cache, so that a mean far from zero costs no digits.
inline void write_block(const float* block, std::ptrdiff_t step, std::int64_t first_pixel, int pixels, int filters,
                        const Output& output, double* sums) {
  float* out = output.z + first_pixel * output.pixel;
  for_lanes(filters, [&](int f, int n) {
    vf sum{};
    for (int i = 0; i < pixels; ++i) {
      const vf v = load(block + i * step + f);
      store_n(out + i * output.pixel + f, v, n);
      sum += v;
    }
    const vf mean = sum / splat(static_cast<float>(pixels));
    vf rest{}, squares{};
    for (int i = 0; i < pixels; ++i) {
      const vf v = load(block + i * step + f) - mean;
      rest += v, squares += v * v;
    }
    for (int lane = 0; lane < n; ++lane) {
      const double m = mean[lane];
      sums[f + lane] += m * pixels + rest[lane];
      sums[filters + f + lane] += squares[lane] + m * (m * pixels + 2.0 * rest[lane]);
    }
  });
}

// Offsets of a window's taps in a plane, and of tap-major weights with `size` floats a tap.
inline void window_taps(const Window& w, const Plane& plane, std::ptrdiff_t size, std::ptrdiff_t* a,
                        std::ptrdiff_t* b) {
  for (int y = 0, tap = 0; y < w.kernel_height; ++y)
    for (int x = 0; x < w.kernel_width; ++x, ++tap)
      a[tap] = (y * w.dilation + w.skip) * plane.row + (x * w.dilation + w.skip) * plane.step, b[tap] = tap * size;
}

// Gradients of outputs beside which there are enough zero columns for every tap of every input pixel.
struct GradientPlane {
  std::ptrdiff_t step, row;
  int border, height;

  GradientPlane(const Window& w, std::ptrdiff_t channels)
      : step(channels), border(w.reach_right() / w.stride_width + 1), height(w.out_height) {
    row = step * (w.out_width + 2 * border);
  }
  std::size_t size() const { return static_cast<std::size_t>(row) * height; }
  std::ptrdiff_t inside() const { return border * step; }
};

// Input pixels of one row that share their taps: x = first, first + stride, ...
struct Run {
  int first, count, start;  // start: the output column that offset 0 stands for
  Taps taps;
};

// Calls use(run) for the runs of input row y: which outputs (offsets in a gradient plane) saw it through
// which taps (offsets in tap-major weights with `size` floats a tap).
template <typename Use>
inline void for_runs(const Window& w, const GradientPlane& plane, std::ptrdiff_t size, int y, const Use& use) {
  for (int phase = 0; phase < w.stride_width; ++phase) {
    std::ptrdiff_t a[kMaxTaps], b[kMaxTaps];
    int count = 0;
    for (int ty = 0; ty < w.kernel_height; ++ty) {
      const int up = y + w.top - ty * w.dilation - w.skip;
      if (up < 0 || up % w.stride_height || up / w.stride_height >= w.out_height) continue;
      for (int tx = 0; tx < w.kernel_width; ++tx) {
        const int back = phase - tx * w.dilation - w.skip;
        if (back % w.stride_width) continue;
        a[count] = up / w.stride_height * plane.row + back / w.stride_width * plane.step;
        b[count++] = (ty * w.kernel_width + tx) * size;
      }
    }
    const int start = (w.left - phase + w.stride_width - 1) / w.stride_width;
    const int first = start * w.stride_width + phase - w.left;
    if (first < w.width) use(Run{first, (w.width - first - 1) / w.stride_width + 1, start, Taps{count, a, b}});
  }
}
