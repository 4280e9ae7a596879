// 3×3 SAME pools of one image, and their gradients: windows slide over a plane whose border needs no
// special case. Included once per instruction set, inside its namespace: no include guard.

// One image of a pooled side with a border: -infinity for a maximum, zeros for an average.
struct PoolPlane {
  std::ptrdiff_t step, row;
  int top, left, height, width;

  PoolPlane(const AddSide& side, const AddShape& shape)
      : step(padded(shape.channels)),
        row(0),
        top(pool_padding(side.height, shape.out_height, side.stride)),
        left(pool_padding(side.width, shape.out_width, side.stride)),
        height(std::max(top + side.height, (shape.out_height - 1) * side.stride + kPool)),
        width(std::max(left + side.width, (shape.out_width - 1) * side.stride + kPool)) {
    row = step * width;
  }
  std::size_t size() const { return static_cast<std::size_t>(row) * height; }
  std::ptrdiff_t inside() const { return top * row + left * step; }
};

inline void fill_border(const AddSide& side, const PoolPlane& plane, float* out) {
  std::fill(out, out + plane.size(), side.pool == Pool::maximum ? -std::numeric_limits<float>::infinity() : 0.0f);
}
inline void read_side(const AddSide& side, const PoolPlane& plane, std::int64_t image, int channels, float* out) {
  for_lanes(channels, [&](int c, auto n) {
    const Reader read(side.source, c, n);
    const float* z = side.source.z + image * side.height * side.width * side.source.pixel + c;
    for (int y = 0; y < side.height; ++y) {
      float* at = out + plane.inside() + y * plane.row + c;
      for (int x = 0; x < side.width; ++x, z += side.source.pixel, at += plane.step) {
        ask_ahead(z, side.source.pixel);
        store(at, read(load(z, n)));
      }
    }
  });
}

// The greater, or NaN where there is one.
inline vf greater(vf a, vf b) { return b > a || b != b ? b : a; }

// One row of windows' sums or maxima from three rows of a plane; `down` is scratch as wide as the windows reach.
template <typename Join>
inline void pool_row(const float* rows, const PoolPlane& plane, int outputs, int stride, float* down, float* out,
                     const Join& join) {
  const std::ptrdiff_t reach = ((outputs - 1) * stride + kPool) * plane.step;
  for (std::ptrdiff_t i = 0; i < reach; i += kLanes)
    store(down + i, join(join(load(rows + i), load(rows + plane.row + i)), load(rows + 2 * plane.row + i)));
  for (int x = 0; x < outputs; ++x, out += plane.step)
    for (std::ptrdiff_t c = 0; c < plane.step; c += kLanes) {
      const float* at = down + x * stride * plane.step + c;
      store(out + c, join(join(load(at), load(at + plane.step)), load(at + 2 * plane.step)));
    }
}

// Pixels inside the image that an output's window covers along one axis.
inline int covered(int output, int stride, int padding, int size) {
  const int start = output * stride - padding;
  return std::min(start + kPool, size) - std::max(start, 0);
}

// Output row y of a pooled side, plane.step floats a pixel.
inline void pool_forward(const AddSide& side, const AddShape& shape, const PoolPlane& plane, const float* image, int y,
                         float* down, float* out) {
  const float* rows = image + y * side.stride * plane.row;
  if (side.pool == Pool::maximum)
    return pool_row(rows, plane, shape.out_width, side.stride, down, out, greater);
  pool_row(rows, plane, shape.out_width, side.stride, down, out, [](vf a, vf b) { return a + b; });
  const int count = covered(y, side.stride, plane.top, side.height);
  for (int x = 0; x < shape.out_width; ++x, out += plane.step) {
    const vf share = splat(1.0f / (count * covered(x, side.stride, plane.left, side.width)));
    for (std::ptrdiff_t c = 0; c < plane.step; c += kLanes) store(out + c, load(out + c) * share);
  }
}

// A 3×3 window of a plane's values and of their gradients, in registers while it slides along a row.
struct SlidingWindow {
  vf value[kPool][kPool], gradient[kPool][kPool];  // by column, then row

