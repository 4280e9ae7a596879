// All kernels for one instruction set. The including file defines PNAS_ISA (a namespace), PNAS_ISA_NAME
// (its name), PNAS_LANES (floats in a vector) and PNAS_VECTOR_REGISTERS, PNAS_MASKS where loads and stores can be
// masked, and has switched the compiler to the instruction set *after* the headers of standard.hpp, so that no function of the standard library is compiled for more than every machine has.

namespace pnas::cpu::PNAS_ISA {

#include "vector.hpp"
#include "product.hpp"
#include "spread.hpp"
#include "plane.hpp"
#include "separable.hpp"
#include "winograd.hpp"
#include "dense.hpp"
#include "pool.hpp"
#include "add.hpp"
#include "average.hpp"

extern const Kernels kTable;
const Kernels kTable{PNAS_ISA_NAME, PNAS_LANES,   separable_forward, separable_backward, dense_forward,
                     dense_backward, add_forward, add_backward,      average_forward,    average_backward};

}  // namespace pnas::cpu::PNAS_ISA
