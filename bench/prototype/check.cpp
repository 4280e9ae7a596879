// The prototype on a CPU, one image, beside fp64. Every line of what it prints is one result of one run: kernel, which
// warp and lane come first, the barrier that was left out or -, what was computed, and its relative error, the norm of
// the difference over the norm of what is right. With an argument barriers are left out, one at a time.
//
//     g++ -std=c++17 -O2 -DTAPS=5 -DWARPS=8 -o check check.cpp && ./check
#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <type_traits>

#include "forward.cu"
#if WARPS == 8
#include "backward.cu"
#endif

using Doubles = std::vector<double>;
using Floats = std::vector<float>;
using Halves = std::vector<bf16>;
using Results = std::map<std::string, Doubles>;

constexpr int kPixels = H * W;

template <typename T> Doubles wide(const std::vector<T> &values) {
  Doubles found;
  for (T value : values) {
    if constexpr (std::is_same_v<T, bf16>)
      found.push_back(lower(value));
    else
      found.push_back(value);
  }
  return found;
}

struct Problem {
  std::mt19937 numbers{K};
  Halves z = halves(kPixels * C), result = halves(kPixels * F), g = halves(kPixels * F), before = halves(kPixels * C);
  Floats affine = floats(2 * C), depthwise = floats(K * K * C), pointwise = floats(F * C), norm = floats(2 * F);

  Floats floats(int count) {
    std::normal_distribution<float> normal;
    Floats found(count);
    for (float &value : found) value = normal(numbers);
    return found;
  }
  Halves halves(int count) {
    Halves found;
    for (float value : floats(count)) found.push_back(static_cast<bf16>(fibers::rounded(value)));
    return found;
  }
};

// Calls take(y, x, i, j, pixel that tap (i, j) of output (y, x) reads) where there is one.
template <typename Take> void each_tap(Take take) {
  constexpr int rows = H, columns = W, taps = K, padding = PADDING;
  for (int pixel = 0; pixel < kPixels; ++pixel)
    for (int tap = 0; tap < taps * taps; ++tap) {
      const int y = pixel / columns + tap / taps - padding, x = pixel % columns + tap % taps - padding;
      if (y >= 0 && y < rows && x >= 0 && x < columns) take(pixel, tap, y * columns + x);
    }
}

Results expected(const Problem &p) {
  const Doubles z = wide(p.z), affine = wide(p.affine), depthwise = wide(p.depthwise), pointwise = wide(p.pointwise);
  const Doubles result = wide(p.result), g = wide(p.g), norm = wide(p.norm), before = wide(p.before);
  Doubles r(z), d(z.size()), dd(z.size()), dr(z.size()), d_result(g);
  for (unsigned at = 0; at < z.size(); ++at) r[at] = std::max(0.0, z[at] * affine[at % C] + affine[C + at % C]);
  for (unsigned at = 0; at < g.size(); ++at) d_result[at] += norm[at % F] + norm[F + at % F] * result[at];
  Results found{{"out", Doubles(g.size())},
                {"sums", Doubles(2 * F)},
                {"into, written", Doubles(z.size())},
                {"into, added to", before},
                {"d_affine", Doubles(2 * C)},
                {"d_depthwise", Doubles(K * K * C)},
                {"d_pointwise", Doubles(F * C)}};
  each_tap([&](int to, int tap, int from) {
    for (unsigned c = 0; c < C; ++c) d[to * C + c] += depthwise[tap * C + c] * r[from * C + c];
  });
  for (int pixel = 0; pixel < kPixels; ++pixel)
    for (unsigned f = 0; f < F; ++f) {
      double &out = found["out"][pixel * F + f];
      for (unsigned c = 0; c < C; ++c) {
        out += pointwise[f * C + c] * d[pixel * C + c];
        dd[pixel * C + c] += pointwise[f * C + c] * d_result[pixel * F + f];
        found["d_pointwise"][f * C + c] += d_result[pixel * F + f] * d[pixel * C + c];
      }
      found["sums"][f] += out;
      found["sums"][F + f] += out * out;
    }
  each_tap([&](int to, int tap, int from) {
    for (unsigned c = 0; c < C; ++c) {
      dr[from * C + c] += depthwise[tap * C + c] * dd[to * C + c];
      found["d_depthwise"][tap * C + c] += dd[to * C + c] * r[from * C + c];
    }
  });
  for (unsigned at = 0; at < z.size(); ++at) {
    const double passed = r[at] > 0 ? dr[at] : 0, dz = passed * affine[at % C];
    found["into, added to"][at] += dz;
    found["into, written"][at] = dz;
    found["d_affine"][at % C] += passed * z[at];
    found["d_affine"][C + at % C] += passed;
  }
  return found;
}

