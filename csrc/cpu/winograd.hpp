// 1×7 and 7×1 convolutions of stride 1 with two and a half multiplications an output instead of seven: Winograd's
// minimal filtering F(4, 7) (Lavin & Gray 2016) along the line of taps. Four outputs and the ten inputs they see are a
// tile. With tables B, G and A of the points in points.hpp,
//     outputs = Aᵀ ((G weights) · (Bᵀ inputs)),
// where the product is, for each point, one of matrices: tiles × channels by channels × filters. Gradients go the
// same way back: of inputs B (…), of weights Gᵀ (…), each of a product with A gradients.
// Included once per instruction set, inside its namespace: no include guard.

// The inputs of a tile, `along` floats apart, at the points, `point` floats apart: Bᵀ.
inline void to_points(const float* in, std::ptrdiff_t along, float* out, std::ptrdiff_t point) {
  vf d[kTileInputs];
  PNAS_UNROLL for (int i = 0; i < kTileInputs; ++i) d[i] = load(in + i * along);
  vf zero = d[2 * kPairs], infinity = d[2 * kPairs + 1];
  PNAS_UNROLL for (int k = 0; k < kPairs; ++k) zero += kTables.all[k] * d[2 * k], infinity += kTables.all[k] * d[2 * k + 1];
  store(out, zero), store(out + (kPoints - 1) * point, infinity);
  PNAS_UNROLL for (int i = 0; i < kPairs; ++i) {
    vf even = kTables.without[i][0] * d[2], odd = kTables.p[i] * kTables.without[i][0] * d[1];
    PNAS_UNROLL for (int k = 1; k < kPairs; ++k) {
      even += kTables.without[i][k] * d[2 * k + 2];
      odd += kTables.p[i] * kTables.without[i][k] * d[2 * k + 1];
    }
    store(out + (2 * i + 1) * point, even + odd), store(out + (2 * i + 2) * point, even - odd);
  }
}

// What is at the points, its pairs as sums and differences.
struct Pairs {
  vf zero, infinity, sum[kPairs], difference[kPairs];

  Pairs(const float* in, std::ptrdiff_t point) : zero(load(in)), infinity(load(in + (kPoints - 1) * point)) {
    PNAS_UNROLL for (int i = 0; i < kPairs; ++i) {
      const vf plus = load(in + (2 * i + 1) * point), minus = load(in + (2 * i + 2) * point);
      sum[i] = plus + minus, difference[i] = plus - minus;
    }
  }
};

// What each input of a tile gets of the gradients at the points: B.
inline void to_inputs(const float* in, std::ptrdiff_t point, vf (&out)[kTileInputs]) {
  const Pairs pairs(in, point);
  PNAS_UNROLL for (int k = 0; k <= kPairs; ++k) {
    const float all = k < kPairs ? kTables.all[k] : 1.0f;
    vf even = all * pairs.zero, odd = all * pairs.infinity;
    PNAS_UNROLL for (int i = 0; i < kPairs; ++i) {
      if (k > 0) even += kTables.without[i][k - 1] * pairs.sum[i];
      if (k < kPairs) odd += kTables.p[i] * kTables.without[i][k] * pairs.difference[i];
    }
    out[2 * k] = even, out[2 * k + 1] = odd;
  }
}

// A tile's outputs from what is at the points: Aᵀ.
inline void to_outputs(const float* in, std::ptrdiff_t point, vf (&out)[kTileOutputs]) {
  const Pairs pairs(in, point);
  out[0] = pairs.zero, out[1] = out[2] = vf{}, out[3] = pairs.infinity;
  PNAS_UNROLL for (int i = 0; i < kPairs; ++i) {
    const float p = kTables.p[i];
    out[0] += pairs.sum[i], out[1] += p * pairs.difference[i];
    out[2] += p * p * pairs.sum[i], out[3] += p * p * p * pairs.difference[i];
  }
}

// Gradients of a tile's outputs at the points: A.
inline void from_outputs(const vf (&g)[kTileOutputs], float* out, std::ptrdiff_t point) {
  store(out, g[0]), store(out + (kPoints - 1) * point, g[3]);
  PNAS_UNROLL for (int i = 0; i < kPairs; ++i) {
    const float p = kTables.p[i];
    const vf even = g[0] + p * p * g[2], odd = p * g[1] + p * p * p * g[3];
    store(out + (2 * i + 1) * point, even + odd), store(out + (2 * i + 2) * point, even - odd);
  }
}

// Lines of tiles along the taps: rows of an image for 1×7, columns for 7×1. Some lines at a time go through all
// steps, so that what is between stays in the second-level cache.
struct Lines {
  int count, outputs, tiles;  // lines; outputs and tiles of each
  bool down;

  explicit Lines(const Window& w)
      : count(w.kernel_width == 1 ? w.width : w.height),
        outputs(w.kernel_width == 1 ? w.height : w.width),
        tiles((outputs + kTileOutputs - 1) / kTileOutputs),
        down(w.kernel_width == 1) {}

