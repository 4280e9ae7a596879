// Choosing an instruction set once, when the first kernel is asked for.
#include <cstdlib>
#include <cstring>

#include "table.hpp"

namespace pnas::cpu {
namespace {

const Kernels& choose() {
  const char* wish = std::getenv("PNAS_FAST_CPU");
  const auto wanted = [&](const Kernels& set) { return !wish || !*wish || std::strcmp(wish, set.name) == 0; };
#if defined(__x86_64__)
  if (wanted(avx512::kTable) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
    return avx512::kTable;
  if (wanted(avx2::kTable) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::kTable;
#endif
  return plain::kTable;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace pnas::cpu
