// Everything from outside that the kernels use, to be included before an instruction set is chosen.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>

#include "geometry.hpp"
#include "points.hpp"
#include "scratch.hpp"
#include "sides.hpp"
#include "table.hpp"

// Loops over arrays that must stay in registers have to be unrolled before registers are given out.
#if defined(__clang__)
#define PNAS_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PNAS_UNROLL _Pragma("GCC unroll 64")
#endif
