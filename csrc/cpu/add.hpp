// A block's addition: each side a state or a 3×3 pool of one, normalised while it is read.
// Included once per instruction set, inside its namespace: no include guard.

// One side of a run of pixels as an addition reads it: from the source, or from a row already pooled.
struct Addend {
  const float* at;
  std::ptrdiff_t step;
  const Source* source;  // null: pooled, which has applied the affine
  float keep;
};

// Writes left + right, or left alone where right is null, for a run of pixels.
inline void add_run(const Addend& left, const Addend* right, int pixels, int channels, float* out,
                    std::ptrdiff_t out_step) {
  static constexpr Source plain{};
  choose(right, [&](auto both) {
    for_groups(channels, [&](int c, auto n, auto vectors) {
      constexpr int V = vectors;
      vf scale[2][V], shift[2][V];
      const Addend* sides[] = {&left, right};
      for (int s = 0; s <= both; ++s)
        PNAS_UNROLL for (int v = 0; v < V; ++v) {
          const Reader read(sides[s]->source ? *sides[s]->source : plain, c + v * kLanes, n);
          scale[s][v] = read.scale * splat(sides[s]->keep), shift[s][v] = read.shift * splat(sides[s]->keep);
        }
      const float* a = left.at + c;
      const float* b = both ? right->at + c : nullptr;
      const std::ptrdiff_t b_step = both ? right->step : 0;
      float* to = out + c;
      for (int x = 0; x < pixels; ++x, a += left.step, b += b_step, to += out_step) {
        ask_ahead<V>(a, left.step), ask_ahead<V>(to, out_step);
        if constexpr (both) ask_ahead<V>(b, b_step);
        PNAS_UNROLL for (int v = 0; v < V; ++v) {
          vf value = load(a + v * kLanes, n) * scale[0][v] + shift[0][v];
          if constexpr (both) value += load(b + v * kLanes, n) * scale[1][v] + shift[1][v];
          store(to + v * kLanes, value, n);
        }
      }
    });
  });
}

// Memory of a side that is pooled: its plane, a row of partial windows, a row of results.
struct PooledSide {
  const AddSide& side;
  PoolPlane plane;
  float *image = nullptr, *down = nullptr, *row = nullptr;

  PooledSide(const AddSide& side, const AddShape& shape) : side(side), plane(side, shape) {}
  bool pools() const { return side.pool != Pool::none; }
  std::size_t row_size(const AddShape& shape) const { return shape.out_width * plane.step; }
  std::size_t size(const AddShape& shape) const {
    return pools() ? Arena::round(plane.size()) + Arena::round(plane.row) + Arena::round(row_size(shape)) : 0;
  }
  void take(Arena& arena, const AddShape& shape) {
    if (!pools()) return;
    image = arena.take(plane.size()), down = arena.take(plane.row), row = arena.take(row_size(shape));
    fill_border(side, plane, image);
  }
  Addend addend(std::int64_t image_index, std::int64_t pixel) const {
    const float keep = side.keep_of(image_index);
    if (pools()) return {row, plane.step, nullptr, keep};
    return {side.source.z + pixel * side.source.pixel, side.source.pixel, &side.source, keep};
  }
};

// Images [first, last) of out = left + right, or of left alone.
void add_forward(const AddShape& shape, const AddSide* given, int count, std::int64_t first, std::int64_t last,
                 const Output& output) {
  thread_local Scratch scratch;
  PooledSide sides[] = {{given[0], shape}, {given[count - 1], shape}};
  std::size_t size = 0;
  for (int s = 0; s < count; ++s) size += sides[s].size(shape);
  Arena arena(scratch.get(size));
  for (int s = 0; s < count; ++s) sides[s].take(arena, shape);
  for (std::int64_t index = first; index < last; ++index) {
    int seen[2] = {}, nan_row[2] = {-1, -1};
    for (int y = 0; y < shape.out_height; ++y) {
      for (int s = 0; s < count; ++s) {
        if (!sides[s].pools()) continue;
        const AddSide& side = sides[s].side;
        const PoolPlane& plane = sides[s].plane;
        for (; seen[s] < rows_seen(side, plane, y); ++seen[s]) {
          read_side_row(side, plane, index, seen[s], shape.channels, sides[s].image);
          const float* row = sides[s].image + plane.inside() + seen[s] * plane.row;
          if (side.pool == Pool::maximum && may_have_nan(row, side.width * plane.step)) nan_row[s] = plane.top + seen[s];
        }
        pool_forward(side, shape, plane, sides[s].image, y, nan_row[s] >= y * side.stride, sides[s].down, sides[s].row);
      }
      const std::int64_t pixel = (index * shape.out_height + y) * shape.out_width;
      const Addend left = sides[0].addend(index, pixel), right = sides[1].addend(index, pixel);
      add_run(left, count > 1 ? &right : nullptr, shape.out_width, shape.channels, output.z + pixel * output.pixel,
              output.pixel);
    }
  }
}

