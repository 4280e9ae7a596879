// The kernels of one instruction set, to be chosen among at run time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "geometry.hpp"
#include "sides.hpp"

namespace pnas::cpu {

struct Kernels {
  const char* name;
  int lanes;  // channels are worked on, and padded with zeros where they are packed, in groups of so many
  void (*separable_forward)(const Window&, const Source&, const float* depthwise, const float* pointwise,
                            std::int64_t first, std::int64_t last, const Output&, double* sums);
  void (*separable_backward)(const Window&, const Source&, const float* depthwise, const float* pointwise,
                             const Incoming&, std::int64_t first, std::int64_t last, const SourceGradient&,
                             float* parts);
  void (*dense_forward)(const Window&, const Source&, const float* weight, std::int64_t first, std::int64_t last,
                        const Output&, double* sums);
  void (*dense_backward)(const Window&, const Source&, const float* weight, const Incoming&, std::int64_t first,
                         std::int64_t last, const SourceGradient&, float* parts);
  void (*add_forward)(const AddShape&, const AddSide*, int count, std::int64_t first, std::int64_t last, const Output&);
  void (*add_backward)(const AddShape&, const AddSide&, const float* g, std::ptrdiff_t g_pixel, std::int64_t first,
                       std::int64_t last, const SourceGradient&, float* sums);
  void (*average_forward)(const AddShape&, const Source&, std::int64_t first, std::int64_t last, float* out);
  void (*average_backward)(const AddShape&, const Source&, const float* g, std::int64_t first, std::int64_t last,
                           const SourceGradient&);
};

namespace plain { extern const Kernels kTable; }
#if defined(__x86_64__)
namespace avx2 { extern const Kernels kTable; }
namespace avx512vl { extern const Kernels kTable; }
namespace avx512 { extern const Kernels kTable; }
#endif

// What PNAS_FAST_CPU says now; empty where it is not set. Nothing else reads it.
const char* asked_for();

// The best for this machine; PNAS_FAST_CPU=plain|avx2|avx512vl|avx512 asks for another one it can run.
const Kernels& kernels();

inline std::ptrdiff_t padded(std::ptrdiff_t channels) {
  const int lanes = kernels().lanes;
  return (channels + lanes - 1) / lanes * lanes;
}

}  // namespace pnas::cpu
