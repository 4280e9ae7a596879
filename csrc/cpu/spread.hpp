// Depthwise convolution of a row of pixels, and the gradient of its weights.
// Included once per instruction set, inside its namespace: no include guard.
//
// Kernel width K, stride S and dilation D are known when compiling, so that a vector of inputs, once
// loaded, meets every weight and every output that it has to do with while they are in registers.

// The rows of a kernel: offsets of the first input of each, and of its weight.
struct KernelRows {
  int count;
  const std::ptrdiff_t* a;
  const std::ptrdiff_t* b;
};

// One row of results: out[i] = sum over rows and k of w[k] * x[i * S + k * D].
struct Spread {
  const float* x;
  std::ptrdiff_t x_step;
  const float* w;
  std::ptrdiff_t w_step;  // from one weight of a row to the next
  float* out;
  std::ptrdiff_t out_step;
  int pixels, channels;  // channels: a multiple of kLanes
};

template <int K, int S, int D, int T>
inline void add_kernel_row(const Spread& s, const float* x, const float* w, vf (&sum)[T]) {
  vf weight[K];
  PNAS_UNROLL for (int k = 0; k < K; ++k) weight[k] = load(w + k * s.w_step);
  PNAS_UNROLL for (int j = 0; j <= (T - 1) * S + (K - 1) * D; ++j, x += s.x_step) {
    const vf v = load(x);
    PNAS_UNROLL for (int k = 0; k < K; ++k) {
      const int t = j - k * D;
      if (t >= 0 && t % S == 0 && t / S < T) sum[t / S] += weight[k] * v;
    }
  }
}

// T pixels. Two rows of the kernel have sums of their own where T is small: one after the other they would
// wait for each other's additions.
template <int K, int S, int D, int T>
inline void spread_tile(const Spread& s, const KernelRows& rows, int pixel, int c) {
  vf sum[T] = {};
  const float* x = s.x + pixel * S * s.x_step + c;
  const float* w = s.w + c;
  int row = 0;
  if constexpr (T <= PNAS_VECTOR_REGISTERS / 4) {
    vf other[T] = {};
    for (; row + 2 <= rows.count; row += 2) {
      add_kernel_row<K, S, D, T>(s, x + rows.a[row], w + rows.b[row], sum);
      add_kernel_row<K, S, D, T>(s, x + rows.a[row + 1], w + rows.b[row + 1], other);
    }
    PNAS_UNROLL for (int t = 0; t < T; ++t) sum[t] += other[t];
  }
  for (; row < rows.count; ++row) add_kernel_row<K, S, D, T>(s, x + rows.a[row], w + rows.b[row], sum);
  float* out = s.out + pixel * s.out_step + c;
  PNAS_UNROLL for (int t = 0; t < T; ++t) store(out + t * s.out_step, sum[t]);
}

template <int K, int S, int D>
void spread_row(const Spread& s, const KernelRows& rows) {
  for (int c = 0; c < s.channels; c += kLanes) {
    int i = 0;
    if constexpr (PNAS_VECTOR_REGISTERS >= 32)
      for (; i + 16 <= s.pixels; i += 16) spread_tile<K, S, D, 16>(s, rows, i, c);
    for (; i + 8 <= s.pixels; i += 8) spread_tile<K, S, D, 8>(s, rows, i, c);
    if (i + 4 <= s.pixels) spread_tile<K, S, D, 4>(s, rows, i, c), i += 4;
    for (; i < s.pixels; ++i) spread_tile<K, S, D, 1>(s, rows, i, c);
  }
}

// A block of output pixels and what of the input the first tap of each kernel row sees.
struct SpreadGradient {
  const float* x;
  std::ptrdiff_t x_row, x_step;  // between outputs' rows, between inputs
  const float* g;
  std::ptrdiff_t g_row, g_step;
  int rows, pixels;
  float* dw;
  std::ptrdiff_t dw_step;  // from one tap to the next
};

