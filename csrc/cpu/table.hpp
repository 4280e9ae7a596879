// The kernels of one instruction set, to be chosen among at run time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "geometry.hpp"
#include "sides.hpp"

namespace pnas::cpu {

struct Kernels {
  const char* name;
  void (*separable_forward)(const Window&, const Source&, const float* depthwise, const float* pointwise,
                            std::int64_t first, std::int64_t last, float* z, double* sums);
  void (*separable_backward)(const Window&, const Source&, const float* depthwise, const float* pointwise,
                             const Incoming&, std::int64_t first, std::int64_t last, float* dz, bool accumulate, float* parts);
  void (*dense_forward)(const Window&, const Source&, const float* weight, std::int64_t first, std::int64_t last,
                        float* z, std::ptrdiff_t z_pixel, double* sums);
  void (*dense_backward)(const Window&, const Source&, const float* weight, const Incoming&, std::int64_t first,
                         std::int64_t last, float* dz, bool accumulate, float* parts);
  void (*add_forward)(const AddShape&, const AddSide*, int count, std::int64_t first, std::int64_t last, float* out,
                      std::ptrdiff_t out_pixel);
  void (*add_backward)(const AddShape&, const AddSide&, const float* g, std::ptrdiff_t g_pixel, std::int64_t first,
                       std::int64_t last, float* dz, bool accumulate, float* sums);
};

extern const Kernels kPlain;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
#endif

// The best for this machine; PNAS_FAST_CPU=plain|avx2|avx512 asks for another one it can run.
const Kernels& kernels();

}  // namespace pnas::cpu