  int at_once() const { return std::min(count, std::max(1, 64 / tiles)); }
  // Floats from one point to the next for tiles of so many: a cache line more than needed, since powers of two would
  // have all points of a tile in the same few places of the first-level cache.
  std::ptrdiff_t point(std::ptrdiff_t channels) const { return at_once() * tiles * channels + 16; }
  // From one line to the next, and from one pixel of a line to the next, where pixels and rows are so far apart.
  std::ptrdiff_t across(std::ptrdiff_t pixel, std::ptrdiff_t row) const { return down ? pixel : row; }
  std::ptrdiff_t along(std::ptrdiff_t pixel, std::ptrdiff_t row) const { return down ? row : pixel; }
};

// The padded image whose tiles are whole.
inline Plane plane_of_tiles(const Window& w, const Lines& lines) {
  Window whole = w;
  (lines.down ? whole.out_height : whole.out_width) = lines.tiles * kTileOutputs;
  return Plane(whole);
}

// Lines [first, last) of a padded image, by points: `point` floats apart, of tiles of padded channels each.
inline void lines_to_points(const Lines& lines, const Plane& plane, const float* image, int first, int last, float* out,
                            std::ptrdiff_t point) {
  const std::ptrdiff_t along = lines.along(plane.step, plane.row);
  for (int line = first; line < last; ++line) {
    const float* tile = image + line * lines.across(plane.step, plane.row);
    for (int t = 0; t < lines.tiles; ++t, tile += kTileOutputs * along, out += plane.step)
      for (int c = 0; c < plane.step; c += kLanes) to_points(tile + c, along, out + c, point);
  }
}

// Channels [f, f + kLanes) of the outputs of so many lines, from products by points; summed for batch norm.
template <typename N>
inline void lines_to_outputs(const Lines& lines, int count, const float* made, std::ptrdiff_t step, std::ptrdiff_t point,
                             float* z, std::ptrdiff_t across, std::ptrdiff_t along, int f, N n, ChannelSums& sums) {
  const vf pivot = load(sums.pivot + f);
  vf sum = load(sums.sum + f), square = load(sums.square + f), out[kTileOutputs];
  const auto write = [&](vf value, float* to) {
    const vf d = value - pivot;
    sum += d, square += d * d;
    store(to, value, n);
  };
  for (int line = 0; line < count; ++line, z += across)
    for (int t = 0; t < lines.tiles; ++t, made += step) {
      to_outputs(made, point, out);
      float* to = z + kTileOutputs * t * along;
      const int some = lines.outputs - kTileOutputs * t;
      PNAS_UNROLL for (int i = 0; i < kTileOutputs; ++i) if (i < some) write(out[i], to + i * along);
    }
  store(sums.sum + f, sum), store(sums.square + f, square);
}

// See dense_forward. The weight is `kPoints` matrices of (channels, padded filters), one a point.
void winograd_forward(const Window& w, const Source& source, const float* weight, std::int64_t first,
                      std::int64_t last, const Output& output, double* sums) {
  thread_local Scratch scratch;
  const Lines lines(w);
  const Plane plane = plane_of_tiles(w, lines);
  const std::ptrdiff_t channels = plane.step, filters = padded(w.filters), row = w.width * output.pixel;
  const std::ptrdiff_t seen_point = lines.point(channels), made_point = lines.point(filters);
  const std::ptrdiff_t along = lines.along(output.pixel, row), across = lines.across(output.pixel, row);
  Arena arena(scratch.get(Arena::round(plane.size()) + Arena::round(kPoints * seen_point) +
                          Arena::round(kPoints * made_point) + ChannelSums::size(w.filters)));
  float* image = arena.take(plane.size());
  float* seen = arena.take(kPoints * seen_point);
  float* made = arena.take(kPoints * made_point);
  ChannelSums totals(arena, w.filters);
  clear_border(plane, w, image);
  for (std::int64_t index = first; index < last; ++index) {
    read_plane(source, w, plane, index, image);
    for (int line = 0; line < lines.count; line += lines.at_once()) {
      const int count = std::min(lines.count - line, lines.at_once());
      lines_to_points(lines, plane, image, line, line + count, seen, seen_point);
      for (int point = 0; point < kPoints; ++point)
        product({seen + point * seen_point, channels, 1, weight + point * w.channels * filters, filters,
                 made + point * made_point, filters, count * lines.tiles, w.channels, static_cast<int>(filters), false});
      float* z = output.z + index * w.height * row + line * across;
      for_lanes(w.filters, [&](int f, auto n) {
        if (index == first && line == 0) {
          vf out[kTileOutputs];
          to_outputs(made + f, made_point, out);
          store(totals.pivot + f, out[0]);
        }
        lines_to_outputs(lines, count, made + f, filters, made_point, z + f, across, along, f, n, totals);
      });
    }
    totals.take(w.height * w.width, w.filters, sums);
  }
}

