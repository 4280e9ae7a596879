// What both directions of the prototype share: planes of an image in shared memory, and a depthwise convolution of them
// on tensor cores.
//
// Planes: a channel of the image is H rows of W columns of bf16 with zeros around, PADDING rows above and below, LEFT
// columns to the left and the rest of 40 to the right. Rows are 80 bytes apart, so that any eight neighbours of a
// column lie in different banks. LEFT is even, so that two columns of a lane are a word.
//
// Toeplitz blocks: eight outputs x, ..., x + 7 of a row need of each row i of taps
//     sum over k of plane[y + i, x + k] B_i[k, n],    B_i[k, n] = w[i, k - n - (LEFT - PADDING)], 0 beyond the taps,
// where k stays below 16: one product of 16 rows × 16 columns of the plane with a 16×8 block which is the same at every
// place of the map. A row of taps lower means the same product a row of the plane lower, an address and no more.
// Where gradients go back through the convolution, taps are mirrored:
//     B_i[k, n] = w[K - 1 - i, n + PADDING + LEFT - k].
#pragma once

#ifdef __CUDACC__
#include "card.cuh"
#else
#include "fibers.hpp"
#endif

#if !defined(TAPS) || !defined(WARPS)
#error "TAPS and WARPS are numbers that a compiler is given"
#endif

constexpr unsigned K = TAPS, THREADS = 32 * WARPS;
constexpr unsigned C = 24, F = 24, H = 32, W = 32; // channels, filters, rows, columns
constexpr unsigned OWN = C / WARPS; // channels that a warp convolves
constexpr unsigned PADDING = (K - 1) / 2, LEFT = K == 7 ? 4 : 2;
constexpr unsigned PITCH = 80, PLANE = (H + K - 1) * PITCH, PLANES = C * PLANE; // bytes
constexpr unsigned PIXEL = 2 * C, IMAGE = H * W * PIXEL; // bytes, NHWC
static_assert(K == 3 || K == 5 || K == 7, "a lane's 16 columns hold up to 7 taps of 8 outputs");
static_assert(C % WARPS == 0 && F == C, "every warp has as many channels");
static_assert(LEFT % 2 == 0 && LEFT >= PADDING && LEFT + PADDING + 7 < 16 && LEFT + W + PADDING <= PITCH / 2,
              "blocks reach all taps, and planes have room for the border");

DEVICE unsigned lane() { return thread() % 32; }
DEVICE unsigned warp() { return thread() / 32; }
DEVICE unsigned row_of_lane() { return lane() / 4; }
DEVICE unsigned pair_of_lane() { return 2 * (lane() % 4); } // the first of two columns

// Where a warp's lanes point to for `load_4` of matrices in the order of A: lower rows first, then lower columns.
DEVICE unsigned row_of_a() { return lane() % 16; }
DEVICE unsigned column_of_a() { return lane() / 16 * 8; }
// And in the order of two neighbours in B: lower columns first.
DEVICE unsigned row_of_b() { return lane() % 8 + lane() / 16 * 8; }
DEVICE unsigned column_of_b() { return lane() / 8 % 2 * 8; }

DEVICE const char *image_of_block(const bf16 *images) {
  return reinterpret_cast<const char *>(images) + static_cast<unsigned long long>(block()) * IMAGE;
}
DEVICE char *image_of_block(bf16 *images) {
  return reinterpret_cast<char *>(images) + static_cast<unsigned long long>(block()) * IMAGE;
}

DEVICE void begin_copy(unsigned to, const char *image) {
#pragma unroll
  for (unsigned i = 0; i < IMAGE / 16 / THREADS; ++i) {
    const unsigned at = (i * THREADS + thread()) * 16;
    copy_16(to + at, image + at);
  }
}

DEVICE void clear_planes(unsigned planes) {
  const unsigned zeros[4] = {};
  for (unsigned at = thread() * 16; at < PLANES; at += THREADS * 16) store_16(planes + at, zeros);
}

// relu(scale z + shift) of an image (NHWC) into planes that were cleared. A warp takes a row of 8 channels at a time.
DEVICE void to_planes(unsigned planes, unsigned image, const float *affine) {
#pragma unroll 2
  for (unsigned i = warp(); i < H * C / 8; i += WARPS) {
    const unsigned y = i / (C / 8), first = i % (C / 8) * 8, c = first + row_of_lane();
    const float scale = affine[c], shift = affine[C + c];
    unsigned z[4];
    load_4_transposed(z, image + (y * W + lane()) * PIXEL + first * 2);
    const unsigned to = planes + c * PLANE + (y + PADDING) * PITCH + (LEFT + pair_of_lane()) * 2;
#pragma unroll
    for (unsigned m = 0; m < 4; ++m)
      store_word(to + m * 16, pack_relu(lower(z[m]) * scale + shift, upper(z[m]) * scale + shift));
  }
}

struct Toeplitz {
  unsigned of_row[K][2];
};

// A channel's blocks, of weights (K, K, C) fp32.
template <bool MIRRORED> DEVICE Toeplitz toeplitz(const float *depthwise, unsigned c) {
  Toeplitz blocks;
#pragma unroll
  for (unsigned i = 0; i < K; ++i)
#pragma unroll
    for (unsigned half = 0; half < 2; ++half) {
      const int k = static_cast<int>(8 * half + pair_of_lane()), n = static_cast<int>(row_of_lane());
      const int left = LEFT, padding = PADDING, taps = K;
      const int first = MIRRORED ? n + padding + left - k : k - n - (left - padding);
      const int second = MIRRORED ? first - 1 : first + 1;
      const float *row = depthwise + (MIRRORED ? K - 1 - i : i) * K * C + c;
      const float low = first >= 0 && first < taps ? row[first * static_cast<int>(C)] : 0.f;
      const float high = second >= 0 && second < taps ? row[second * static_cast<int>(C)] : 0.f;
      blocks.of_row[i][half] = pack(low, high);
    }
  return blocks;
}

// 16 rows of a plane, of which the first is at `rows` before padding, convolved: written as bf16 to `to`, W columns a
// row and nothing between rows.
DEVICE void convolve(unsigned rows, const Toeplitz &blocks, unsigned to) {
  float sums[W / 8][4] = {};
#pragma unroll
  for (unsigned i = 0; i < K; ++i) {
    unsigned a[2 * (W / 8) + 2]; // 8 columns each two: the upper and the lower 8 rows
    const unsigned at = rows + (i + row_of_a()) * PITCH + column_of_a() * 2;
    load_4(a, at);
    load_4(a + 4, at + 32);
    load_2(a + 8, at + 64);
#pragma unroll
    for (unsigned x = 0; x < W / 8; ++x) {
      const unsigned *left = a + 2 * x;
      multiply_16(sums[x], left[0], left[1], left[2], left[3], blocks.of_row[i][0], blocks.of_row[i][1]);
    }
  }
#pragma unroll
  for (unsigned x = 0; x < W / 8; ++x)
#pragma unroll
    for (unsigned half = 0; half < 2; ++half)
      store_word(to + ((half * 8 + row_of_lane()) * W + x * 8 + pair_of_lane()) * 2,
                 pack(sums[x][2 * half], sums[x][2 * half + 1]));
}
