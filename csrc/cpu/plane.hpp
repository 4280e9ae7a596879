// Images brought into scratch memory, normalised, rectified and padded, and gradients taken back out.
// Included once per instruction set, inside its namespace: no include guard.

// One image with a border of zeros, `step` floats a pixel: a multiple of kLanes, or just the channels, close together.
struct Plane {
  std::ptrdiff_t step, row;
  int height, width;

  explicit Plane(const Window& w, bool close = false)
      : step(close ? w.channels : padded(w.channels)),
        row(0),
        height(std::max(w.top + w.height, (w.out_height - 1) * w.stride_height + w.reach_down() + 1)),
        width(std::max(w.left + w.width, (w.out_width - 1) * w.stride_width + w.reach_right() + 1)) {
    row = step * width;
  }
  // The last pixel is written as a whole vector, too.
  std::size_t size() const { return static_cast<std::size_t>(row) * height + padded(step) - step; }
};

// Zeros around an inside of height × width pixels at (top, left) of rows that are `row` floats apart: what is
// written to the inside of a plane for each image need not be cleared before.
inline void clear_border(float* plane, int rows, std::ptrdiff_t row, std::ptrdiff_t step, int top, int left, int height,
                         int width) {
  std::fill(plane, plane + top * row, 0.0f);
  for (int y = top; y < top + height; ++y) {
    float* start = plane + y * row;
    std::fill(start, start + left * step, 0.0f);
    std::fill(start + (left + width) * step, start + row, 0.0f);
  }
  std::fill(plane + (top + height) * row, plane + rows * row, 0.0f);
}
inline void clear_border(const Plane& plane, const Window& w, float* image) {
  std::fill(image + plane.row * plane.height, image + plane.size(), 0.0f);
  clear_border(image, plane.height, plane.row, plane.step, w.top, w.left, w.height, w.width);
}

// What a reader of a source sees of one vector of its channels.
struct Reader {
  vf scale, shift;

  template <typename N>
  Reader(const Source& source, int c, N n)
      : scale(source.scale ? load(source.scale + c, n) : splat(1.0f)),
        shift(source.scale ? load(source.shift + c, n) : vf{}) {}
};

// A row of pixels of a source, `apart` floats from each other: scale * z + shift, then ReLU if asked, which lets NaN
// through as PyTorch's does.
inline void read_row(const Source& source, const float* first, std::ptrdiff_t apart, int pixels, int channels,
                     bool rectify, float* out, std::ptrdiff_t step) {
  choose(source.scale, [&](auto normalised) {
    choose(rectify, [&](auto rectified) {
      for_groups(channels, [&](int c, auto n, auto vectors) {
        constexpr int V = vectors;
        vf scale[V], shift[V];
        if constexpr (normalised)
          PNAS_UNROLL for (int v = 0; v < V; ++v)
            scale[v] = load(source.scale + c + v * kLanes, n), shift[v] = load(source.shift + c + v * kLanes, n);
        const float* z = first + c;
        float* to = out + c;
        for (int x = 0; x < pixels; ++x, z += apart, to += step) {
          ask_ahead<V>(z, apart);
          PNAS_UNROLL for (int v = 0; v < V; ++v) {
            vf value = load(z + v * kLanes, n);
            if constexpr (normalised) value = value * scale[v] + shift[v];
            if constexpr (rectified) value = greater(vf{}, value);
            store(to + v * kLanes, value);
          }
        }
      });
    });
  });
}

// The inside of a plane from an image of the source: rows [first, last), or all. What a pixel's last vector has past its
// channels is zeros; where pixels are close together the next ones come over them.
inline void read_rows(const Source& source, const Window& w, const Plane& plane, std::int64_t image, int first,
                      int last, float* out) {
  for (int y = first; y < last; ++y)
    read_row(source, source.z + (image * w.height + y) * w.width * source.pixel, source.pixel, w.width, w.channels,
             w.rectify, out + (y + w.top) * plane.row + w.left * plane.step, plane.step);
}

inline void read_plane(const Source& source, const Window& w, const Plane& plane, std::int64_t image, float* out) {
  read_rows(source, w, plane, image, 0, w.height, out);
}

// The same of the pixels that a window picks, side by side; zeros for those past the edge.
inline void read_picked(const Source& source, const Window& w, const Plane& plane, std::int64_t image, float* out) {
  const int rows = w.picked_rows(), columns = w.picked_columns();
  for (int y = 0; y < rows; ++y) {
    const std::int64_t pixel = (image * w.height + y * w.stride_height + w.skip) * w.width + w.skip;
    float* row = out + y * plane.row;
    read_row(source, source.z + pixel * source.pixel, w.stride_width * source.pixel, columns, w.channels, w.rectify, row,
             plane.step);
    std::fill(row + columns * plane.step, row + plane.row, 0.0f);
  }
  std::fill(out + rows * plane.row, out + plane.size(), 0.0f);
}

// What a window sees of an image.
inline void read_seen(const Source& source, const Window& w, const Plane& plane, std::int64_t image, float* out) {
  if (w.picks()) read_picked(source, w, plane, image, out);
  else read_plane(source, w, plane, image, out);
}

