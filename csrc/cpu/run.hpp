// A whole batch: chunks of images on threads, and what is summed over them.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "scratch.hpp"
#include "table.hpp"
#include "threads.hpp"

namespace pnas::cpu {

// Batch norm of `count` values a channel from their sums and sums of squares. While training, running
// statistics move and `mean`, `rstd` are the batch's; else they are the running ones.
struct Norm {
  const float* gamma;
  const float* beta;
  float* running_mean;
  float* running_variance;
  double momentum, epsilon;
  bool training;
  float* mean;
  float* rstd;
  float* scale;
  float* shift;
};

inline void finish_norm(const Norm& norm, const double* sums, const double* squares, int channels, double count) {
  for (int c = 0; c < channels; ++c) {
    double mean = norm.running_mean[c], variance = norm.running_variance[c];
    if (norm.training) {
      mean = sums[c] / count;
      variance = std::max(squares[c] / count - mean * mean, 0.0);
      const double unbiased = variance * count / std::max(count - 1.0, 1.0);
      norm.running_mean[c] += static_cast<float>(norm.momentum * (mean - norm.running_mean[c]));
      norm.running_variance[c] += static_cast<float>(norm.momentum * (unbiased - norm.running_variance[c]));
      if (std::isnan(squares[c])) variance = squares[c];  // max() above would hide it
    }
    const double rstd = 1.0 / std::sqrt(variance + norm.epsilon);
    norm.mean[c] = static_cast<float>(mean);
    norm.rstd[c] = static_cast<float>(rstd);
    norm.scale[c] = static_cast<float>(norm.gamma[c] * rstd);
    norm.shift[c] = static_cast<float>(norm.beta[c] - mean * norm.gamma[c] * rstd);
  }
}

// From the gradients of a norm's scale and shift: those of gamma and beta, and the terms that batch
// statistics add to each value's own gradient, dz = g + offset + slope * z.
struct NormGradient {
  const float* gamma;
  const float* mean;
  const float* rstd;
  const float* dscale;
  const float* dshift;
  bool training;
  float* dgamma;
  float* dbeta;
  float* offset;
  float* slope;
};

inline void norm_backward(const NormGradient& n, int channels, double count) {
  for (int c = 0; c < channels; ++c) {
    const double mean = n.mean[c], rstd = n.rstd[c], gamma = n.gamma[c];
    const double along = n.dscale[c] - mean * n.dshift[c];
    n.dgamma[c] = static_cast<float>(rstd * along);
    n.dbeta[c] = n.dshift[c];
    const double dvariance = -0.5 * gamma * along * rstd * rstd * rstd;
    const double dmean = -gamma * rstd * n.dshift[c];
    n.slope[c] = n.training ? static_cast<float>(2.0 * dvariance / count) : 0.0f;
    n.offset[c] = n.training ? static_cast<float>((dmean - 2.0 * mean * dvariance) / count) : 0.0f;
  }
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

// Adds up what chunks left, in their order.
template <typename T>
inline void add_chunks(const std::vector<T>& parts, int chunks, std::size_t stride, std::size_t count, T* total) {
  for (int chunk = 0; chunk < chunks; ++chunk)
    for (std::size_t i = 0; i < count; ++i) total[i] += parts[chunk * stride + i];
}

inline void run_separable_forward(const Window& w, const Source& source, const float* depthwise,
                                  const float* pointwise, float* z, double* sums, int threads) {
  const std::size_t stride = 2 * w.filters;
  std::vector<double> parts(chunk_count(w.images) * stride);
  for_chunks(w.images, threads, [&](int chunk, std::int64_t first, std::int64_t last) {
    kernels().separable_forward(w, source, depthwise, pointwise, first, last, z, &parts[chunk * stride]);
  });
  add_chunks(parts, chunk_count(w.images), stride, stride, sums);
}

inline void run_dense_forward(const Window& given, const Source& source, const float* weight, float* z,
                              std::ptrdiff_t z_pixel, double* sums, int threads) {
  const Window w = flattened(given);
  const std::size_t stride = 2 * w.filters;
  std::vector<double> parts(chunk_count(w.images) * stride);
  for_chunks(w.images, threads, [&](int chunk, std::int64_t first, std::int64_t last) {
    kernels().dense_forward(w, source, weight, first, last, z, z_pixel, &parts[chunk * stride]);
  });
  add_chunks(parts, chunk_count(w.images), stride, stride, sums);
}

inline std::ptrdiff_t padded_channels(int channels) { return (channels + 7) / 8 * 8; }

inline void take_affine(const float* total, int channels, const SourceGradient& out) {
  if (!out.scale) return;
  const float* of_shift = total + padded_channels(channels);
  for (int c = 0; c < channels; ++c) {
    out.scale[c] = total[c] + (out.accumulate ? out.scale[c] : 0.0f);
    out.shift[c] = of_shift[c] + (out.accumulate ? out.shift[c] : 0.0f);
  }
}

// Sums over chunks of parts that begin as zeros.
template <typename Work>
inline std::vector<float> summed_parts(std::int64_t items, int threads, std::size_t size, const Work& work) {
  const int chunks = chunk_count(items);
  std::vector<float> parts(chunks * size), total(size);
  for_chunks(items, threads, [&](int chunk, std::int64_t first, std::int64_t last) {
    work(first, last, &parts[chunk * size]);
  });
  add_chunks(parts, chunks, size, size, total.data());
  return total;
}

inline void run_separable_backward(const Window& w, const Source& source, const float* depthwise,
                                   const float* pointwise, const Incoming& incoming, const SourceGradient& dsource,
                                   float* d_depthwise, float* d_pointwise, int threads) {
  const std::ptrdiff_t channels = padded_channels(w.channels), filters = padded_channels(w.filters);
  const std::size_t d_size = Arena::round(w.taps() * channels), p_size = Arena::round(w.channels * filters);
  const std::size_t size = d_size + p_size + Arena::round(2 * channels);
  const auto total = summed_parts(w.images, threads, size, [&](std::int64_t first, std::int64_t last, float* part) {
    kernels().separable_backward(w, source, depthwise, pointwise, incoming, first, last, dsource.z, dsource.accumulate, part);
  });
  for (int c = 0; c < w.channels; ++c) {
    for (int tap = 0; tap < w.taps(); ++tap) d_depthwise[c * w.taps() + tap] = total[tap * channels + c];
    for (int f = 0; f < w.filters; ++f) d_pointwise[f * w.channels + c] = total[d_size + c * filters + f];
  }
  take_affine(&total[d_size + p_size], w.channels, dsource);
}

inline void run_dense_backward(const Window& given, const Source& source, const float* weight, const Incoming& incoming,
                               const SourceGradient& dsource, float* d_weight, int threads) {
  const Window w = flattened(given);
  const std::ptrdiff_t channels = padded_channels(w.channels), filters = padded_channels(w.filters);
  const std::size_t weight_size = Arena::round(w.taps() * w.channels * filters);
  const std::size_t size = weight_size + Arena::round(2 * channels);
  const auto total = summed_parts(w.images, threads, size, [&](std::int64_t first, std::int64_t last, float* part) {
    kernels().dense_backward(w, source, weight, incoming, first, last, dsource.z, dsource.accumulate, part);
  });
  for (int f = 0; f < w.filters; ++f)
    for (int c = 0; c < w.channels; ++c)
      for (int tap = 0; tap < w.taps(); ++tap)
        *d_weight++ = total[(static_cast<std::size_t>(tap) * w.channels + c) * filters + f];
  take_affine(&total[weight_size], w.channels, dsource);
}

inline void run_add_forward(const AddShape& shape, const AddSide* sides, int count, float* out,
                            std::ptrdiff_t out_pixel, int threads) {
  for_chunks(shape.images, threads, [&](int, std::int64_t first, std::int64_t last) {
    kernels().add_forward(shape, sides, count, first, last, out, out_pixel);
  });
}

inline void run_add_backward(const AddShape& shape, const AddSide& side, const float* g, std::ptrdiff_t g_pixel,
                             const SourceGradient& dside, int threads) {
  const std::size_t size = 2 * padded_channels(shape.channels);
  const auto total = summed_parts(shape.images, threads, size, [&](std::int64_t first, std::int64_t last, float* part) {
    kernels().add_backward(shape, side, g, g_pixel, first, last, dside.z, dside.accumulate, part);
  });
  take_affine(total.data(), shape.channels, dside);
}

}  // namespace pnas::cpu
