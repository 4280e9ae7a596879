// AVX-512's masks and 32 registers on 256-bit vectors: for machines that take two cycles over 512 bits, where
// wider vectors would only mean more padding.
#if defined(__x86_64__)
#include <immintrin.h>

#include "standard.hpp"
#pragma GCC target("avx2,fma,avx512f,avx512vl,avx512dq,avx512bw")
#define PNAS_ISA avx512vl
#define PNAS_ISA_NAME "avx512vl"
#define PNAS_LANES 8
#define PNAS_VECTOR_REGISTERS 32
#define PNAS_MASKS 1
#include "kernels.hpp"
#endif