  void read(int column, const float* values, const float* gradients, std::ptrdiff_t row) {
    PNAS_UNROLL for (int y = 0; y < kPool; ++y) {
      value[column][y] = load(values + y * row);
      gradient[column][y] = load(gradients + y * row);
    }
  }
  void write(int column, float* gradients, std::ptrdiff_t row) const {
    PNAS_UNROLL for (int y = 0; y < kPool; ++y) store(gradients + y * row, gradient[column][y]);
  }
  void move(int from, int to) {
    PNAS_UNROLL for (int y = 0; y < kPool; ++y) value[to][y] = value[from][y], gradient[to][y] = gradient[from][y];
  }
  // Adds an incoming gradient to the first greatest value, by rows, then columns.
  void add(vf incoming) {
    vf greatest = value[0][0];
    PNAS_UNROLL for (int i = 1; i < kPool * kPool; ++i) greatest = greater(greatest, value[i % kPool][i / kPool]);
    PNAS_UNROLL for (int i = 0; i < kPool * kPool; ++i) {
      const vi here = value[i % kPool][i / kPool] == greatest;
      gradient[i % kPool][i / kPool] += here ? incoming : vf{};
      incoming = here ? vf{} : incoming;
    }
  }
};

// Adds each output's gradient g to the first greatest of its window in dx, a plane.
template <int Stride>
inline void unpool_maximum_strided(const AddShape& shape, const PoolPlane& plane, const float* image, const float* g,
                                   std::ptrdiff_t g_pixel, float* dx) {
  for (int y = 0; y < shape.out_height; ++y, g += shape.out_width * g_pixel)
    for_lanes(shape.channels, [&](int c, auto n) {
      const float* values = image + y * Stride * plane.row + c;
      float* gradients = dx + y * Stride * plane.row + c;
      const auto read = [&](SlidingWindow& window, int column, int x) {
        window.read(column, values + x * plane.step, gradients + x * plane.step, plane.row);
      };
      SlidingWindow window;
      PNAS_UNROLL for (int column = 0; column < kPool; ++column) read(window, column, column);
      for (int x = 0; x < shape.out_width; ++x) {
        window.add(load(g + x * g_pixel + c, n));
        const int at = x * Stride;
        PNAS_UNROLL for (int column = 0; column < Stride; ++column)
          window.write(column, gradients + (at + column) * plane.step, plane.row);
        if (x + 1 == shape.out_width) {
          PNAS_UNROLL for (int column = Stride; column < kPool; ++column)
            window.write(column, gradients + (at + column) * plane.step, plane.row);
        } else {
          PNAS_UNROLL for (int column = Stride; column < kPool; ++column) window.move(column, column - Stride);
          PNAS_UNROLL for (int column = kPool - Stride; column < kPool; ++column)
            read(window, column, at + Stride + column);
        }
      }
    });
}

inline void unpool_maximum(const AddSide& side, const AddShape& shape, const PoolPlane& plane, const float* image,
                           const float* g, std::ptrdiff_t g_pixel, float* dx) {
  if (side.stride == 1) unpool_maximum_strided<1>(shape, plane, image, g, g_pixel, dx);
  else unpool_maximum_strided<2>(shape, plane, image, g, g_pixel, dx);
}

// Puts each output's share for one pixel of its window at the window's last pixel in `spread`, a plane of
// zeros otherwise: then an input's gradient is the sum over the window that begins with it.
inline void spread_average(const AddSide& side, const AddShape& shape, const PoolPlane& plane, const float* g,
                           std::ptrdiff_t g_pixel, float* spread) {
  for (int y = 0; y < shape.out_height; ++y) {
    const int rows = covered(y, side.stride, plane.top, side.height);
    for (int x = 0; x < shape.out_width; ++x, g += g_pixel) {
      const vf share = splat(1.0f / (rows * covered(x, side.stride, plane.left, side.width)));
      float* at = spread + (y * side.stride + kPool - 1) * plane.row + (x * side.stride + kPool - 1) * plane.step;
      for_lanes(shape.channels, [&](int c, auto n) { store(at + c, load(g + c, n) * share); });
    }
  }
}
