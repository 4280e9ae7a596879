// Memory that a thread keeps between calls, so that kernels allocate nothing once they are warm.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace pnas::cpu {

class Scratch {
 public:
  ~Scratch() { std::free(memory_); }

  // Room for `floats`, aligned to a cache line; what was there before is lost.
  float* get(std::size_t floats) {
    if (floats > capacity_) {
      std::free(memory_);
      capacity_ = (floats + 15) / 16 * 16;
      memory_ = static_cast<float*>(std::aligned_alloc(64, capacity_ * sizeof(float)));
      if (!memory_) capacity_ = 0, throw std::bad_alloc();
    }
    return memory_;
  }

 private:
  float* memory_ = nullptr;
  std::size_t capacity_ = 0;
};

// Hands out parts of one scratch, each on a cache line of its own.
class Arena {
 public:
  static std::size_t round(std::size_t floats) { return (floats + 15) / 16 * 16; }

  explicit Arena(float* start) : next_(start) {}
  float* take(std::size_t floats) {
    float* part = next_;
    next_ += round(floats);
    return part;
  }

 private:
  float* next_;
};

}  // namespace pnas::cpu
