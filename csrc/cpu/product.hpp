// Small matrix products held in registers, the inner loop of every dense convolution.
// Included once per instruction set, inside its namespace: no include guard.

// Where each tap of a window finds its operands, as offsets from the first.
struct Taps {
  int count;
  const std::ptrdiff_t* a;
  const std::ptrdiff_t* b;
};

// Memory that will be needed soon, asked for a little at every step of a product: in bursts the requests would
// wait for each other, and the product for them.
struct Ahead {
  const char* at;
  std::ptrdiff_t step;
};

// Row r and depth k of A are at a + r * a_row + k * a_depth; depth k of B is a row of `columns` floats at
// b + k * b_depth; row r of C at c + r * c_row. There are `blocks` of such rows, a_block and c_block apart.
struct Product {
  const float* a;
  std::ptrdiff_t a_row, a_depth;
  const float* b;
  std::ptrdiff_t b_depth;
  float* c;
  std::ptrdiff_t c_row;
  int rows, depth, columns;  // columns: a multiple of kLanes
  bool accumulate;           // C += A B instead of C = A B
  int blocks = 1;
  std::ptrdiff_t a_block = 0, c_block = 0;
  Ahead ahead[2] = {{reinterpret_cast<const char*>(b), 0}, {reinterpret_cast<const char*>(b), 0}};
};

// Rows of a tile that is V vectors wide, so that its sums fill most of the registers.
template <int V>
constexpr int kTileRows = (PNAS_VECTOR_REGISTERS >= 32 ? 24 : 12) / V;

// Per channel, sums and squares of what a product writes, around a pivot that is one of its values: a mean far
// from zero then costs no digits. In floats for some pixels, taken into `totals` (sums, then squares) in doubles.
struct ChannelSums {
  float *pivot, *sum, *square;  // padded channels each

  static std::size_t size(int channels) { return 3 * Arena::round(padded(channels)); }
  ChannelSums(Arena& arena, int channels)
      : pivot(arena.take(padded(channels))), sum(arena.take(padded(channels))), square(arena.take(padded(channels))) {
    std::memset(sum, 0, sizeof(float) * padded(channels));
    std::memset(square, 0, sizeof(float) * padded(channels));
  }
  // The first row of a product becomes the pivot.
  void begin(Product p, const Taps& taps);
  void begin(const Product& p);
  void take(int pixels, int channels, double* totals) {
    for (int c = 0; c < channels; ++c) {
      const double p = pivot[c], s = sum[c];
      totals[c] += s + p * pixels;
      totals[channels + c] += square[c] + p * (2.0 * s + p * pixels);
      sum[c] = square[c] = 0.0f;
    }
  }
};

// What becomes of a tile of C: stored as it is; or as `filters` columns, and summed.
struct Plain {
  // Whether C may be written and read again on the way to its sum.
  static constexpr bool can_accumulate(int) { return true; }

  template <int R, int V>
  void operator()(const vf (&tile)[R][V], float* c, std::ptrdiff_t c_row, int) const {
    PNAS_UNROLL for (int r = 0; r < R; ++r)
      PNAS_UNROLL for (int v = 0; v < V; ++v) store(c + r * c_row + v * kLanes, tile[r][v]);
  }
};
struct Summed {
  int filters;
  ChannelSums sums;

  bool can_accumulate(int columns) const { return columns == filters; }

  template <int R, int V>
  void operator()(const vf (&tile)[R][V], float* c, std::ptrdiff_t c_row, int column) const {
    // The tile would have to leave its registers where the call that a part of a vector takes might come.
    if constexpr (kMasks) write<false>(tile, c, c_row, column);
    else choose(column + V * kLanes <= filters, [&](auto whole) { write<whole.value>(tile, c, c_row, column); });
  }

