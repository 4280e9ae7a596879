// Choosing an instruction set once, when the first kernel is asked for.
#include <cstdlib>
#include <cstring>

#include "table.hpp"

namespace pnas::cpu {
namespace {

#if defined(__x86_64__)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

const Kernels& choose() {
  const char* wish = asked_for();
  const bool any = !*wish;
  const auto wanted = [&](const Kernels& set) { return any || std::strcmp(wish, set.name) == 0; };
#if defined(__x86_64__)
  const bool halves = __builtin_cpu_is("amdfam19h");  // Zen 4: 512 bits in two cycles
  if (wanted(avx512::kTable) && has_avx512() && !(halves && any)) return avx512::kTable;
  if (wanted(avx512vl::kTable) && has_avx512()) return avx512vl::kTable;
  if (wanted(avx2::kTable) && has_avx2()) return avx2::kTable;
#endif
  return plain::kTable;
}

}  // namespace

const char* asked_for() {
  const char* wish = std::getenv("PNAS_FAST_CPU");
  return wish ? wish : "";
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace pnas::cpu
