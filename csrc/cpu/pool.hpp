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
// Row y of a side's image, into its place in the plane.
inline void read_side_row(const AddSide& side, const PoolPlane& plane, std::int64_t image, int y, int channels,
                          float* out) {
  const float* row = side.source.z + (image * side.height + y) * side.width * side.source.pixel;
  for_groups(channels, [&](int c, auto n, auto vectors) {
    constexpr int V = vectors;
    vf scale[V], shift[V];
    PNAS_UNROLL for (int v = 0; v < V; ++v) {
      const Reader read(side.source, c + v * kLanes, n);
      scale[v] = read.scale, shift[v] = read.shift;
    }
    const float* z = row + c;
    float* at = out + plane.inside() + y * plane.row + c;
    for (int x = 0; x < side.width; ++x, z += side.source.pixel, at += plane.step) {
      ask_ahead(z, side.source.pixel);
      PNAS_UNROLL for (int v = 0; v < V; ++v) store(at + v * kLanes, load(z + v * kLanes, n) * scale[v] + shift[v]);
    }
  });
}

// The input rows that output rows up to y have in their windows: [0, rows_seen).
inline int rows_seen(const AddSide& side, const PoolPlane& plane, int y) {
  return std::min(y * side.stride + kPool - plane.top, side.height);
}

// How the values of a window are joined: the greatest, or NaN where there is one; the sum.
struct Greater {
  vf operator()(vf a, vf b) const { return b > a || b != b ? b : a; }
};
struct Sum {
  vf operator()(vf a, vf b) const { return a + b; }
};

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
    return pool_row(rows, plane, shape.out_width, side.stride, down, out, Greater{});
  pool_row(rows, plane, shape.out_width, side.stride, down, out, Sum{});
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
    PNAS_UNROLL for (int i = 1; i < kPool * kPool; ++i) {
      const vf v = value[i % kPool][i / kPool];
      greatest = greatest > v ? greatest : v;
    }
    PNAS_UNROLL for (int i = 0; i < kPool * kPool; ++i) {
      const vi here = value[i % kPool][i / kPool] == greatest;
      gradient[i % kPool][i / kPool] += here ? incoming : vf{};
      incoming = here ? vf{} : incoming;
    }
  }
};

// Adds the gradients g of output row y to the first greatest of their windows in dx, a plane.
template <int Stride>
inline void unpool_row(const AddShape& shape, const PoolPlane& plane, const float* image, int y, const float* g,
                       std::ptrdiff_t g_pixel, float* dx) {
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

// Puts each output of row y's share for one pixel of its window at the window's last pixel in `spread`, a
// plane of zeros otherwise: then an input's gradient is the sum over the window that begins with it.
inline void spread_average_row(const AddSide& side, const AddShape& shape, const PoolPlane& plane, int y,
                               const float* g, std::ptrdiff_t g_pixel, float* spread) {
  const int rows = covered(y, side.stride, plane.top, side.height);
  float* at = spread + (y * side.stride + kPool - 1) * plane.row + (kPool - 1) * plane.step;
  for (int x = 0; x < shape.out_width; ++x, g += g_pixel, at += side.stride * plane.step) {
    const vf share = splat(1.0f / (rows * covered(x, side.stride, plane.left, side.width)));
    for_lanes(shape.channels, [&](int c, auto n) { store(at + c, load(g + c, n) * share); });
  }
}
