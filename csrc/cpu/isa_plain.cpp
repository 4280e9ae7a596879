// What every machine of this architecture can run: SSE2 on x86-64, NEON on ARM.
#include "standard.hpp"
#define PNAS_ISA plain
#define PNAS_VECTOR_REGISTERS 16
#include "kernels.hpp"

namespace pnas::cpu {
const Kernels kPlain{"plain", plain::separable_forward, plain::separable_backward, plain::dense_forward,
                     plain::dense_backward, plain::add_forward, plain::add_backward};
}
