// Batch norm between kernels: from a batch's sums to a scale and a shift, and back.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace pnas::cpu {

// While training, running statistics move, `batches` counts, and `mean`, `rstd` are the batch's; else they are the running
// ones. `scale` and `shift` are what readers of the un-normalised output apply.
struct Norm {
  const float* gamma;
  const float* beta;
  float* running_mean;
  float* running_variance;
  std::int64_t* batches;
  double momentum, epsilon;
  bool training;
  float* mean;
  float* rstd;
  float* scale;
  float* shift;
};

// `sums` and `squares` of `count` values a channel; read while training only.
inline void finish_norm(const Norm& norm, const double* sums, const double* squares, int channels, double count) {
  if (norm.training && norm.batches) ++*norm.batches;
  for (int c = 0; c < channels; ++c) {
    double mean = norm.running_mean ? norm.running_mean[c] : 0.0;
    double variance = norm.running_variance ? norm.running_variance[c] : 1.0;
    if (norm.training) {
      const double batch_mean = sums[c] / count;
      double batch_variance = std::max(squares[c] / count - batch_mean * batch_mean, 0.0);
      if (std::isnan(squares[c])) batch_variance = squares[c];  // max() would hide it
      const double unbiased = batch_variance * count / std::max(count - 1.0, 1.0);
      if (norm.running_mean) norm.running_mean[c] = static_cast<float>(mean + norm.momentum * (batch_mean - mean));
      if (norm.running_variance)
        norm.running_variance[c] = static_cast<float>(variance + norm.momentum * (unbiased - variance));
      mean = batch_mean;
      variance = batch_variance;
    }
    const double rstd = 1.0 / std::sqrt(variance + norm.epsilon);
    norm.mean[c] = static_cast<float>(mean);
    norm.rstd[c] = static_cast<float>(rstd);
    norm.scale[c] = static_cast<float>(norm.gamma[c] * rstd);
    norm.shift[c] = static_cast<float>(norm.beta[c] - mean * norm.gamma[c] * rstd);
  }
}

// From the gradients of a norm's scale and shift: those of gamma and beta, and the terms that batch
// statistics add to each value's own gradient, dz = factor * g + offset + slope * z. Where g is `pending` it has yet to
// be multiplied by the norm's scale; else the factor is 1.
struct NormGradient {
  const float* gamma;
  const float* mean;
  const float* rstd;
  const float* dscale;
  const float* dshift;
  bool training, pending;
  float* dgamma;
  float* dbeta;
};

inline void norm_backward(const NormGradient& n, int channels, double count, float* factor, float* offset,
                          float* slope) {
  for (int c = 0; c < channels; ++c) {
    const double mean = n.mean[c], rstd = n.rstd[c], gamma = n.gamma[c];
    const double along = n.dscale[c] - mean * n.dshift[c];
    n.dgamma[c] = static_cast<float>(rstd * along);
    n.dbeta[c] = n.dshift[c];
    const double dvariance = -0.5 * gamma * along * rstd * rstd * rstd;
    const double dmean = -gamma * rstd * n.dshift[c];
    factor[c] = n.pending ? static_cast<float>(gamma * rstd) : 1.0f;
    slope[c] = n.training ? static_cast<float>(2.0 * dvariance / count) : 0.0f;
    offset[c] = n.training ? static_cast<float>((dmean - 2.0 * mean * dvariance) / count) : 0.0f;
  }
}

}  // namespace pnas::cpu
