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
  read_row(side.source, side.source.z + (image * side.height + y) * side.width * side.source.pixel, side.source.pixel,
           side.width, channels, false, out + plane.inside() + y * plane.row, plane.step);
}

// The input rows that output rows up to y have in their windows: [0, rows_seen).
inline int rows_seen(const AddSide& side, const PoolPlane& plane, int y) {
  return std::min(y * side.stride + kPool - plane.top, side.height);
}

// Whether any of so many floats (a multiple of kLanes) is NaN; may be true of infinities of both signs, too.
inline bool may_have_nan(const float* row, std::ptrdiff_t floats) {
  vf sum[4] = {};
  std::ptrdiff_t i = 0;
  for (; i + 4 * kLanes <= floats; i += 4 * kLanes)
    PNAS_UNROLL for (int v = 0; v < 4; ++v) sum[v] += load(row + i + v * kLanes);
  for (; i < floats; i += kLanes) sum[0] += load(row + i);
  const vf all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  float total = 0.0f;
  for (int lane = 0; lane < kLanes; ++lane) total += all[lane];
  return total != total;
}

// How the values of a window are joined: the greatest, of numbers; the greatest, or NaN where there is one; the sum.
struct Greater {
  vf operator()(vf a, vf b) const { return greater(a, b); }
};
struct GreaterOrNan {
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

// Output row y of a pooled side, plane.step floats a pixel. `nan`: there may be one among its inputs.
inline void pool_forward(const AddSide& side, const AddShape& shape, const PoolPlane& plane, const float* image, int y,
                         bool nan, float* down, float* out) {
  const float* rows = image + y * side.stride * plane.row;
  if (side.pool == Pool::maximum && !nan)
    return pool_row(rows, plane, shape.out_width, side.stride, down, out, Greater{});
  if (side.pool == Pool::maximum)
    return pool_row(rows, plane, shape.out_width, side.stride, down, out, GreaterOrNan{});
  pool_row(rows, plane, shape.out_width, side.stride, down, out, Sum{});
  const int count = covered(y, side.stride, plane.top, side.height);
  for (int x = 0; x < shape.out_width; ++x, out += plane.step) {
    const vf share = splat(1.0f / (count * covered(x, side.stride, plane.left, side.width)));
    for (std::ptrdiff_t c = 0; c < plane.step; c += kLanes) store(out + c, load(out + c) * share);
  }
}

// A maximum's way back takes rows and columns one after the other. Of each input row and output column: the
// greatest of the three values, and the gradients of those windows whose first greatest value lies in that row.
struct RowMaxima {
  std::ptrdiff_t row;
  std::size_t size;
  float *greatest = nullptr, *share = nullptr;

  RowMaxima(const AddShape& shape, const PoolPlane& plane)
      : row(shape.out_width * plane.step), size(static_cast<std::size_t>(row) * plane.height) {}
};

// The greatest of each three neighbours of row y of a plane.
inline void find_row_maxima(const RowMaxima& rows, const PoolPlane& plane, const float* image, int stride, int y) {
  const float* at = image + y * plane.row;
  float* out = rows.greatest + y * rows.row;
  for (std::ptrdiff_t i = 0; i < rows.row; i += plane.step, at += stride * plane.step)
    for (std::ptrdiff_t c = 0; c < plane.step; c += kLanes)
      store(out + i + c, greater(greater(load(at + c), load(at + plane.step + c)), load(at + 2 * plane.step + c)));
}

// Gives the gradients g of an output row to the first of its three input rows, from row y on, that has the maximum.
inline void share_among_rows(const RowMaxima& rows, const AddShape& shape, std::ptrdiff_t step, int y, const float* g,
                             std::ptrdiff_t g_pixel) {
  const float* greatest = rows.greatest + y * rows.row;
  float* share = rows.share + y * rows.row;
  for (int x = 0; x < shape.out_width; ++x, g += g_pixel, greatest += step, share += step)
    for_lanes(shape.channels, [&](int c, auto n) {
      ask_ahead(g + c, g_pixel);
      const vf above = load(greatest + c), middle = load(greatest + rows.row + c);
      const vf most = greater(greater(above, middle), load(greatest + 2 * rows.row + c)), incoming = load(g + c, n);
      const vi first = above == most, second = middle == most;
      const vf left = first ? vf{} : incoming;
      store(share + c, load(share + c) + (first ? incoming : vf{}));
      store(share + rows.row + c, load(share + rows.row + c) + (second ? left : vf{}));
      store(share + 2 * rows.row + c, load(share + 2 * rows.row + c) + (second ? vf{} : left));
    });
}

// The gradient of row y of a plane: each column's share goes to the first of its three values that is the greatest.
template <int Stride>
inline void share_among_columns(const RowMaxima& rows, const AddShape& shape, const PoolPlane& plane,
                                const float* image, int y, float* dx) {
  for (std::ptrdiff_t c = 0; c < plane.step; c += kLanes) {
    const float* values = image + y * plane.row + c;
    const float* greatest = rows.greatest + y * rows.row + c;
    const float* share = rows.share + y * rows.row + c;
    float* out = dx + c;
    vf gradient[kPool] = {};
    for (int x = 0; x < shape.out_width; ++x, values += Stride * plane.step, greatest += plane.step, share += plane.step) {
      const vf most = load(greatest), all = load(share);
      const vi first = load(values) == most, second = load(values + plane.step) == most;
      const vf left = first ? vf{} : all;
      gradient[0] += first ? all : vf{}, gradient[1] += second ? left : vf{}, gradient[2] += second ? vf{} : left;
      PNAS_UNROLL for (int column = 0; column < Stride; ++column, out += plane.step) store(out, gradient[column]);
      PNAS_UNROLL for (int column = 0; column < kPool; ++column)
        gradient[column] = column + Stride < kPool ? gradient[column + Stride] : vf{};
    }
    PNAS_UNROLL for (int column = 0; column < kPool - Stride; ++column, out += plane.step) store(out, gradient[column]);
  }
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