// dz of output rows [first, last) of an image, `step` floats a pixel, into rows that are `row` floats apart.
inline void read_incoming(const Incoming& in, const Window& w, std::int64_t image, int first, int last, float* out,
                          std::ptrdiff_t row, std::ptrdiff_t step) {
  const std::int64_t pixel = (image * w.out_height + first) * w.out_width;
  choose(in.slope, [&](auto normalised) {
    choose(in.g_pixel > w.filters, [&](auto slice) {
      for_groups(w.filters, [&](int f, auto n, auto vectors) {
        constexpr int V = vectors;
        vf factor[V], offset[V], slope[V];
        if constexpr (normalised)
          PNAS_UNROLL for (int v = 0; v < V; ++v) {
            const int at = f + v * kLanes;
            factor[v] = load(in.factor + at, n), offset[v] = load(in.offset + at, n), slope[v] = load(in.slope + at, n);
          }
        const float* g = in.g + pixel * in.g_pixel + f;
        const float* z = in.z + pixel * in.z_pixel + f;
        for (int y = first; y < last; ++y) {
          float* at = out + (y - first) * row + f;
          for (int x = 0; x < w.out_width; ++x, g += in.g_pixel, z += in.z_pixel, at += step) {
            if constexpr (slice) ask_ahead<V>(g, 2 * in.g_pixel);
            PNAS_UNROLL for (int v = 0; v < V; ++v) {
              vf value = load(g + v * kLanes, n);
              if constexpr (normalised) value = factor[v] * value + (offset[v] + slope[v] * load(z + v * kLanes, n));
              store(at + v * kLanes, value);
            }
          }
        }
      });
    });
  });
}

// Rows [first, last) of an image of an activation, to be asked for ahead; none where they are a slice of
// something wider, most of which nobody wants.
inline Piece rows_of(const float* z, std::ptrdiff_t pixel, int channels, std::int64_t image, int height, int width,
                     int first, int last) {
  const std::ptrdiff_t pixels = static_cast<std::ptrdiff_t>(last - first) * width;
  return {z + (image * height + first) * width * pixel, pixel == channels ? pixels * pixel : 0};
}

// Output rows [first, last) of an image, `z` being the output or its gradient.
inline Piece output_rows(const Window& w, const float* z, std::ptrdiff_t pixel, std::int64_t image, int first, int last) {
  return rows_of(z, pixel, w.filters, image, w.out_height, w.out_width, first, last);
}

// An image of the source, to be asked for ahead; nothing of one of which only some pixels are picked.
inline Piece source_image(const Window& w, const Source& source, std::int64_t image) {
  if (w.picks()) return {source.z, 0};
  return rows_of(source.z, source.pixel, w.channels, image, w.height, w.width, 0, w.height);
}

// A row of gradients with respect to what a reader saw, to be taken back to its source.
struct Return {
  const float* gradient;
  std::ptrdiff_t step;
  const float* seen;  // the rectified pixels, or null where there was no ReLU
  std::ptrdiff_t seen_step;
  float keep;  // a factor
  std::int64_t first_pixel;
  int pixels;
};

// Through ReLU and affine; `sums` collects the gradients of scale, then of shift, padded channels each.
inline void return_row(const Return& r, const Source& source, int channels, const SourceGradient& to, float* sums) {
  choose(r.seen, [&](auto rectified) {
    choose(to.accumulate, [&](auto accumulate) {
      choose(source.scale, [&](auto normalised) {
        for_groups(channels, [&](int c, auto n, auto vectors) {
          constexpr int V = vectors;
          vf scale[V], by_scale[V] = {}, by_shift[V] = {};
          PNAS_UNROLL for (int v = 0; v < V; ++v)
            scale[v] = splat(r.keep) * (normalised ? load(source.scale + c + v * kLanes, n) : splat(1.0f));
          const float* g = r.gradient + c;
          const float* seen = r.seen + c;
          const float* z = source.z + r.first_pixel * source.pixel + c;
          float* dz = to.z + r.first_pixel * to.pixel + c;
          for (int x = 0; x < r.pixels; ++x, g += r.step, dz += to.pixel, z += source.pixel) {
            if constexpr (!rectified) ask_ahead<V>(g, r.step);
            if constexpr (!rectified && normalised) ask_ahead<V>(z, source.pixel);
            ask_ahead<V>(dz, to.pixel);
            PNAS_UNROLL for (int v = 0; v < V; ++v) {
              const int at = v * kLanes;
              vf value = load(g + at, n);
              if constexpr (rectified) value = load(seen + x * r.seen_step + at) > 0.0f ? value : vf{};
              if constexpr (normalised) by_scale[v] += value * load(z + at, n), by_shift[v] += value;
              if constexpr (accumulate) store(dz + at, load(dz + at, n) + value * scale[v], n);
              else store(dz + at, value * scale[v], n);
            }
          }
          if constexpr (normalised)
            PNAS_UNROLL for (int v = 0; v < V; ++v) {
              float* of_scale = sums + c + v * kLanes;
              float* of_shift = of_scale + padded(channels);
              store(of_scale, load(of_scale) + by_scale[v] * splat(r.keep));
              store(of_shift, load(of_shift) + by_shift[v] * splat(r.keep));
            }
        });
      });
    });
  });
}