template <int K, int S, int D, int R, int T>
inline void gradient_tile(const float* const* x, std::ptrdiff_t x_step, const float* g, std::ptrdiff_t g_step,
                          vf (&sum)[R][K]) {
  vf incoming[T];
  PNAS_UNROLL for (int t = 0; t < T; ++t) incoming[t] = load(g + t * g_step);
  const float* at[R];
  PNAS_UNROLL for (int r = 0; r < R; ++r) at[r] = x[r];
  PNAS_UNROLL for (int j = 0; j <= (T - 1) * S + (K - 1) * D; ++j)
    PNAS_UNROLL for (int r = 0; r < R; ++r) {
      const vf v = load(at[r]);
      at[r] += x_step;
      PNAS_UNROLL for (int k = 0; k < K; ++k) {
        const int t = j - k * D;
        if (t >= 0 && t % S == 0 && t / S < T) sum[r][k] += incoming[t / S] * v;
      }
    }
}

// Kernel rows [first, first + R).
template <int K, int S, int D, int R>
inline void gradient_rows(const SpreadGradient& s, const KernelRows& kernel, int first) {
  vf sum[R][K];
  float* dw = s.dw + first * K * s.dw_step;
  PNAS_UNROLL for (int r = 0; r < R; ++r)
    PNAS_UNROLL for (int k = 0; k < K; ++k) sum[r][k] = load(dw + (r * K + k) * s.dw_step);
  for (int row = 0; row < s.rows; ++row) {
    const float* g = s.g + row * s.g_row;
    const float* x[R];
    PNAS_UNROLL for (int r = 0; r < R; ++r) x[r] = s.x + row * s.x_row + kernel.a[first + r];
    const auto advance = [&](int pixels) {
      g += pixels * s.g_step;
      PNAS_UNROLL for (int r = 0; r < R; ++r) x[r] += pixels * S * s.x_step;
    };
    int i = 0;
    for (; i + 4 <= s.pixels; i += 4, advance(4)) gradient_tile<K, S, D, R, 4>(x, s.x_step, g, s.g_step, sum);
    for (; i < s.pixels; ++i, advance(1)) gradient_tile<K, S, D, R, 1>(x, s.x_step, g, s.g_step, sum);
  }
  PNAS_UNROLL for (int r = 0; r < R; ++r)
    PNAS_UNROLL for (int k = 0; k < K; ++k) store(dw + (r * K + k) * s.dw_step, sum[r][k]);
}

// dw[row][k] += sum over pixels of g * x, for kLanes channels; as many kernel rows at once as leave their
// sums in registers.
template <int K, int S, int D>
void spread_gradient(const SpreadGradient& s, const KernelRows& kernel) {
  constexpr int together = K == 3 ? 3 : K == 5 || PNAS_VECTOR_REGISTERS >= 32 ? 2 : 1;
  int row = 0;
  for (; row + together <= kernel.count; row += together) gradient_rows<K, S, D, together>(s, kernel, row);
  for (; row < kernel.count; ++row) gradient_rows<K, S, D, 1>(s, kernel, row);
}

// The kernels of a depthwise convolution: forward, gradient of its weights, gradient of its input.
struct SpreadKernels {
  void (*forward)(const Spread&, const KernelRows&);
  void (*gradient)(const SpreadGradient&, const KernelRows&);
};

inline SpreadKernels spread_kernels(const Window& w) {
  const int k = w.kernel_width, s = w.stride_width, d = w.dilation;
#define PNAS_SPREAD(K, S, D) \
  if (k == K && s == S && d == D) return {spread_row<K, S, D>, spread_gradient<K, S, D>}
  PNAS_SPREAD(3, 1, 1);
  PNAS_SPREAD(3, 2, 1);
  PNAS_SPREAD(5, 1, 1);
  PNAS_SPREAD(5, 2, 1);
  PNAS_SPREAD(7, 1, 1);
  PNAS_SPREAD(7, 2, 1);
  PNAS_SPREAD(3, 1, 2);
  PNAS_SPREAD(3, 2, 2);
#undef PNAS_SPREAD
  return {};
}

// The input's gradient is a depthwise convolution, too: with the taps of one phase of the stride.
inline void spread_back(int taps, int dilation, const Spread& s, const KernelRows& rows) {
  if (dilation == 2) return spread_row<3, 1, 2>(s, rows);
  switch (taps) {
    case 1: return spread_row<1, 1, 1>(s, rows);
    case 2: return spread_row<2, 1, 1>(s, rows);
    case 3: return spread_row<3, 1, 1>(s, rows);
    case 4: return spread_row<4, 1, 1>(s, rows);
    case 5: return spread_row<5, 1, 1>(s, rows);
    case 7: return spread_row<7, 1, 1>(s, rows);
  }
}
