// 512-bit vectors: for machines whose arithmetic is as wide.
#if defined(__x86_64__)
#include <immintrin.h>

#include "standard.hpp"
#pragma GCC target("avx2,fma,avx512f,avx512vl,avx512dq,avx512bw")
#define PNAS_ISA avx512
#define PNAS_ISA_NAME "avx512"
#define PNAS_LANES 16
#define PNAS_VECTOR_REGISTERS 32
#define PNAS_MASKS 1
#include "kernels.hpp"
#endif
