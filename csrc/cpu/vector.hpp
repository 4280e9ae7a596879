// Eight floats at a time, in whatever registers the instruction set being compiled for has.
// Included once per instruction set, inside its namespace (see kernels.hpp): no include guard.

typedef float vf __attribute__((vector_size(32), aligned(4), may_alias));
typedef int vi __attribute__((vector_size(32), aligned(4), may_alias));
constexpr int kLanes = 8;

inline vf load(const float* p) { return *reinterpret_cast<const vf*>(p); }
inline void store(float* p, vf v) { *reinterpret_cast<vf*>(p) = v; }
inline vf splat(float x) { return vf{x, x, x, x, x, x, x, x}; }

// The first n < 8 floats, zeros after them; memory past them is not touched.
inline vf load_some(const float* p, int n) {
  vf v{};
  std::memcpy(&v, p, n * sizeof(float));
  return v;
}
inline void store_some(float* p, vf v, int n) { std::memcpy(p, &v, n * sizeof(float)); }

// Calls f(channel, n) for each group of channels, n of them: 8, and at last what is left.
template <typename F>
inline void for_lanes(int channels, const F& f) {
  int c = 0;
  for (; c + kLanes <= channels; c += kLanes) f(c, kLanes);
  if (c < channels) f(c, channels - c);
}
inline vf load_n(const float* p, int n) { return n == kLanes ? load(p) : load_some(p, n); }
inline void store_n(float* p, vf v, int n) { n == kLanes ? store(p, v) : store_some(p, v, n); }

// ReLU that lets NaN through, as PyTorch's does.
inline vf rectified(vf v) { return v < 0.0f ? vf{} : v; }
