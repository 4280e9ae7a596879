#if defined(__x86_64__)
#include <immintrin.h>

#include "standard.hpp"
#pragma GCC target("avx2,fma")
#define PNAS_ISA avx2
#define PNAS_ISA_NAME "avx2"
#define PNAS_LANES 8
#define PNAS_VECTOR_REGISTERS 16
#include "kernels.hpp"
#endif
