// What every machine of this architecture can run: SSE2 on x86-64, NEON on ARM.
#include "standard.hpp"
#define PNAS_ISA plain
#define PNAS_ISA_NAME "plain"
#define PNAS_LANES 8
#define PNAS_VECTOR_REGISTERS 16
#include "kernels.hpp"
