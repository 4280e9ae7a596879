// One half of a separable convolution, backward: a block an image, all gradients from one pass over memory.
//
// Mathematics, with r and d as in `forward.cu` and dz' = g + offset + slope result, where a batch norm is behind:
//     dd = dz' pointwise,    d_pointwise = sum over pixels of dz'^T d, d made again;
//     dr[y, x] = sum over i, j of depthwise[i, j] dd[y + PADDING - i, x + PADDING - j];
//     d_depthwise[i, j] = sum over pixels of dd[y, x] r[y + i - PADDING, x + j - PADDING];
//     dz = scale dr where r > 0, and there d_scale = sum of z dr, d_shift = sum of dr.
//
// Shapes and layouts:
//     z, result, g and into (images, H, W, 24) bf16, NHWC, images 16 bytes aligned; affine (2, C), depthwise (K, K, C),
//     pointwise (F, C), norm (2, F), offset and slope, fp32. into becomes dz, or is added to. Sums over an image's
//     pixels, still to be added up: d_affine (images, 2, C), d_depthwise (images, K, K, C), d_pointwise (images, F, C).
//
// Shared memory: planes of r; planes of dd, whose room is first z's; dz' as an image, later dr; and a room for half of
// the planes of d and dr, 16 rows of all channels, and for sums.
//
// The gradient of a row of taps is on the diagonals of a Toeplitz block's gradient: summed over rows y and over blocks
// of columns x, G_i[k, n] = sum of plane[y + i, x + k] dd[y, x + n], and d_depthwise[i, j] = sum over n of
// G_i[n + j + LEFT - PADDING, n].
#include "planes.cuh"

constexpr unsigned HALF = H / 2, PITCH_HALF = HALF * W * 2 + 16;
constexpr unsigned READERS = 192, SHARE = IMAGE / 16 / READERS; // threads that always meet the same 8 channels
constexpr unsigned BACKWARD_BYTES = 2 * PLANES + IMAGE + C * PITCH_HALF; // of shared memory
#ifdef SHARED_BYTES
static_assert(BACKWARD_BYTES == SHARED_BYTES, "whoever launches knows it");
#endif
static_assert(WARPS == 8, "each reads 64 of a half's pixels");
static_assert(READERS <= THREADS && READERS % 3 == 0 && IMAGE <= PLANES, "8 of 24 channels are 16 bytes");
static_assert(WARPS * F * C * 4 <= C * PITCH_HALF && 16 * (READERS + 1) * 4 <= C * PITCH_HALF, "sums have room");

// dz' of the image, as an image.
DEVICE void gradient_of_result(unsigned to, const char *g, const char *result, const float *norm) {
  if (thread() >= READERS) return;
  const float *offset = norm + thread() % 3 * 8, *slope = offset + F;
#pragma unroll 4
  for (unsigned i = 0; i < SHARE; ++i) {
    const unsigned at = (i * READERS + thread()) * 16;
    unsigned gradient[4], value[4];
    read_16(gradient, g + at);
    read_16(value, result + at);
#pragma unroll
    for (unsigned o = 0; o < 4; ++o)
      gradient[o] = pack(lower(gradient[o]) + (lower(value[o]) * slope[2 * o] + offset[2 * o]),
                         upper(gradient[o]) + (upper(value[o]) * slope[2 * o + 1] + offset[2 * o + 1]));
    store_16(to + at, gradient);
  }
}

// pointwise^T as A: channels are rows, filters columns; 16 channels, and 8 in the upper half of another block.
struct Mixing {
  unsigned first[6], last[3];
};

DEVICE Mixing transposed(const float *pointwise) {
  Mixing a;
#pragma unroll
  for (unsigned k = 0; k < F / 8; ++k) {
    const float *at = pointwise + (k * 8 + pair_of_lane()) * C + row_of_lane();
    a.first[2 * k] = pack(at[0], at[C]);
    a.first[2 * k + 1] = pack(at[8], at[C + 8]);
    a.last[k] = pack(at[16], at[C + 16]);
  }
  return a;
}

// dd into planes that were cleared, 16 pixels at a time.
DEVICE void unmix(const Mixing &a, unsigned image, unsigned planes) {
#pragma unroll 2
  for (unsigned i = warp(); i < H * W / 16; i += WARPS) {
    unsigned b[4], last[2];
    load_4(b, image + (i * 16 + row_of_b()) * PIXEL + column_of_b() * 2);
    load_2(last, image + (i * 16 + lane() % 16) * PIXEL + 32);
#pragma unroll
    for (unsigned n = 0; n < 2; ++n) {
      float sums[4] = {}, others[4] = {};
      multiply_16(sums, a.first[0], a.first[1], a.first[2], a.first[3], b[2 * n], b[2 * n + 1]);
      multiply_8(sums, a.first[4], a.first[5], last[n]);
      multiply_16(others, a.last[0], 0, a.last[1], 0, b[2 * n], b[2 * n + 1]);
      multiply_8(others, a.last[2], 0, last[n]);
      const unsigned x = i % 2 * 16 + n * 8 + pair_of_lane();
      const unsigned at = planes + row_of_lane() * PLANE + (i / 2 + PADDING) * PITCH + (x + LEFT) * 2;
      store_word(at, pack(sums[0], sums[1]));
      store_word(at + 8 * PLANE, pack(sums[2], sums[3]));
      store_word(at + 16 * PLANE, pack(others[0], others[1]));
    }
  }
}

