// PNAS_LANES floats at a time, in whatever registers the instruction set being compiled for has.
// Included once per instruction set, inside its namespace (see kernels.hpp): no include guard.

constexpr int kLanes = PNAS_LANES;
constexpr int kVectorBytes = kLanes * sizeof(float);
typedef float vf __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
typedef int vi __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));

inline vf load(const float* p) { return *reinterpret_cast<const vf*>(p); }
inline void store(float* p, vf v) { *reinterpret_cast<vf*>(p) = v; }
inline vf splat(float x) { return x - vf{}; }
inline vf greater(vf a, vf b) { return a > b ? a : b; }  // b where one is NaN

// How many floats of a vector count: all of them, or the first n. Loops are compiled for each.
struct All {};
struct First {
  int n;
};

inline vf load(const float* p, All) { return load(p); }
inline void store(float* p, vf v, All) { store(p, v); }

// Zeros after the first n; memory past them is not touched. Without masks that takes a call.
#ifdef PNAS_MASKS
constexpr bool kMasks = true;
#else
constexpr bool kMasks = false;
#endif
#if defined(PNAS_MASKS) && PNAS_LANES == 16
inline vf load(const float* p, First some) { return (vf)_mm512_maskz_loadu_ps((1u << some.n) - 1, p); }
inline void store(float* p, vf v, First some) { _mm512_mask_storeu_ps(p, (1u << some.n) - 1, (__m512)v); }
#elif defined(PNAS_MASKS)
inline vf load(const float* p, First some) { return (vf)_mm256_maskz_loadu_ps((1u << some.n) - 1, p); }
inline void store(float* p, vf v, First some) { _mm256_mask_storeu_ps(p, (1u << some.n) - 1, (__m256)v); }
#else
inline vf load(const float* p, First some) {
  vf v{};
  std::memcpy(&v, p, some.n * sizeof(float));
  return v;
}
inline void store(float* p, vf v, First some) { std::memcpy(p, &v, some.n * sizeof(float)); }
#endif

// Calls f(channel, count) for each vector of channels, the last of which may be partly full.
template <typename F>
inline void for_lanes(int channels, const F& f) {
  int c = 0;
  for (; c + kLanes <= channels; c += kLanes) f(c, All{});
  if (c < channels) f(c, First{channels - c});
}

// The same with four vectors at a time as long as there are as many: f(channel, count, std::integral_constant
// of how many). For loops that walk over pixels inside: two whole cache lines of each are worth the way.
template <typename F>
inline void for_groups(int channels, const F& f) {
  int c = 0;
  for (; c + 4 * kLanes <= channels; c += 4 * kLanes) f(c, All{}, std::integral_constant<int, 4>{});
  if (c + 3 * kLanes <= channels) f(c, All{}, std::integral_constant<int, 3>{}), c += 3 * kLanes;
  if (c + 2 * kLanes <= channels) f(c, All{}, std::integral_constant<int, 2>{}), c += 2 * kLanes;
  if (c + kLanes <= channels) f(c, All{}, std::integral_constant<int, 1>{}), c += kLanes;
  if (c < channels) f(c, First{channels - c}, std::integral_constant<int, 1>{});
}

// In a loop over pixels that does little with each: what it will read, or write, some pixels on. All cache lines of V
// vectors.
template <int V = 1>
inline void ask_ahead(const float* p, std::ptrdiff_t step) {
  constexpr int line = std::max(1, 64 / kVectorBytes);
  PNAS_UNROLL for (int v = 0; v < V; v += line) __builtin_prefetch(p + 32 * step + v * kLanes, 0, 2);
}

// Calls f(std::true_type or std::false_type): a choice made outside the loops that depend on it.
template <typename F>
inline void choose(bool condition, const F& f) {
  if (condition) f(std::true_type{});
  else f(std::false_type{});
}

constexpr std::ptrdiff_t padded(std::ptrdiff_t channels) { return (channels + kLanes - 1) / kLanes * kLanes; }