// dz of lines [first, last), rows of padded filters, by points.
inline void lines_from_outputs(const Lines& lines, const float* dz, std::ptrdiff_t row, std::ptrdiff_t filters, int first,
                               int last, float* out, std::ptrdiff_t point) {
  const std::ptrdiff_t along = lines.along(filters, row);
  for (int line = first; line < last; ++line) {
    const float* g = dz + line * lines.across(filters, row);
    for (int t = 0; t < lines.tiles; ++t, g += kTileOutputs * along, out += filters) {
      const int some = lines.outputs - kTileOutputs * t;
      for (int f = 0; f < filters; f += kLanes) {
        vf given[kTileOutputs];
        PNAS_UNROLL for (int i = 0; i < kTileOutputs; ++i) given[i] = i < some ? load(g + i * along + f) : vf{};
        from_outputs(given, out + f, point);
      }
    }
  }
}

// Gradients of lines [first, last) of a padded image, from those at their points: tiles overlap by six inputs, so
// each gives four and hands what it has of the others on.
inline void lines_from_points(const Lines& lines, const Plane& plane, const float* in, std::ptrdiff_t point, int first,
                              int last, float* image) {
  const std::ptrdiff_t along = lines.along(plane.step, plane.row), across = lines.across(plane.step, plane.row);
  constexpr int open = kTileInputs - kTileOutputs;
  for (int line = first; line < last; ++line, in += lines.tiles * plane.step)
    for (int c = 0; c < plane.step; c += kLanes) {
      float* to = image + line * across + c;
      vf open_sums[open] = {};
      for (int t = 0; t < lines.tiles; ++t) {
        vf gradient[kTileInputs];
        to_inputs(in + t * plane.step + c, point, gradient);
        PNAS_UNROLL for (int i = 0; i < open; ++i) gradient[i] += open_sums[i];
        PNAS_UNROLL for (int i = 0; i < kTileOutputs; ++i, to += along) store(to, gradient[i]);
        PNAS_UNROLL for (int i = 0; i < open; ++i) open_sums[i] = gradient[i + kTileOutputs];
      }
      PNAS_UNROLL for (int i = 0; i < open; ++i, to += along) store(to, open_sums[i]);
    }
}

// See dense_backward. The weight is `kPoints` matrices of (filters, padded channels), its gradient in `parts` as many
// of (channels, padded filters).
void winograd_backward(const Window& w, const Source& source, const float* weight, const Incoming& incoming,
                       std::int64_t first, std::int64_t last, const SourceGradient& to, float* parts) {
  thread_local Scratch scratch;
  const Lines lines(w);
  const Plane plane = plane_of_tiles(w, lines);
  const std::ptrdiff_t channels = plane.step, filters = padded(w.filters), row = w.width * filters;
  const std::ptrdiff_t seen_point = lines.point(channels), given_point = lines.point(filters);
  Arena arena(scratch.get(2 * Arena::round(plane.size()) + Arena::round(w.height * row) +
                          2 * Arena::round(kPoints * seen_point) + Arena::round(kPoints * given_point)));
  float* image = arena.take(plane.size());
  float* dx = arena.take(plane.size());
  float* dz = arena.take(w.height * row);
  float* seen = arena.take(kPoints * seen_point);
  float* seen_gradient = arena.take(kPoints * seen_point);
  float* given = arena.take(kPoints * given_point);
  float* d_affine = parts + kPoints * w.channels * filters;
  clear_border(plane, w, image);
  std::fill(dz, dz + w.height * row, 0.0f);
  for (std::int64_t index = first; index < last; ++index) {
    read_plane(source, w, plane, index, image);
    read_incoming(incoming, w, index, 0, w.height, dz, row, filters);
    for (int line = 0; line < lines.count; line += lines.at_once()) {
      const int end = std::min(lines.count, line + lines.at_once()), tiles = (end - line) * lines.tiles;
      lines_to_points(lines, plane, image, line, end, seen, seen_point);
      lines_from_outputs(lines, dz, row, filters, line, end, given, given_point);
      for (int point = 0; point < kPoints; ++point)
        product({seen + point * seen_point, 1, channels, given + point * given_point, filters,
                 parts + point * w.channels * filters, filters, w.channels, tiles, static_cast<int>(filters), true});
      if (!to.z) continue;
      for (int point = 0; point < kPoints; ++point)
        product({given + point * given_point, filters, 1, weight + point * w.filters * channels, channels,
                 seen_gradient + point * seen_point, channels, tiles, w.filters, static_cast<int>(channels), false});
      lines_from_points(lines, plane, seen_gradient, seen_point, line, end, dx);
    }
    if (!to.z) continue;
    for (int y = 0; y < w.height; ++y) {
      const std::ptrdiff_t inside = (y + w.top) * plane.row + w.left * channels;
      return_row({dx + inside, channels, w.rectify ? image + inside : nullptr, channels, 1.0f,
                  (index * w.height + y) * w.width, w.width},
                 source, w.channels, to, d_affine);
    }
  }
}