// 16 rows of all channels convolved, a warp its own.
template <bool MIRRORED>
DEVICE void convolve_half(unsigned planes, unsigned half, const float *depthwise, unsigned to) {
#pragma unroll
  for (unsigned own = 0; own < OWN; ++own) {
    const unsigned c = warp() * OWN + own;
    convolve(planes + c * PLANE + half * HALF * PITCH, toeplitz<MIRRORED>(depthwise, c), to + c * PITCH_HALF);
  }
}

// A warp's share of d_pointwise: filters are rows, channels columns; 16 filters, and 8 with zeros below.
struct Mixed {
  float first[C / 8][4], last[C / 8][4];
};

// A warp adds what 64 of a half's pixels add to d_pointwise.
DEVICE void add_mixed(Mixed &sums, unsigned image, unsigned half, unsigned d) {
#pragma unroll
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned pixel = warp() * 64 + i * 16;
    const unsigned pixels = image + (half * HALF * W + pixel) * PIXEL, plane = d + (pixel + column_of_b()) * 2;
    unsigned a[4], last[2], b[6];
    load_4_transposed(a, pixels + row_of_b() * PIXEL + column_of_b() * 2);
    load_2_transposed(last, pixels + lane() % 16 * PIXEL + 32);
    load_4(b, plane + row_of_b() * PITCH_HALF);
    load_2(b + 4, plane + (16 + lane() % 8) * PITCH_HALF);
#pragma unroll
    for (unsigned n = 0; n < C / 8; ++n) {
      multiply_16(sums.first[n], a[0], a[1], a[2], a[3], b[2 * n], b[2 * n + 1]);
      multiply_16(sums.last[n], last[0], 0, last[1], 0, b[2 * n], b[2 * n + 1]);
    }
  }
}

// The sum of all warps' shares.
DEVICE void write_mixed(const Mixed &sums, unsigned room, float *d_pointwise) {
  const unsigned own = room + warp() * F * C * 4 + row_of_lane() * C * 4;
#pragma unroll
  for (unsigned n = 0; n < C / 8; ++n)
#pragma unroll
    for (unsigned which = 0; which < 2; ++which) {
      const unsigned at = own + (n * 8 + pair_of_lane() + which) * 4;
      store_float(at, sums.first[n][which]);
      store_float(at + 8 * C * 4, sums.first[n][2 + which]);
      store_float(at + 16 * C * 4, sums.last[n][which]);
    }
  barrier();
  for (unsigned i = thread(); i < F * C; i += THREADS) {
    float total = 0;
#pragma unroll
    for (unsigned k = 0; k < WARPS; ++k) total += load_float(room + (k * F * C + i) * 4);
    d_pointwise[block() * F * C + i] = total;
  }
}

// G_i of all rows of taps of a channel's planes, each as a product of 16 rows y: A is r transposed, B is dd.
DEVICE void gram(float (&sums)[K][4], unsigned r, unsigned dd) {
  for (unsigned first = 0; first < H; first += 16) {
    unsigned b[W / 8][2]; // two rows of a column each
#pragma unroll
    for (unsigned x = 0; x < W / 8; ++x)
#pragma unroll
      for (unsigned half = 0; half < 2; ++half) {
        const unsigned y = first + half * 8 + pair_of_lane() + PADDING;
        const unsigned at = dd + y * PITCH + (x * 8 + row_of_lane() + LEFT) * 2;
        b[x][half] = load_half(at) | load_half(at + PITCH) << 16;
      }
#pragma unroll
    for (unsigned i = 0; i < K; ++i)
#pragma unroll
      for (unsigned x = 0; x < W / 8; ++x) {
        unsigned a[4];
        load_4_transposed(a, r + (first + i + row_of_b()) * PITCH + (x * 8 + column_of_b()) * 2);
        multiply_16(sums[i], a[0], a[1], a[2], a[3], b[x][0], b[x][1]);
      }
  }
}

// d_depthwise of a warp's channels. `room` is the warp's own, 16×8 fp32.
DEVICE void write_taps(unsigned r, unsigned dd, unsigned room, float *d_depthwise) {
  for (unsigned own = 0; own < OWN; ++own) {
    const unsigned c = warp() * OWN + own;
    float sums[K][4] = {};
    gram(sums, r + c * PLANE, dd + c * PLANE);
#pragma unroll
    for (unsigned i = 0; i < K; ++i) {
      warp_barrier();
#pragma unroll
      for (unsigned o = 0; o < 4; ++o)
        store_float(room + ((row_of_lane() + o / 2 * 8) * 8 + pair_of_lane() + o % 2) * 4, sums[i][o]);
      warp_barrier();
      if (lane() < K) {
        float total = 0;
#pragma unroll
        for (unsigned n = 0; n < 8; ++n) total += load_float(room + ((lane() + n + LEFT - PADDING) * 8 + n) * 4);
        d_depthwise[block() * K * K * C + (i * K + lane()) * C + c] = total;
      }
    }
  }
}

