// Images of a batch: chosen, cropped, mirrored, normalised by table. See pnas_fast.kernels.augment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "threads.hpp"

namespace pnas::cpu {

struct AugmentShape {
  int images, channels, height, width;  // of the batch
  int padding, cutout;
  int known;  // images of the data set
};

struct AugmentRow {
  std::int32_t image, top, left, mirror, centre_y, centre_x;
};

// Whether a place along one axis is in the square that is blanked out.
inline bool in_square(int place, int centre, int cutout) {
  const std::int64_t first = static_cast<std::int64_t>(centre) - cutout / 2;
  return place >= first && place < first + cutout;
}

// One row of pixels. T is as wide as a value of the table, whose bits are copied.
template <typename T>
inline void augment_line(const AugmentShape& shape, const AugmentRow& row, const std::uint8_t* line, const T* table,
                         bool square, T* out) {
  const int shift = row.left - shape.padding;
  for (int x = 0; x < shape.width; ++x, out += shape.channels) {
    const int from = (row.mirror == 1 ? shape.width - 1 - x : x) + shift;
    const bool blank = !line || from < 0 || from >= shape.width || (square && in_square(x, row.centre_x, shape.cutout));
    for (int c = 0; c < shape.channels; ++c)
      out[c] = blank ? T{} : table[256 * c + line[static_cast<std::ptrdiff_t>(from) * shape.channels + c]];
  }
}

// Rows are values, which differ in every call: they are looked at here, each time.
inline void check_rows(const AugmentShape& shape, const AugmentRow* rows) {
  const auto outside = [](std::int32_t value, std::int64_t end) { return value < 0 || value >= end; };
  const std::int64_t crops = 2 * static_cast<std::int64_t>(shape.padding) + 1;
  for (int i = 0; i < shape.images; ++i)
    if (outside(rows[i].image, shape.known) || outside(rows[i].top, crops) || outside(rows[i].left, crops))
      throw std::invalid_argument(
          "augment: row " + std::to_string(i) + " (image, top, left) is (" + std::to_string(rows[i].image) + ", " +
          std::to_string(rows[i].top) + ", " + std::to_string(rows[i].left) + "), allowed is up to (" +
          std::to_string(shape.known - 1) + ", " + std::to_string(crops - 1) + ", " + std::to_string(crops - 1) +
          ")");
}

template <typename T>
void augment(const AugmentShape& shape, const std::uint8_t* images, const AugmentRow* rows, const T* table, T* out,
             int threads) {
  check_rows(shape, rows);
  const std::ptrdiff_t line = static_cast<std::ptrdiff_t>(shape.width) * shape.channels, size = shape.height * line;
  const int chunks = chunk_count(shape.images, 4 * shape.images * size);
  for_chunks(shape.images, chunks, threads, [&](int, std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i)
      for (int y = 0; y < shape.height; ++y) {
        const AugmentRow& row = rows[i];
        const int from = y + row.top - shape.padding;
        const bool inside = from >= 0 && from < shape.height;
        augment_line(shape, row, inside ? images + row.image * size + from * line : nullptr, table,
                     in_square(y, row.centre_y, shape.cutout), out + i * size + y * line);
      }
  });
}

}  // namespace pnas::cpu
