// A block's addition: each side a state or a 3×3 pool of one, normalised while it is read.
// Included once per instruction set, inside its namespace: no include guard.

inline vf side_affine(const AddSide& side, const float* z, int c, int n) {
  const vf v = load_n(z + c, n);
  return side.source.scale ? v * load_n(side.source.scale + c, n) + load_n(side.source.shift + c, n) : v;
}

inline vf side_value(const AddSide& side, const AddShape& shape, const float* image, int y, int x, int c, int n) {
  const std::ptrdiff_t pixel = side.source.pixel;
  if (side.pool == Pool::none) return side_affine(side, image + (y * side.width + x) * pixel, c, n);
  const Span rows = pool_span(y, shape.out_height, side.height, side.stride);
  const Span columns = pool_span(x, shape.out_width, side.width, side.stride);
  vf value = side_affine(side, image + (rows.first * side.width + columns.first) * pixel, c, n);
  bool first = true;
  for (int row = rows.first; row < rows.last; ++row)
    for (int column = columns.first; column < columns.last; ++column) {
      if (std::exchange(first, false)) continue;
      const vf v = side_affine(side, image + (row * side.width + column) * pixel, c, n);
      if (side.pool == Pool::average) value += v;
      else value = v > value || v != v ? v : value;
    }
  if (side.pool == Pool::average)
    value *= splat(1.0f / ((rows.last - rows.first) * (columns.last - columns.first)));
  return value;
}

// Images [first, last) of out = left + right, or of left alone.
void add_forward(const AddShape& shape, const AddSide* sides, int count, std::int64_t first, std::int64_t last,
                 const Output& output) {
  for (std::int64_t image = first; image < last; ++image) {
    const float* start[2] = {};
    for (int s = 0; s < count; ++s)
      start[s] = sides[s].source.z + image * sides[s].height * sides[s].width * sides[s].source.pixel;
    float* at = output.z + image * shape.out_height * shape.out_width * output.pixel;
    for (int y = 0; y < shape.out_height; ++y)
      for (int x = 0; x < shape.out_width; ++x, at += output.pixel)
        for_lanes(shape.channels, [&](int c, int n) {
          vf total{};
          for (int s = 0; s < count; ++s) {
            const vf v = side_value(sides[s], shape, start[s], y, x, c, n);
            total += sides[s].keep ? v * splat(sides[s].keep[image]) : v;
          }
          store_n(at + c, total, n);
        });
  }
}

// Adds one output pixel's gradient to the inputs its window saw: all alike, or the first greatest.
inline void unpool(const AddSide& side, const AddShape& shape, const float* image, int y, int x, int c, int n, vf g,
                   float* dx, std::ptrdiff_t step) {
  const Span rows = pool_span(y, shape.out_height, side.height, side.stride);
  const Span columns = pool_span(x, shape.out_width, side.width, side.stride);
  const auto each = [&](const auto& visit) {
    for (int row = rows.first; row < rows.last; ++row)
      for (int column = columns.first; column < columns.last; ++column) visit(row * side.width + column);
  };
  if (side.pool == Pool::average) {
    g *= splat(1.0f / ((rows.last - rows.first) * (columns.last - columns.first)));
    return each([&](int place) { store(dx + place * step + c, load(dx + place * step + c) + g); });
  }
  vf greatest = side_value(side, shape, image, y, x, c, n);
  each([&](int place) {
    const vf v = side_affine(side, image + place * side.source.pixel, c, n);
    const vi here = v == greatest;
    store(dx + place * step + c, load(dx + place * step + c) + (here ? g : vf{}));
    g = here ? vf{} : g;
  });
}

// Images [first, last) of the gradient of one side; sums, added to: scale then shift, padded channels each.
void add_backward(const AddShape& shape, const AddSide& side, const float* g, std::ptrdiff_t g_pixel,
                  std::int64_t first, std::int64_t last, const SourceGradient& to, float* sums) {
  thread_local Scratch scratch;
  const std::ptrdiff_t step = padded(shape.channels);
  const std::size_t size = static_cast<std::size_t>(side.height) * side.width * step;
  float* dx = scratch.get(size);
  for (std::int64_t image = first; image < last; ++image) {
    const float* z = side.source.z + image * side.height * side.width * side.source.pixel;
    const float* at = g + image * shape.out_height * shape.out_width * g_pixel;
    if (side.pool != Pool::none) std::memset(dx, 0, sizeof(float) * size);
    for (int y = 0; y < shape.out_height; ++y)
      for (int x = 0; x < shape.out_width; ++x, at += g_pixel)
        for_lanes(shape.channels, [&](int c, int n) {
          vf v = load_n(at + c, n);
          if (side.keep) v *= splat(side.keep[image]);
          if (side.pool == Pool::none) store(dx + (y * side.width + x) * step + c, v);
          else unpool(side, shape, z, y, x, c, n, v, dx, step);
        });
    const int pixels = side.height * side.width;
    return_row(dx, nullptr, step, side.source, image * pixels, pixels, shape.channels, to, sums);
  }
}
