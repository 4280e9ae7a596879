// What a thread, its warp and its block can do on a card, by the names under which kernels call it; `fibers.hpp` has
// the same for a CPU. No header is included: NVRTC has none.
//
// Addresses in shared memory are bytes, from `shared_memory()` on. Lane t of a warp holds of an 8×8 matrix of bf16 its
// row t / 4 and there columns 2 (t % 4) and the next, in one word, the lower column in the lower half.
#pragma once

#define DEVICE __device__ __forceinline__

using bf16 = unsigned short;

extern __shared__ __align__(128) char block_memory[];

DEVICE unsigned shared_memory() {
  unsigned at;
  asm("{ .reg .u64 a; cvta.to.shared.u64 a, %1; cvt.u32.u64 %0, a; }" : "=r"(at) : "l"(block_memory));
  return at;
}
DEVICE unsigned thread() { return threadIdx.x; }
DEVICE unsigned block() { return blockIdx.x; }
DEVICE void barrier() { __syncthreads(); }
DEVICE void warp_barrier() { __syncwarp(); }

// 16 bytes from memory to shared memory, which are there after `wait_for_copies` of the same thread.
DEVICE void copy_16(unsigned to, const void *from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
DEVICE void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

DEVICE void read_16(unsigned *words, const void *from) {
  const uint4 read = *static_cast<const uint4 *>(from);
  words[0] = read.x, words[1] = read.y, words[2] = read.z, words[3] = read.w;
}
DEVICE void write_16(void *to, const unsigned *words) {
  *static_cast<uint4 *>(to) = make_uint4(words[0], words[1], words[2], words[3]);
}

DEVICE unsigned load_half(unsigned at) {
  unsigned short half;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(half) : "r"(at) : "memory");
  return half;
}
DEVICE float load_float(unsigned at) {
  float value;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"(at) : "memory");
  return value;
}
DEVICE void load_16(unsigned *w, unsigned at) {
  asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
               : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3]) : "r"(at) : "memory");
}
DEVICE void store_word(unsigned at, unsigned word) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(word) : "memory");
}
DEVICE void store_float(unsigned at, float value) { store_word(at, __float_as_uint(value)); }
DEVICE void store_16(unsigned at, const unsigned *w) {
  asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};"
               ::"r"(at), "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]) : "memory");
}

// Four or two 8×8 matrices: lane 8 m + r says where row r of matrix m is, 16 bytes at a multiple of 16. The last two
// hand each lane its words of the transposed matrices.
DEVICE void load_4(unsigned *m, unsigned at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(at) : "memory");
}
DEVICE void load_2(unsigned *m, unsigned at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(m[0]), "=r"(m[1]) : "r"(at) : "memory");
}
DEVICE void load_4_transposed(unsigned *m, unsigned at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(at) : "memory");
}
DEVICE void load_2_transposed(unsigned *m, unsigned at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(m[0]), "=r"(m[1]) : "r"(at) : "memory");
}

// sum (16×8, fp32) += A B with A 16×16 and B 16×8, or 16×8 and 8×8. A is four matrices: rows 0-7 and 8-15 of columns
// 0-7, then of columns 8-15; B two, rows 0-7 and 8-15, each held transposed. A lane's sums are of rows t / 4 and
// 8 + t / 4, two columns each.
DEVICE void multiply_16(float *sum, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
DEVICE void multiply_8(float *sum, unsigned a0, unsigned a1, unsigned b) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 "
               "{%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(a0), "r"(a1), "r"(b));
}

// The value that the lane whose number differs in these bits holds.
DEVICE float of_lane_across(float value, unsigned bits) { return __shfl_xor_sync(~0u, value, bits); }

// Two values as bf16 in a word, and each of them again.
DEVICE unsigned pack(float lower, float upper) {
  unsigned word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(upper), "f"(lower));
  return word;
}
DEVICE unsigned pack_relu(float lower, float upper) {
  unsigned word;
  asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(upper), "f"(lower));
  return word;
}
DEVICE float lower(unsigned word) { return __uint_as_float(word << 16); }
DEVICE float upper(unsigned word) { return __uint_as_float(word & 0xffff0000u); }
