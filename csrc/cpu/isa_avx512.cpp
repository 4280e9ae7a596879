// 256-bit vectors with AVX-512's 32 registers and masks: channel counts are multiples of 8 more often
// than of 16, and wider vectors lower the clock of many machines.
#if defined(__x86_64__)
#include "standard.hpp"
#pragma GCC target("avx2,fma,avx512f,avx512vl,avx512dq,avx512bw")
#define PNAS_ISA avx512
#define PNAS_ISA_NAME "avx512"
#define PNAS_VECTOR_REGISTERS 32
#include "kernels.hpp"
#endif