 private:
  template <bool Whole, int R, int V>
  void write(const vf (&tile)[R][V], float* c, std::ptrdiff_t c_row, int column) const {
    PNAS_UNROLL for (int v = 0; v < V; ++v) {
      const int at = column + v * kLanes;
      const vf pivot = load(sums.pivot + at);
      // Of every other row, or the next tile would wait for all these additions, one after another.
      vf sum[2] = {load(sums.sum + at)}, square[2] = {load(sums.square + at)};
      PNAS_UNROLL for (int r = 0; r < R; ++r) {
        const vf d = tile[r][v] - pivot;
        sum[r % 2] += d, square[r % 2] += d * d;
        if (Whole || at + kLanes <= filters) store(c + r * c_row + v * kLanes, tile[r][v]);
        else store(c + r * c_row + v * kLanes, tile[r][v], First{filters - at});
      }
      store(sums.sum + at, sum[0] + sum[1]), store(sums.square + at, square[0] + square[1]);
    }
  }
};

// Where R rows of A are: every fourth by a pointer of its own, the others by one or two strides from it,
// as an address can hold them. More pointers than registers would be walked through memory.
template <int R>
class Rows {
 public:
  Rows(const float* a, std::ptrdiff_t stride) : one_(stride * sizeof(float)), three_(3 * one_) {
    for (int i = 0; i * 4 < R; ++i) start_[i] = reinterpret_cast<const char*>(a + 4 * i * stride);
    asm("" : "+r"(one_), "+r"(three_));  // or the compiler makes pointers of them after all
  }
  void advance(std::ptrdiff_t floats) {
    PNAS_UNROLL for (int i = 0; i * 4 < R; ++i) start_[i] += floats * sizeof(float);
  }
  float operator[](int r) const {
    const std::ptrdiff_t offset = r % 4 == 0 ? 0 : r % 4 == 1 ? one_ : r % 4 == 2 ? 2 * one_ : three_;
    return *reinterpret_cast<const float*>(start_[r / 4] + offset);
  }

 private:
  std::ptrdiff_t one_, three_;
  const char* start_[(R + 3) / 4];
};

template <int R, int V, typename Write>
inline void product_tile(Product& p, const Taps& taps, const Write& write, int row, int column) {
  vf sum[R][V];
  float* c = p.c + row * p.c_row + column;
  PNAS_UNROLL for (int r = 0; r < R; ++r)
    PNAS_UNROLL for (int v = 0; v < V; ++v) sum[r][v] = p.accumulate ? load(c + r * p.c_row + v * kLanes) : vf{};
  for (int tap = 0; tap < taps.count; ++tap) {
    Rows<R> a(p.a + taps.a[tap] + row * p.a_row, p.a_row);
    const float* b = p.b + taps.b[tap] + column;
    Ahead one = p.ahead[0], two = p.ahead[1];
    for (int k = 0; k < p.depth; ++k, b += p.b_depth) {
      __builtin_prefetch(one.at, 0, 2), one.at += one.step;
      __builtin_prefetch(two.at, 0, 2), two.at += two.step;
      vf bs[V];
      PNAS_UNROLL for (int v = 0; v < V; ++v) bs[v] = load(b + v * kLanes);
      PNAS_UNROLL for (int r = 0; r < R; ++r) {
        const vf as = splat(a[r]);
        PNAS_UNROLL for (int v = 0; v < V; ++v) sum[r][v] += as * bs[v];
      }
      a.advance(p.a_depth);
    }
    p.ahead[0] = one, p.ahead[1] = two;
  }
  write(sum, c, p.c_row, column);
}

template <int V, int R, typename Write>
inline void product_rows_left(Product& p, const Taps& taps, const Write& write, int row, int column) {
  if constexpr (R > 0) {
    if (row + R <= p.rows) product_tile<R, V>(p, taps, write, row, column), row += R;
    product_rows_left<V, R / 2>(p, taps, write, row, column);
  }
}

