// One half of a separable convolution, forward: a block an image, which is read once and stays in shared memory.
//
// Mathematics:
//     out[y, x, f] = sum over c of pointwise[f, c] d[y, x, c],
//     d[y, x, c] = sum over i, j of depthwise[i, j, c] r[y + i - PADDING, x + j - PADDING, c],
//     r = relu(scale z + shift), 0 outside of the image; and for a batch norm sums of out and of its squares.
//
// Shapes and layouts:
//     z (images, H, W, C) and out (images, H, W, F) bf16, images 16 bytes aligned; affine (2, C) fp32, scale and shift;
//     depthwise (K, K, C) and pointwise (F, C) fp32; sums (images, 2, F) fp32.
//
// Shared memory: the image, whose room the planes of d take (PITCH_D apart), and the planes of r, whose room the
// result takes. `planes.cuh` says how channels are convolved.
#include "planes.cuh"

constexpr unsigned PITCH_D = H * W * 2 + 16; // channels of a pixel lie in different banks
constexpr unsigned FORWARD_BYTES = C * PITCH_D + PLANES; // of shared memory
#ifdef SHARED_BYTES
static_assert(FORWARD_BYTES == SHARED_BYTES, "whoever launches knows it");
#endif
static_assert(IMAGE <= C * PITCH_D && IMAGE <= PLANES && WARPS * 2 * F * 4 <= C * PITCH_D, "rooms are taken again");

// d into planes of their own, a warp its channels.
DEVICE void convolve_all(const Toeplitz (&blocks)[OWN], unsigned planes, unsigned d) {
#pragma unroll
  for (unsigned own = 0; own < OWN; ++own) {
    const unsigned c = warp() * OWN + own;
#pragma unroll
    for (unsigned y = 0; y < H; y += 16)
      convolve(planes + c * PLANE + y * PITCH, blocks[own], d + c * PITCH_D + y * W * 2);
  }
}

// A lane's two filters of every eight.
struct Sums {
  float plain[F / 8][2], squared[F / 8][2];
};

// The pointwise convolution of planes into an image, 16 pixels at a time: pixels are rows, channels columns.
DEVICE Sums mix(const unsigned (&weights)[F / 8][C / 8], unsigned d, unsigned image) {
  Sums sums = {};
#pragma unroll 2
  for (unsigned first = warp() * 16; first < H * W; first += WARPS * 16) {
    unsigned a[6];
    const unsigned pixels = d + (first + column_of_b()) * 2;
    load_4_transposed(a, pixels + row_of_b() * PITCH_D);
    load_2_transposed(a + 4, pixels + (16 + lane() % 8) * PITCH_D);
#pragma unroll
    for (unsigned n = 0; n < F / 8; ++n) {
      float out[4] = {};
      multiply_16(out, a[0], a[1], a[2], a[3], weights[n][0], weights[n][1]);
      multiply_8(out, a[4], a[5], weights[n][2]);
#pragma unroll
      for (unsigned half = 0; half < 2; ++half) {
        const unsigned pixel = first + half * 8 + row_of_lane();
        store_word(image + pixel * PIXEL + (n * 8 + pair_of_lane()) * 2, pack(out[2 * half], out[2 * half + 1]));
#pragma unroll
        for (unsigned which = 0; which < 2; ++which) {
          const float value = out[2 * half + which];
          sums.plain[n][which] += value;
          sums.squared[n][which] += value * value;
        }
      }
    }
  }
  return sums;
}

// A warp's sums over its pixels, (2, F) fp32.
DEVICE void store_sums(const Sums &sums, unsigned to) {
#pragma unroll
  for (unsigned n = 0; n < F / 8; ++n)
#pragma unroll
    for (unsigned which = 0; which < 2; ++which) {
      float plain = sums.plain[n][which], squared = sums.squared[n][which];
#pragma unroll
      for (unsigned bits = 4; bits < 32; bits *= 2) {
        plain += of_lane_across(plain, bits);
        squared += of_lane_across(squared, bits);
      }
      const unsigned f = n * 8 + pair_of_lane() + which;
      if (row_of_lane() == 0) {
        store_float(to + f * 4, plain);
        store_float(to + (F + f) * 4, squared);
      }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
separable_forward(const bf16 *__restrict__ z, const float *__restrict__ affine, const float *__restrict__ depthwise,
                  const float *__restrict__ pointwise, bf16 *__restrict__ out, float *__restrict__ sums) {
  const unsigned image = shared_memory(), planes = image + C * PITCH_D;
  begin_copy(image, image_of_block(z));
  clear_planes(planes);
  Toeplitz blocks[OWN]; // made while the image comes
#pragma unroll
  for (unsigned own = 0; own < OWN; ++own) blocks[own] = toeplitz<false>(depthwise, warp() * OWN + own);
  wait_for_copies();
  barrier();
  to_planes(planes, image, affine);
  barrier();
  convolve_all(blocks, planes, image);
  unsigned weights[F / 8][C / 8]; // B: channels are rows, filters columns
#pragma unroll
  for (unsigned n = 0; n < F / 8; ++n)
#pragma unroll
    for (unsigned k = 0; k < C / 8; ++k) {
      const float *at = pointwise + (n * 8 + row_of_lane()) * C + k * 8 + pair_of_lane();
      weights[n][k] = pack(at[0], at[1]);
    }
  barrier();
  const Sums own = mix(weights, image, planes);
  barrier();
  store_sums(own, image + warp() * 2 * F * 4);
  char *to = image_of_block(out);
#pragma unroll
  for (unsigned i = 0; i < IMAGE / 16 / THREADS; ++i) {
    const unsigned at = (i * THREADS + thread()) * 16;
    unsigned words[4];
    load_16(words, planes + at);
    write_16(to + at, words);
  }
  barrier();
  if (thread() < 2 * F) {
    float total = 0;
    for (unsigned k = 0; k < WARPS; ++k) total += load_float(image + (k * 2 * F + thread()) * 4);
    sums[block() * 2 * F + thread()] = total;
  }
}
