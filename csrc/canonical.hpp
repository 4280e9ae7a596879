// Cells packed into bits, and their canonical form under isomorphism.
//
// Two cells are the same when swapping the sides of blocks and reordering blocks, with references
// renamed, turns one into the other. The canonical form is the lexicographically least valid order.
#pragma once

#include <array>
#include <cstdint>

namespace pnas {

constexpr int kMaxBlocks = 5;
constexpr int kCellInputs = 2;
constexpr int kMaxOrders = 120;  // 5!: every block a twin of every other

// One side of a block: input << 3 | operation, 6 bits, ordered like the pair.
using Side = std::uint8_t;

// A block with its sides sorted: lesser side << 6 | greater side, 12 bits, ordered like the four columns.
using Row = std::uint16_t;
constexpr int kRowBits = 12;

inline Row make_row(Side a, Side b) {
  return a < b ? static_cast<Row>(a << 6 | b) : static_cast<Row>(b << 6 | a);
}
inline Side lesser_side(Row row) { return static_cast<Side>(row >> 6); }
inline Side greater_side(Row row) { return static_cast<Side>(row & 63); }

// Where each block of a cell goes in another numbering.
using Places = std::array<std::uint8_t, kMaxBlocks>;

inline Side renamed(Side side, const Places& places) {
  const int block = (side >> 3) - kCellInputs;
  return block < 0 ? side : static_cast<Side>((kCellInputs + places[block]) << 3 | (side & 7));
}

inline Row renamed(Row row, const Places& places) {
  return make_row(renamed(lesser_side(row), places), renamed(greater_side(row), places));
}

// The blocks that a row refers to, one bit each.
inline unsigned references(Row row) {
  const unsigned inputs = 1u << (lesser_side(row) >> 3) | 1u << (greater_side(row) >> 3);
  return inputs >> kCellInputs;
}

struct Cell {
  int blocks = 0;
  std::array<Row, kMaxBlocks> rows{};

  // From int8 columns in1, op1, in2, op2, already known to be in range.
  Cell(const std::int8_t* codes, int count) : blocks(count) {
    for (int block = 0; block < count; ++block, codes += 4)
      rows[block] = make_row(static_cast<Side>(codes[0] << 3 | codes[1]),
                             static_cast<Side>(codes[2] << 3 | codes[3]));
  }

  // The blocks that no other block refers to, one bit each.
  unsigned sinks() const {
    unsigned referenced = 0;
    for (int block = 0; block < blocks; ++block) referenced |= references(rows[block]);
    return ((1u << blocks) - 1) & ~referenced;
  }

  Cell with(Row row) const {
    Cell longer = *this;
    longer.rows[longer.blocks++] = row;
    return longer;
  }

  // The cell less one of its sinks; later blocks move up.
  Cell without(int sink) const {
    Cell shorter = *this;
    Places places{};
    for (int block = 0; block < blocks; ++block)
      places[block] = static_cast<std::uint8_t>(block - (block > sink));
    shorter.blocks = 0;
    for (int block = 0; block < blocks; ++block)
      if (block != sink) shorter.rows[shorter.blocks++] = renamed(rows[block], places);
    return shorter;
  }
};

// The least order of a cell's blocks, and every numbering that gives it (a coset of the cell's
// automorphism group).
class CanonicalForm {
 public:
  explicit CanonicalForm(const Cell& cell) : cell_(cell) {
    for (int block = 0; block < cell.blocks; ++block) needs_[block] = references(cell.rows[block]);
    search(0, 0, static_cast<std::uint64_t>(cell.blocks));
  }

  // The number of blocks, then the rows in order: no two cells that differ share a key, and keys of
  // equally long cells are ordered like their canonical forms.
  std::uint64_t key() const { return key_ << kRowBits * (kMaxBlocks - cell_.blocks); }
  int orders() const { return orders_; }
  const Places& places(int order) const { return places_[order]; }

 private:
  // The least available row always comes next; of equal rows only later references can tell which
  // should have, so each is tried.
  void search(int position, unsigned placed, std::uint64_t key) {
    if (position == cell_.blocks) return finish(key);
    Row least = UINT16_MAX;
    unsigned tied = 0;
    for (int block = 0; block < cell_.blocks; ++block) {
      if ((placed >> block & 1) || (needs_[block] & ~placed)) continue;
      const Row row = renamed(cell_.rows[block], current_);
      if (row < least) tied = 0, least = row;
      if (row == least) tied |= 1u << block;
    }
    for (int block = 0; block < cell_.blocks; ++block) {
      if (!(tied >> block & 1)) continue;
      current_[block] = static_cast<std::uint8_t>(position);
      search(position + 1, placed | 1u << block, key << kRowBits | least);
    }
  }

  void finish(std::uint64_t key) {
    if (key > key_) return;
    if (key < key_) orders_ = 0;
    key_ = key;
    places_[orders_++] = current_;
  }

  const Cell& cell_;
  std::array<unsigned, kMaxBlocks> needs_{};
  Places current_{};
  std::uint64_t key_ = UINT64_MAX;
  int orders_ = 0;
  std::array<Places, kMaxOrders> places_;
};

inline std::uint64_t canonical_key(const Cell& cell) { return CanonicalForm(cell).key(); }

}  // namespace pnas
