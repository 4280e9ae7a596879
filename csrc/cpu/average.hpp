// The head's mean of relu(z) over an image's pixels.
// Included once per instruction set, inside its namespace: no include guard.

// ReLU that lets NaN through.
inline vf positive(vf v) { return v < 0.0f ? vf{} : v; }

// Images [first, last) of out (images, channels).
void average_forward(const AddShape& shape, const Source& source, std::int64_t first, std::int64_t last, float* out) {
  const std::ptrdiff_t pixels = static_cast<std::ptrdiff_t>(shape.out_height) * shape.out_width;
  const vf share = splat(1.0f / pixels);
  for (std::int64_t image = first; image < last; ++image)
    for_lanes(shape.channels, [&](int c, auto n) {
      const float* z = source.z + image * pixels * source.pixel + c;
      vf sum{};
      for (std::ptrdiff_t i = 0; i < pixels; ++i) sum += positive(load(z + i * source.pixel, n));
      store(out + image * shape.channels + c, sum * share, n);
    });
}

// Images [first, last) of the gradient of z from g (images, channels).
void average_backward(const AddShape& shape, const Source& source, const float* g, std::int64_t first,
                      std::int64_t last, const SourceGradient& to) {
  const std::ptrdiff_t pixels = static_cast<std::ptrdiff_t>(shape.out_height) * shape.out_width;
  const vf share = splat(1.0f / pixels);
  for (std::int64_t image = first; image < last; ++image)
    for_lanes(shape.channels, [&](int c, auto n) {
      const vf each = load(g + image * shape.channels + c, n) * share;
      for (std::ptrdiff_t i = image * pixels; i < (image + 1) * pixels; ++i) {
        const vf v = load(source.z + i * source.pixel + c, n) > 0.0f ? each : vf{};
        float* dz = to.z + i * to.pixel + c;
        store(dz, to.accumulate ? load(dz, n) + v : v, n);
      }
    });
}
