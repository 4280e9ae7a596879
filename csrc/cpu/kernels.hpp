// All kernels for one instruction set. The including file defines PNAS_ISA (a namespace and the name of
// its table) and PNAS_VECTOR_REGISTERS, and has switched the compiler to the instruction set *after* the
// headers below, so that no function of the standard library is compiled for more than every machine has.

namespace pnas::cpu::PNAS_ISA {

#include "vector.hpp"
#include "product.hpp"
#include "spread.hpp"
#include "plane.hpp"
#include "separable.hpp"
#include "dense.hpp"
#include "add.hpp"

}  // namespace pnas::cpu::PNAS_ISA
