// Everything from outside that the kernels use, to be included before an instruction set is chosen.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "geometry.hpp"
#include "scratch.hpp"
#include "sides.hpp"
#include "table.hpp"
