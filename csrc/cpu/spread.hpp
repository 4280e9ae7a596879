// Depthwise convolution of a row of pixels, and the gradient of its weights.
// Included once per instruction set, inside its namespace: no include guard.

template <int T>
inline void spread_tile(const float* x, std::ptrdiff_t x_step, const float* w, const Taps& taps, float* out,
                        std::ptrdiff_t out_step) {
  vf sum[T] = {};
  for (int tap = 0; tap < taps.count; ++tap) {
    const vf weight = load(w + taps.b[tap]);
    const float* at = x + taps.a[tap];
    for (int t = 0; t < T; ++t) sum[t] += weight * load(at + t * x_step);
  }
  for (int t = 0; t < T; ++t) store(out + t * out_step, sum[t]);
}

// out[i] = sum over taps of w[tap] * x[i * x_step + tap], for `pixels` pixels of `channels` (a multiple
// of 8) each.
inline void spread_row(const float* x, std::ptrdiff_t x_step, const float* w, const Taps& taps, float* out,
                       std::ptrdiff_t out_step, int pixels, int channels) {
  for (int c = 0; c < channels; c += kLanes) {
    int i = 0;
    for (; i + 8 <= pixels; i += 8)
      spread_tile<8>(x + c + i * x_step, x_step, w + c, taps, out + c + i * out_step, out_step);
    if (i + 4 <= pixels)
      spread_tile<4>(x + c + i * x_step, x_step, w + c, taps, out + c + i * out_step, out_step), i += 4;
    for (; i < pixels; ++i)
      spread_tile<1>(x + c + i * x_step, x_step, w + c, taps, out + c + i * out_step, out_step);
  }
}

// A block of output pixels and what of the input their first tap sees.
struct SpreadGradient {
  const float* x;
  std::ptrdiff_t x_row, x_step;
  const float* g;
  std::ptrdiff_t g_row, g_step;
  int rows, pixels;
};

template <int G>
inline void spread_gradient_taps(const SpreadGradient& s, const std::ptrdiff_t* offsets, float* dw,
                                 std::ptrdiff_t dw_tap) {
  vf sum[G];
  for (int j = 0; j < G; ++j) sum[j] = load(dw + j * dw_tap);
  for (int row = 0; row < s.rows; ++row) {
    const float* g = s.g + row * s.g_row;
    const float* x = s.x + row * s.x_row;
    for (int i = 0; i < s.pixels; ++i, g += s.g_step, x += s.x_step) {
      const vf incoming = load(g);
      for (int j = 0; j < G; ++j) sum[j] += incoming * load(x + offsets[j]);
    }
  }
  for (int j = 0; j < G; ++j) store(dw + j * dw_tap, sum[j]);
}

// dw[tap] += sum over pixels of g * x[tap], for 8 channels; taps in groups that fit the registers.
inline void spread_gradient(const SpreadGradient& s, const Taps& taps, float* dw, std::ptrdiff_t dw_tap) {
  for (int tap = 0; tap < taps.count;) {
    const int left = taps.count - tap;
    // 9 = 9, 25 = 10 + 10 + 5, 49 = 10 + 10 + 10 + 10 + 9
    const int take = left == 9 || left == 18 ? 9 : left >= 10 ? 10 : left;
    const std::ptrdiff_t* offsets = taps.a + tap;
    float* out = dw + tap * dw_tap;
    switch (take) {
      case 10: spread_gradient_taps<10>(s, offsets, out, dw_tap); break;
      case 9: spread_gradient_taps<9>(s, offsets, out, dw_tap); break;
      case 5: spread_gradient_taps<5>(s, offsets, out, dw_tap); break;
      default:
        for (int j = 0; j < take; ++j) spread_gradient_taps<1>(s, offsets + j, out + j * dw_tap, dw_tap);
    }
    tap += take;
  }
}