// Images [first, last) of the way back through a maximum. Rows of the source are read, shared out and returned in
// turn, so that they are in the first-level cache each time.
inline void maximum_pool_backward(const AddShape& shape, const AddSide& side, const PoolPlane& plane, const float* g,
                                  std::ptrdiff_t g_pixel, std::int64_t first, std::int64_t last, Scratch& scratch,
                                  const SourceGradient& to, float* sums) {
  RowMaxima rows(shape, plane);
  Arena arena(scratch.get(Arena::round(plane.size()) + 2 * Arena::round(rows.size) + Arena::round(plane.row)));
  float* image = arena.take(plane.size());
  rows.greatest = arena.take(rows.size), rows.share = arena.take(rows.size);
  float* dx = arena.take(plane.row);
  fill_border(side, plane, image);
  for (std::int64_t index = first; index < last; ++index) {
    int seen = 0, known = 0, returned = 0;
    const auto give_back = [&](int end) {
      for (; returned < end; ++returned) {
        const int y = plane.top + returned;
        if (side.stride == 1) share_among_columns<1>(rows, shape, plane, image, y, dx);
        else share_among_columns<2>(rows, shape, plane, image, y, dx);
        return_row({dx + plane.left * plane.step, plane.step, nullptr, 0, side.keep_of(index),
                    (index * side.height + returned) * side.width, side.width},
                   side.source, shape.channels, to, sums);
      }
    };
    std::memset(rows.share, 0, sizeof(float) * rows.size);
    for (int y = 0; y < shape.out_height; ++y) {
      for (; seen < rows_seen(side, plane, y); ++seen) read_side_row(side, plane, index, seen, shape.channels, image);
      for (; known < y * side.stride + kPool; ++known) find_row_maxima(rows, plane, image, side.stride, known);
      share_among_rows(rows, shape, plane.step, y * side.stride,
                       g + (index * shape.out_height + y) * shape.out_width * g_pixel, g_pixel);
      give_back(std::min((y + 1) * side.stride - plane.top, side.height));
    }
    give_back(side.height);
  }
}

// Images [first, last) of the way back through an average. `spread` has two rows and columns more than the plane,
// which the windows of the last pixels reach.
inline void average_pool_backward(const AddShape& shape, const AddSide& side, const PoolPlane& plane, const float* g,
                                  std::ptrdiff_t g_pixel, std::int64_t first, std::int64_t last, Scratch& scratch,
                                  const SourceGradient& to, float* sums) {
  const std::size_t size = plane.size() + 2 * plane.row + 2 * plane.step, down_size = plane.row + 2 * plane.step;
  Arena arena(scratch.get(Arena::round(size) + Arena::round(down_size) + Arena::round(plane.row)));
  float* spread = arena.take(size);
  float* down = arena.take(down_size);
  float* result = arena.take(plane.row);
  std::memset(spread, 0, sizeof(float) * size);
  for (std::int64_t index = first; index < last; ++index) {
    int done = 0;
    for (int y = 0; y < side.height; ++y) {
      for (; done < shape.out_height && done * side.stride <= y + plane.top; ++done)
        spread_average_row(side, shape, plane, done, g + (index * shape.out_height + done) * shape.out_width * g_pixel,
                           g_pixel, spread);
      pool_row(spread + plane.inside() + y * plane.row, plane, side.width, 1, down, result, Sum{});
      return_row({result, plane.step, nullptr, 0, side.keep_of(index), (index * side.height + y) * side.width, side.width},
                 side.source, shape.channels, to, sums);
    }
  }
}

// Images [first, last) of the gradient of one side; sums, added to: scale then shift, padded channels each. Of a side
// without pool and factor whose source's own gradient nobody asks for there are just these.
void add_backward(const AddShape& shape, const AddSide& side, const float* g, std::ptrdiff_t g_pixel,
                  std::int64_t first, std::int64_t last, const SourceGradient& to, float* sums) {
  thread_local Scratch scratch;
  if (!to.z) {
    for (std::int64_t row = first * side.height; row < last * side.height; ++row)
      sum_row(g + row * side.width * g_pixel, g_pixel, side.source.z + row * side.width * side.source.pixel,
              side.source.pixel, side.width, shape.channels, sums);
    return;
  }
  if (side.pool == Pool::none) {
    for (std::int64_t row = first * side.height; row < last * side.height; ++row)
      return_row({g + row * side.width * g_pixel, g_pixel, nullptr, 0, side.keep_of(row / side.height), row * side.width,
                  side.width},
                 side.source, shape.channels, to, sums);
    return;
  }
  const PoolPlane plane(side, shape);
  if (side.pool == Pool::maximum) maximum_pool_backward(shape, side, plane, g, g_pixel, first, last, scratch, to, sums);
  else average_pool_backward(shape, side, plane, g, g_pixel, first, last, scratch, to, sums);
}