template <int V, typename Write>
inline void product_columns(Product& whole, const Taps& taps, const Write& write, int column) {
  constexpr int rows = kTileRows<V>;
  Product p = whole;
  for (int block = 0; block < p.blocks; ++block, p.a += p.a_block, p.c += p.c_block) {
    int row = 0;
    for (; row + rows <= p.rows; row += rows) product_tile<rows, V>(p, taps, write, row, column);
    if constexpr (rows > 8)
      for (; row + 8 <= p.rows; row += 8) product_tile<8, V>(p, taps, write, row, column);
    for (; row + 4 <= p.rows; row += 4) product_tile<4, V>(p, taps, write, row, column);
    product_rows_left<V, 2>(p, taps, write, row, column);
  }
  whole.ahead[0] = p.ahead[0], whole.ahead[1] = p.ahead[1];
}

// The same with as much of B at a time as stays in half the first-level cache, if many rows share it.
template <int V, typename Write>
inline void product_panels(Product& p, const Taps& taps, const Write& write, int column) {
  constexpr int budget = 16384 / (V * kVectorBytes);
  const int tap_step = std::max(1, budget / p.depth), depth_step = std::min(p.depth, budget);
  const bool fits = taps.count <= tap_step && p.depth <= depth_step;
  if (fits || p.rows * p.blocks <= 2 * kTileRows<V> || !write.can_accumulate(p.columns))
    return product_columns<V>(p, taps, write, column);
  Product part = p;
  for (int tap = 0; tap < taps.count; tap += tap_step) {
    const Taps some{std::min(tap_step, taps.count - tap), taps.a + tap, taps.b + tap};
    for (int k = 0; k < p.depth; k += depth_step, part.accumulate = true) {
      part.a = p.a + k * p.a_depth, part.b = p.b + k * p.b_depth, part.depth = std::min(depth_step, p.depth - k);
      if (tap + tap_step >= taps.count && k + depth_step >= p.depth) product_columns<V>(part, some, write, column);
      else product_columns<V>(part, some, Plain{}, column);
    }
  }
  p.ahead[0] = part.ahead[0], p.ahead[1] = part.ahead[1];
}

// C (+)= sum over taps of A B. Three vectors wide as a rule; four columns left are two and two.
template <typename Write = Plain>
inline void product(Product p, const Taps& taps, const Write& write = {}) {
  int column = 0;
  for (int left = p.columns / kLanes; left > 0;) {
    const int take = left == 4 || left == 2 ? 2 : left == 1 ? 1 : 3;
    if (take == 3) product_panels<3>(p, taps, write, column);
    if (take == 2) product_panels<2>(p, taps, write, column);
    if (take == 1) product_panels<1>(p, taps, write, column);
    column += take * kLanes;
    left -= take;
  }
}

struct Piece {
  const float* start;
  std::ptrdiff_t floats;
};

// A piece of memory, spread over the steps of a product.
inline Ahead ahead(const Product& p, int taps, const Piece& piece) {
  const int vectors = p.columns / kLanes, wide = vectors == 1 ? 1 : vectors == 2 || vectors == 4 ? 2 : 3;
  const int rows = PNAS_VECTOR_REGISTERS >= 32 ? 24 / wide : 12 / wide;
  const std::ptrdiff_t steps = static_cast<std::ptrdiff_t>((p.rows + rows - 1) / rows) * ((vectors + wide - 1) / wide) *
                               p.depth * std::max(taps, 1) * p.blocks;
  return {reinterpret_cast<const char*>(piece.start), (piece.floats * static_cast<std::ptrdiff_t>(sizeof(float)) + steps - 1) / steps};
}

template <typename Write = Plain>
inline void product(const Product& p, const Write& write = {}) {
  static constexpr std::ptrdiff_t zero = 0;
  product(p, Taps{1, &zero, &zero}, write);
}

inline void ChannelSums::begin(Product p, const Taps& taps) {
  p.rows = p.blocks = 1, p.c = pivot, p.c_row = 0;
  product(p, taps);
}
inline void ChannelSums::begin(const Product& p) {
  static constexpr std::ptrdiff_t zero = 0;
  begin(p, Taps{1, &zero, &zero});
}
