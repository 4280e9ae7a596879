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
  if (wanted(kAvx512) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
    return kAvx512;
  if (wanted(kAvx2) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kAvx2;
#endif
  return kPlain;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace pnas::cpu