// Half of the planes of dr into an image.
DEVICE void to_image(unsigned planes, unsigned half, unsigned image) {
#pragma unroll 2
  for (unsigned i = warp(); i < HALF * C / 8; i += WARPS) {
    const unsigned y = i / (C / 8), first = i % (C / 8) * 8;
    unsigned dr[4];
    load_4_transposed(dr, planes + (first + lane() % 8) * PITCH_HALF + (y * W + lane() / 8 * 8) * 2);
#pragma unroll
    for (unsigned m = 0; m < 4; ++m) {
      const unsigned pixel = (half * HALF + y) * W + m * 8 + row_of_lane();
      store_word(image + pixel * PIXEL + (first + pair_of_lane()) * 2, dr[m]);
    }
  }
}

// dz, written or added to into; a reader's sums of its 8 channels go to `room`.
DEVICE void write_source(const char *z, unsigned image, const float *affine, char *into, int accumulate,
                         unsigned room) {
  if (thread() >= READERS) return;
  const float *scale = affine + thread() % 3 * 8, *shift = scale + C;
  float d_scale[8] = {}, d_shift[8] = {};
#pragma unroll 4
  for (unsigned i = 0; i < SHARE; ++i) {
    const unsigned at = (i * READERS + thread()) * 16;
    unsigned values[4], gradients[4], before[4] = {};
    read_16(values, z + at);
    load_16(gradients, image + at);
    if (accumulate) read_16(before, into + at);
#pragma unroll
    for (unsigned o = 0; o < 4; ++o) {
      float dz[2];
#pragma unroll
      for (unsigned half = 0; half < 2; ++half) {
        const unsigned c = 2 * o + half;
        const float value = half ? upper(values[o]) : lower(values[o]);
        const bool passes = value * scale[c] + shift[c] > 0.f;
        const float dr = passes ? half ? upper(gradients[o]) : lower(gradients[o]) : 0.f;
        d_scale[c] += dr * value;
        d_shift[c] += dr;
        dz[half] = dr * scale[c] + (half ? upper(before[o]) : lower(before[o]));
      }
      gradients[o] = pack(dz[0], dz[1]);
    }
    write_16(into + at, gradients);
  }
#pragma unroll
  for (unsigned c = 0; c < 8; ++c) {
    store_float(room + (c * (READERS + 1) + thread()) * 4, d_scale[c]);
    store_float(room + ((8 + c) * (READERS + 1) + thread()) * 4, d_shift[c]);
  }
}

// Those sums over all readers of a channel, four threads each sum.
DEVICE void write_affine(unsigned room, float *d_affine) {
  if (thread() >= 4 * 2 * C) return;
  const unsigned which = thread() / 4 / C, c = thread() / 4 % C, row = room + (which * 8 + c % 8) * (READERS + 1) * 4;
  float total = 0;
#pragma unroll
  for (unsigned i = 0; i < READERS / 12; ++i)
    total += load_float(row + (c / 8 + 3 * (thread() % 4 * (READERS / 12) + i)) * 4);
  total += of_lane_across(total, 1);
  total += of_lane_across(total, 2);
  if (thread() % 4 == 0) d_affine[block() * 2 * C + which * C + c] = total;
}

extern "C" __global__ void __launch_bounds__(THREADS)
separable_backward(const bf16 *__restrict__ z, const float *__restrict__ affine, const float *__restrict__ depthwise,
                   const float *__restrict__ pointwise, const bf16 *__restrict__ result, const bf16 *__restrict__ g,
                   const float *__restrict__ norm, bf16 *__restrict__ into, int accumulate,
                   float *__restrict__ d_affine, float *__restrict__ d_depthwise, float *__restrict__ d_pointwise) {
  const unsigned r = shared_memory(), dd = r + PLANES, image = dd + PLANES, room = image + IMAGE;
  begin_copy(dd, image_of_block(z));
  clear_planes(r);
  gradient_of_result(image, image_of_block(g), image_of_block(result), norm);
  wait_for_copies();
  barrier();
  to_planes(r, dd, affine);
  barrier();
  clear_planes(dd);
  const Mixing weights = transposed(pointwise);
  barrier();
  unmix(weights, image, dd);
  Mixed mixed = {};
  for (unsigned half = 0; half < 2; ++half) {
    convolve_half<false>(r, half, depthwise, room);
    barrier();
    add_mixed(mixed, image, half, room);
    barrier();
  }
  write_mixed(mixed, room, d_pointwise);
  barrier();
  write_taps(r, dd, room + warp() * 16 * 8 * 4, d_depthwise);
  barrier();
  for (unsigned half = 0; half < 2; ++half) {
    convolve_half<true>(dd, half, depthwise, room);
    barrier();
    to_image(room, half, image);
    barrier();
  }
  write_source(image_of_block(z), image, affine, image_of_block(into), accumulate, room);
  barrier();
  write_affine(room, d_affine);
}