// The part of this for `sums` alone, of gradients g of `pixels` values of a normalised source.
inline void sum_row(const float* g, std::ptrdiff_t g_pixel, const float* z, std::ptrdiff_t z_pixel, int pixels, int channels,
                    float* sums) {
  for_groups(channels, [&](int c, auto n, auto vectors) {
    constexpr int V = vectors;
    vf by_scale[V] = {}, by_shift[V] = {};
    const float* value = z + c;
    const float* incoming = g + c;
    for (int x = 0; x < pixels; ++x, incoming += g_pixel, value += z_pixel) {
      ask_ahead<V>(incoming, g_pixel), ask_ahead<V>(value, z_pixel);
      PNAS_UNROLL for (int v = 0; v < V; ++v) {
        const vf gradient = load(incoming + v * kLanes, n);
        by_scale[v] += gradient * load(value + v * kLanes, n), by_shift[v] += gradient;
      }
    }
    PNAS_UNROLL for (int v = 0; v < V; ++v) {
      float* of_scale = sums + c + v * kLanes;
      float* of_shift = of_scale + padded(channels);
      store(of_scale, load(of_scale) + by_scale[v]), store(of_shift, load(of_shift) + by_shift[v]);
    }
  });
}

// What row y of an image's picked pixels gives back: `row`, as it was seen in `seen` where there was a ReLU.
inline void return_picked(const Window& w, const Source& source, std::int64_t image, int y, const float* row,
                          const float* seen, std::ptrdiff_t step, const SourceGradient& to, float* sums) {
  const std::int64_t pixel = (image * w.height + y * w.stride_height + w.skip) * w.width + w.skip;
  const Source picked{source.z + pixel * source.pixel, w.stride_width * source.pixel, source.scale, source.shift};
  const SourceGradient there{to.z + pixel * to.pixel, w.stride_width * to.pixel, to.scale, to.shift, to.accumulate};
  return_row({row, step, seen, step, 1.0f, 0, w.picked_columns()}, picked, w.channels, there, sums);
}

// Zeros for an image's gradient: what nobody picks gets nothing.
inline void clear_gradient(const Window& w, std::int64_t image, const SourceGradient& to) {
  float* dz = to.z + image * w.height * w.width * to.pixel;
  for (int i = 0; i < w.height * w.width; ++i, dz += to.pixel) std::memset(dz, 0, sizeof(float) * w.channels);
}

// Whether a plane's pixels are close together, so that the taps of a kernel's row see one run of values: of few channels
// alone a product would leave most registers idle.
inline bool joins_taps(const Window& w) { return w.channels < kLanes && w.kernel_width > 1 && w.dilation == 1; }

// How many values each of `window_taps` sees.
inline int tap_depth(const Window& w) { return w.channels * (joins_taps(w) ? w.kernel_width : 1); }

// Offsets of a window's taps, or of its kernel's rows where these are joined, in a plane, and of tap-major weights with
// `size` floats a tap; the number of those that ever see the image.
inline int window_taps(const Window& w, const Plane& plane, std::ptrdiff_t size, std::ptrdiff_t* a,
                       std::ptrdiff_t* b) {
  int count = 0;
  if (joins_taps(w)) {
    for (; count < w.kernel_height; ++count) a[count] = count * plane.row, b[count] = count * w.kernel_width * size;
    return count;
  }
  for (int y = 0, tap = 0; y < w.kernel_height; ++y)
    for (int x = 0; x < w.kernel_width; ++x, ++tap) {
      const int down = y * w.dilation + w.skip, right = x * w.dilation + w.skip;
      if (!tap_reaches(w.out_height, w.stride_height, w.top, down, w.height) ||
          !tap_reaches(w.out_width, w.stride_width, w.left, right, w.width))
        continue;
      a[count] = down * plane.row + right * plane.step;
      b[count++] = tap * size;
    }
  return count;
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

inline void clear_border(const GradientPlane& plane, const Window& w, float* gradient) {
  clear_border(gradient, plane.height, plane.row, plane.step, 0, plane.border, w.out_height, w.out_width);
}

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
        if (back % w.stride_width ||
            !tap_reaches(w.out_width, w.stride_width, w.left, tx * w.dilation + w.skip, w.width))
          continue;
        a[count] = up / w.stride_height * plane.row + back / w.stride_width * plane.step;
        b[count++] = (ty * w.kernel_width + tx) * size;
      }
    }
    const int start = (w.left - phase + w.stride_width - 1) / w.stride_width;
    const int first = start * w.stride_width + phase - w.left;
    if (first < w.width) use(Run{first, (w.width - first - 1) / w.stride_width + 1, start, Taps{count, a, b}});
  }
}
