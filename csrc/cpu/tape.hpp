// Calls as values, so that those of a step can be kept and made again, one after another, without Python.
#pragma once

#include <functional>
#include <vector>

#include "augment.hpp"
#include "run.hpp"

namespace pnas::cpu {

struct ConvolutionForward {
  Kind kind;
  Window window;
  Source source;
  Weight weights[2];
  Output out;
  bool normalised;
  Norm norm;
  int threads;

  void operator()() const {
    convolution_forward(kind, window, source, weights, out, normalised ? &norm : nullptr, threads);
  }
};

struct ConvolutionBackward {
  Kind kind;
  Window window;
  Source source;
  Weight weights[2];
  Incoming incoming;
  bool normalised;
  NormGradient norm;
  SourceGradient gradient;
  Weight gradients[2];
  int threads;

  void operator()() const {
    convolution_backward(kind, window, source, weights, incoming, normalised ? &norm : nullptr, gradient, gradients,
                         threads);
  }
};

struct AddForward {
  AddShape shape;
  AddSide sides[2];
  int count;
  Output out;
  int threads;

  void operator()() const { run_add_forward(shape, sides, count, out, threads); }
};

struct AddBackward {
  AddShape shape;
  AddSide sides[2];
  SourceGradient gradients[2];
  int count;
  const float* g;
  std::ptrdiff_t g_pixel;
  int threads;

  void operator()() const { run_add_backward(shape, sides, gradients, count, g, g_pixel, threads); }
};

struct AverageForward {
  AddShape shape;
  Source source;
  float* out;
  int threads;

  void operator()() const { run_average_forward(shape, source, out, threads); }
};

struct AverageBackward {
  AddShape shape;
  Source source;
  const float* g;
  SourceGradient gradient;
  int threads;

  void operator()() const { run_average_backward(shape, source, g, gradient, threads); }
};

template <typename T>
struct Augment {
  AugmentShape shape;
  const std::uint8_t* images;
  const AugmentRow* rows;
  const T* table;
  T* out;
  int threads;

  void operator()() const { augment(shape, images, rows, table, out, threads); }
};

// Calls in the order in which they were made. Addresses are kept as they are: whose memory it is must stay.
class Tape {
 public:
  template <typename Call>
  void add(const Call& call) {
    calls_.emplace_back(call);
  }
  void run() const {
    for (const auto& call : calls_) call();
  }
  int size() const { return static_cast<int>(calls_.size()); }

 private:
  std::vector<std::function<void()>> calls_;
};

// The tape that this thread's calls are added to; null where nobody records.
inline Tape*& recording() {
  thread_local Tape* tape = nullptr;
  return tape;
}

inline void record(Tape* tape) { recording() = tape; }
inline bool records(const Tape* tape) { return recording() == tape; }

// Makes a call; one that fails is not kept.
template <typename Call>
void perform(const Call& call) {
  call();
  if (recording()) recording()->add(call);
}

}  // namespace pnas::cpu
