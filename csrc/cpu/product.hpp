// Small matrix products held in registers, the inner loop of every dense convolution.
// Included once per instruction set, inside its namespace: no include guard.

// Where each tap of a window finds its operands, as offsets from the first.
struct Taps {
  int count;
  const std::ptrdiff_t* a;
  const std::ptrdiff_t* b;
};

// Row r and depth k of A are at a + r * a_row + k * a_depth; depth k of B is a row of `columns` floats at
// b + k * b_depth; row r of C at c + r * c_row.
struct Product {
  const float* a;
  std::ptrdiff_t a_row, a_depth;
  const float* b;
  std::ptrdiff_t b_depth;
  float* c;
  std::ptrdiff_t c_row;
  int rows, depth, columns;  // columns: a multiple of 8
  bool accumulate;           // C += A B instead of C = A B
};

#if PNAS_VECTOR_REGISTERS >= 32
constexpr int kTileRows = 8;
#else
constexpr int kTileRows = 4;
#endif

template <int R, int V>
inline void product_tile(const Product& p, const Taps& taps, int row, int column) {
  vf sum[R][V];
  float* c = p.c + row * p.c_row + column;
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = p.accumulate ? load(c + r * p.c_row + v * kLanes) : vf{};
  for (int tap = 0; tap < taps.count; ++tap) {
    const float* a = p.a + taps.a[tap] + row * p.a_row;
    const float* b = p.b + taps.b[tap] + column;
    for (int k = 0; k < p.depth; ++k, a += p.a_depth, b += p.b_depth) {
      vf bs[V];
      for (int v = 0; v < V; ++v) bs[v] = load(b + v * kLanes);
      for (int r = 0; r < R; ++r) {
        const vf as = splat(a[r * p.a_row]);
        for (int v = 0; v < V; ++v) sum[r][v] += as * bs[v];
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(c + r * p.c_row + v * kLanes, sum[r][v]);
}

template <int V>
inline void product_columns(const Product& p, const Taps& taps, int column) {
  int row = 0;
  for (; row + kTileRows <= p.rows; row += kTileRows) product_tile<kTileRows, V>(p, taps, row, column);
  if (kTileRows > 4 && row + 4 <= p.rows) product_tile<4, V>(p, taps, row, column), row += 4;
  if (row + 2 <= p.rows) product_tile<2, V>(p, taps, row, column), row += 2;
  if (row < p.rows) product_tile<1, V>(p, taps, row, column);
}

// C (+)= sum over taps of A B. Three vectors wide as a rule; four columns left are two and two.
inline void product(const Product& p, const Taps& taps) {
  int column = 0;
  for (int left = p.columns / kLanes; left > 0;) {
    const int take = left == 4 || left == 2 ? 2 : left == 1 ? 1 : 3;
    if (take == 3) product_columns<3>(p, taps, column);
    if (take == 2) product_columns<2>(p, taps, column);
    if (take == 1) product_columns<1>(p, taps, column);
    column += take * kLanes;
    left -= take;
  }
}

inline void product(const Product& p) {
  static constexpr std::ptrdiff_t zero = 0;
  product(p, Taps{1, &zero, &zero});
}
