// A whole batch of one operation: its weights packed, chunks of images on threads, and what they leave
// summed in a fixed order.
#pragma once

#include <cstring>

#include "norm.hpp"
#include "pack.hpp"
#include "scratch.hpp"
#include "table.hpp"
#include "threads.hpp"

namespace pnas::cpu {

enum class Kind : int { separable = 0, dense = 1, factorized = 2 };

// Memory of the calling thread for one call; the kernels have scratch of their own.
inline Scratch& workspace() {
  thread_local Scratch scratch;
  return scratch;
}

// A pointwise convolution does not care what an image is: pieces that fit the first-level cache.
inline Window flattened(Window w) {
  if (w.taps() > 1 || w.stride_height > 1 || w.stride_width > 1 || w.skip) return w;
  int rows = w.images * w.height, width = w.width;
  while (rows % 2 == 0 && width < 64) rows /= 2, width *= 2;
  w.images = rows;
  w.height = w.out_height = 1;
  w.width = w.out_width = width;
  return w;
}

// Sums of a chunk lie so many floats from those of the next: a processor that fetches cache lines in pairs would else
// take them from the one that adds to them.
inline std::size_t apart(std::size_t floats) { return (floats + 31) / 32 * 32; }

// parts: chunks of `size` values. The first becomes the sum of all, in their order; a piece at a time, so that sums stay
// in the first-level cache.
template <typename T>
inline void add_chunks(T* parts, int chunks, std::size_t size) {
  constexpr std::size_t piece = 2048;
  for (std::size_t first = 0; first < size; first += piece) {
    const std::size_t count = std::min(piece, size - first);
    T* sum = parts + first;
    for (int chunk = 1; chunk < chunks; ++chunk) {
      const T* part = sum + chunk * size;
      for (std::size_t i = 0; i < count; ++i) sum[i] += part[i];
    }
  }
}

// One convolution with the part of the output's channels that it writes.
struct Part {
  Window w;
  const Weight* weights;  // separable: depthwise, pointwise
  int first_filter;
};

// The parts of a convolution: one, or the two paths of a factorized reduction.
inline int split(Kind kind, const Window& w, const Weight* weights, Part* parts) {
  if (kind != Kind::factorized) {
    parts[0] = {kind == Kind::dense ? flattened(w) : w, weights, 0};
    return 1;
  }
  Part even{w, weights, 0}, odd{w, weights + 1, w.filters / 2};
  even.w.filters = w.filters / 2;
  odd.w.filters = w.filters - w.filters / 2;
  odd.w.skip = 1;
  int count = 0;
  if (even.w.filters > 0) parts[count++] = even;
  parts[count++] = odd;
  return count;
}

inline std::int64_t multiply_adds(Kind kind, const Window& w) {
  const std::int64_t pixels = static_cast<std::int64_t>(w.images) * w.out_height * w.out_width;
  return pixels * w.channels * (kind == Kind::separable ? w.taps() + w.filters : w.taps() * w.filters);
}

// An addition reads and writes; a value of it takes about as long as so many multiply-adds.
constexpr int kAddition = 16;
inline int add_chunk_count(const AddShape& shape) {
  const std::int64_t values =
      static_cast<std::int64_t>(shape.images) * shape.channels * shape.out_height * shape.out_width;
  return chunk_count(shape.images, values * kAddition);
}

// Gradients of weights are summed over chunks, which with fewer pixels in each takes as long as a good part of the rest.
constexpr std::int64_t kChunkPixels = 512;
inline int backward_chunk_count(Kind kind, const Window& w) {
  const std::int64_t pixels = static_cast<std::int64_t>(w.images) * w.out_height * w.out_width;
  const int most = chunk_count(w.images, multiply_adds(kind, w));
  return static_cast<int>(std::min<std::int64_t>(most, std::max<std::int64_t>(kSmallWork, pixels / kChunkPixels)));
}

// Sums go to sums[first_filter...] and squares[first_filter...].
inline void forward_part(Kind kind, const Part& part, const Source& source, const Output& output, double* sums,
                         double* squares, int threads) {
  const Window& w = part.w;
  const bool separable = kind == Kind::separable;
  const int taps = separable ? 1 : w.taps(), chunks = chunk_count(w.images, multiply_adds(kind, w));
  const std::size_t d_size = separable ? Arena::round(depthwise_size(w)) : 0, size = 2 * w.filters;
  Arena arena(workspace().get(d_size + Arena::round(dense_size(w, taps)) + Arena::round(2 * chunks * size)));
  float* depthwise = arena.take(d_size);
  float* weight = arena.take(dense_size(w, taps));
  auto* chunk_sums = reinterpret_cast<double*>(arena.take(2 * chunks * size));
  if (separable) pack_depthwise(w, part.weights[0], depthwise);
  pack_dense(w, part.weights[separable ? 1 : 0], taps, weight);
  std::memset(chunk_sums, 0, sizeof(double) * chunks * size);
  const Output out{output.z + part.first_filter, output.pixel};
  for_chunks(w.images, chunks, threads, [&](int chunk, std::int64_t first, std::int64_t last) {
    double* mine = chunk_sums + chunk * size;
    if (separable) kernels().separable_forward(w, source, depthwise, weight, first, last, out, mine);
    else kernels().dense_forward(w, source, weight, first, last, out, mine);
  });
  add_chunks(chunk_sums, chunks, size);
  std::memcpy(sums + part.first_filter, chunk_sums, sizeof(double) * w.filters);
  std::memcpy(squares + part.first_filter, chunk_sums + w.filters, sizeof(double) * w.filters);
}

// z of a convolution, and the norm of the batch unless `norm` is null.
inline void convolution_forward(Kind kind, const Window& w, const Source& source, const Weight* weights,
                                const Output& output, const Norm* norm, int threads) {
  thread_local Scratch scratch;
  auto* sums = reinterpret_cast<double*>(scratch.get(4 * w.filters));
  Part parts[2];
  const int count = split(kind, w, weights, parts);
  for (int i = 0; i < count; ++i) forward_part(kind, parts[i], source, output, sums, sums + w.filters, threads);
  if (norm) finish_norm(*norm, sums, sums + w.filters, w.filters, 1.0 * w.images * w.out_height * w.out_width);
}

inline void take_affine(const float* total, int channels, const SourceGradient& out) {
  if (!out.scale) return;
  const float* of_shift = total + padded(channels);
  for (int c = 0; c < channels; ++c) {
    out.scale[c] = total[c] + (out.accumulate ? out.scale[c] : 0.0f);
    out.shift[c] = of_shift[c] + (out.accumulate ? out.shift[c] : 0.0f);
  }
}

inline void backward_part(Kind kind, const Part& part, const Source& source, const Incoming& whole,
                          const SourceGradient& to, const Weight* gradients, int threads) {
  const Window& w = part.w;
  const bool separable = kind == Kind::separable;
  const int taps = separable ? 1 : w.taps(), chunks = backward_chunk_count(kind, w);
  const std::size_t d_size = separable ? depthwise_size(w) : 0;
  const std::size_t size = apart(d_size + dense_size(w, taps) + 2 * padded(w.channels));
  Arena arena(workspace().get(Arena::round(d_size) + Arena::round(dense_back_size(w, taps)) + chunks * size));
  float* depthwise = arena.take(d_size);
  float* weight = arena.take(dense_back_size(w, taps));
  float* sums = arena.take(chunks * size);
  if (separable) pack_depthwise(w, part.weights[0], depthwise);
  pack_dense_back(w, part.weights[separable ? 1 : 0], taps, weight);
  Incoming incoming = whole;
  incoming.g += part.first_filter, incoming.z += part.first_filter;
  for (const float** terms : {&incoming.factor, &incoming.offset, &incoming.slope})
    if (*terms) *terms += part.first_filter;
  for_chunks(w.images, chunks, threads, [&](int chunk, std::int64_t first, std::int64_t last) {
    float* mine = sums + chunk * size;
    std::memset(mine, 0, sizeof(float) * size);
    if (separable) kernels().separable_backward(w, source, depthwise, weight, incoming, first, last, to, mine);
    else kernels().dense_backward(w, source, weight, incoming, first, last, to, mine);
  });
  add_chunks(sums, chunks, size);
  if (separable) unpack_depthwise(w, sums, gradients[0]);
  unpack_dense(w, sums + d_size, taps, gradients[separable ? 1 : 0]);
  if (to.z) take_affine(sums + d_size + dense_size(w, taps), w.channels, to);
}

// Gradients of a convolution's source and weights, and of its norm unless `norm` is null.
inline void convolution_backward(Kind kind, const Window& w, const Source& source, const Weight* weights,
                                 Incoming incoming, const NormGradient* norm, SourceGradient to,
                                 const Weight* gradients, int threads) {
  thread_local Scratch scratch;
  if (norm) {
    float* factor = scratch.get(3 * w.filters);
    float *offset = factor + w.filters, *slope = offset + w.filters;
    norm_backward(*norm, w.filters, 1.0 * w.images * w.out_height * w.out_width, factor, offset, slope);
    incoming.factor = factor, incoming.offset = offset, incoming.slope = slope;
  }
  Part parts[2];
  const int count = split(kind, w, weights, parts);
  for (int i = 0; i < count; ++i, to.accumulate = true)
    backward_part(kind, parts[i], source, incoming, to, gradients + (parts[i].weights - weights), threads);
}

inline void run_add_forward(const AddShape& shape, const AddSide* sides, int count, const Output& output,
                            int threads) {
  for_chunks(shape.images, add_chunk_count(shape), threads, [&](int, std::int64_t first, std::int64_t last) {
    kernels().add_forward(shape, sides, count, first, last, output);
  });
}

// Gradients of one side of an addition, or of both: one after the other for each chunk, while its part of g is in a cache.
inline void run_add_backward(const AddShape& shape, const AddSide* sides, const SourceGradient* to, int count,
                             const float* g, std::ptrdiff_t g_pixel, int threads) {
  const std::size_t size = apart(2 * padded(shape.channels));
  const int chunks = add_chunk_count(shape);
  float* sums = workspace().get(count * chunks * size);
  std::memset(sums, 0, sizeof(float) * count * chunks * size);
  for_chunks(shape.images, chunks, threads, [&](int chunk, std::int64_t first, std::int64_t last) {
    for (int s = 0; s < count; ++s)
      kernels().add_backward(shape, sides[s], g, g_pixel, first, last, to[s], sums + (s * chunks + chunk) * size);
  });
  for (int s = 0; s < count; ++s, sums += chunks * size) {
    add_chunks(sums, chunks, size);
    take_affine(sums, shape.channels, to[s]);
  }
}

inline void run_average_forward(const AddShape& shape, const Source& source, float* out, int threads) {
  for_chunks(shape.images, add_chunk_count(shape), threads, [&](int, std::int64_t first, std::int64_t last) {
    kernels().average_forward(shape, source, first, last, out);
  });
}

inline void run_average_backward(const AddShape& shape, const Source& source, const float* g,
                                 const SourceGradient& to, int threads) {
  for_chunks(shape.images, add_chunk_count(shape), threads, [&](int, std::int64_t first, std::int64_t last) {
    kernels().average_backward(shape, source, g, first, last, to);
  });
}

}  // namespace pnas::cpu