struct Check {
  Problem problem;
  Results right = expected(problem);

  void compare(const char *kernel, fibers::Order order, int omitted, const char *name, const Doubles &got) {
    double wrong = 0, norm = 0;
    const Doubles &best = right[name];
    for (unsigned at = 0; at < best.size(); ++at) {
      wrong += (got[at] - best[at]) * (got[at] - best[at]);
      norm += best[at] * best[at];
    }
    const std::string barrier = omitted < 0 ? "-" : std::to_string(omitted);
    const char *ahead = order == fibers::Order::kForward ? "first" : "last";
    std::printf("%s\t%s\t%s\t%s\t%.3e\n", kernel, ahead, barrier.c_str(), name, std::sqrt(wrong / norm));
  }

  unsigned forward(fibers::Order order, int omitted) {
    const Problem &p = problem;
    Halves out(kPixels * F, 0x7fc0); // NaN
    Floats sums(2 * F, NAN);
    const unsigned left_out = static_cast<unsigned>(omitted);
    const unsigned barriers = fibers::run_block(THREADS, FORWARD_BYTES, order, left_out, [&] {
      separable_forward(p.z.data(), p.affine.data(), p.depthwise.data(), p.pointwise.data(), out.data(), sums.data());
    });
    compare("forward", order, omitted, "out", wide(out));
    compare("forward", order, omitted, "sums", wide(sums));
    return barriers;
  }

#if WARPS == 8
  unsigned backward(fibers::Order order, int omitted, bool accumulate) {
    const Problem &p = problem;
    Halves into = accumulate ? p.before : Halves(kPixels * C, 0x7fc0);
    Floats d_affine(2 * C, NAN), d_depthwise(K * K * C, NAN), d_pointwise(F * C, NAN);
    const unsigned left_out = static_cast<unsigned>(omitted);
    const unsigned barriers = fibers::run_block(THREADS, BACKWARD_BYTES, order, left_out, [&] {
      separable_backward(p.z.data(), p.affine.data(), p.depthwise.data(), p.pointwise.data(), p.result.data(),
                         p.g.data(), p.norm.data(), into.data(), accumulate, d_affine.data(), d_depthwise.data(),
                         d_pointwise.data());
    });
    compare("backward", order, omitted, accumulate ? "into, added to" : "into, written", wide(into));
    compare("backward", order, omitted, "d_affine", wide(d_affine));
    compare("backward", order, omitted, "d_depthwise", wide(d_depthwise));
    compare("backward", order, omitted, "d_pointwise", wide(d_pointwise));
    return barriers;
  }
#endif
};

int main(int count, char **) {
  const bool leave_out = count > 1;
  Check check;
  for (fibers::Order order : {fibers::Order::kForward, fibers::Order::kBackward}) {
    const unsigned forward = check.forward(order, -1);
    for (unsigned barrier = 0; leave_out && barrier < forward; ++barrier)
      check.forward(order, static_cast<int>(barrier));
#if WARPS == 8
    const unsigned backward = check.backward(order, -1, false);
    check.backward(order, -1, true);
    for (unsigned barrier = 0; leave_out && barrier < backward; ++barrier)
      check.backward(order, static_cast<int>(barrier), false);
#endif
    if (leave_out) return 0; // one order shows it
  }
}
