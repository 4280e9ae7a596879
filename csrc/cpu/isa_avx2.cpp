#if defined(__x86_64__)
#include "standard.hpp"
#pragma GCC target("avx2,fma")
#define PNAS_ISA avx2
#define PNAS_VECTOR_REGISTERS 16
#include "kernels.hpp"

namespace pnas::cpu {
const Kernels kAvx2{"avx2", avx2::separable_forward, avx2::separable_backward, avx2::dense_forward,
                    avx2::dense_backward, avx2::add_forward, avx2::add_backward};
}
#endif
