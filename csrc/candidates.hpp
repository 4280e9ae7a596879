// Expansion of a set of parent cells by one block, without isomorphic candidates.
//
// No table of candidates is kept. A candidate's possible parents are the cells that deleting one of
// its sinks (blocks nobody refers to) leaves, so which of the given parents owns it is decided from
// the parents alone: it is the first of them that is such a cell and could have got the deleted block.
// That takes memory in proportion to the parents, and each parent can be expanded on its own.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <unordered_set>
#include <utility>
#include <vector>

#include "canonical.hpp"
#include "parallel.hpp"

namespace pnas {

// The new blocks kept for each parent of a range, in order.
struct Selection {
  std::int64_t first = 0;
  std::vector<std::vector<Row>> rows;
  std::vector<std::int64_t> offsets{0};  // where each parent's candidates start; then their number

  std::int64_t size() const { return offsets.back(); }
};

class Expander {
 public:
  // `codes` is int8 (parents, blocks, 4), in range, and outlives this.
  Expander(const std::int8_t* codes, std::int64_t parents, int blocks)
      : codes_(codes), parents_(parents), blocks_(blocks) {
    find_first_of_kind();
    for (std::int64_t parent = 0; parent < parents_; ++parent)
      if (first_of_kind_[parent]) add_links(static_cast<std::int32_t>(parent));
    std::sort(links_.begin(), links_.end());
    links_.erase(std::unique(links_.begin(), links_.end()), links_.end());
  }

  // Chooses the candidates of parents [first, last) whose new block has only the given operations
  // (bit i allows code i).
  Selection select(std::int64_t first, std::int64_t last, unsigned operations, int threads) const {
    const std::vector<Row> rows = new_rows(operations);
    Selection selection;
    selection.first = first;
    selection.rows.resize(last - first);
    parallel_for(last - first, kGrain, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t index = begin; index < end; ++index)
        selection.rows[index] = owned(static_cast<std::int32_t>(first + index), rows, operations);
    });
    for (const auto& kept : selection.rows)
      selection.offsets.push_back(selection.size() + static_cast<std::int64_t>(kept.size()));
    return selection;
  }

  // Writes a selection as int8 (size, blocks + 1, 4) and int32 (size).
  void write(const Selection& selection, std::int8_t* codes, std::int32_t* parent, int threads) const {
    const auto count = static_cast<std::int64_t>(selection.rows.size());
    parallel_for(count, kGrain, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t index = begin; index < end; ++index) {
        const std::int64_t offset = selection.offsets[index];
        write_parent(static_cast<std::int32_t>(selection.first + index), selection.rows[index],
                     codes + offset * 4 * (blocks_ + 1), parent + offset);
      }
    });
  }

 private:
  static constexpr std::int64_t kGrain = 16;

  // "Parent `parent` is the cell with key `base` plus the block `row`", in the base's canonical
  // numbering: one for each sink of a parent and each automorphism of what is left.
  struct Link {
    std::uint64_t base;
    Row row;
    std::int32_t parent;

    bool operator<(const Link& other) const {
      return std::tie(base, row, parent) < std::tie(other.base, other.row, other.parent);
    }
    bool operator==(const Link& other) const {
      return base == other.base && row == other.row && parent == other.parent;
    }
  };

  // For each new block, the first parent that another sink's deletion leaves.
  using Owners = std::array<std::int32_t, 1 << kRowBits>;

  Cell cell(std::int64_t parent) const { return Cell(codes_ + parent * 4 * blocks_, blocks_); }

  void find_first_of_kind() {
    std::vector<std::pair<std::uint64_t, std::int64_t>> keys(parents_);
    for (std::int64_t parent = 0; parent < parents_; ++parent)
      keys[parent] = {canonical_key(cell(parent)), parent};
    std::sort(keys.begin(), keys.end());
    first_of_kind_.assign(parents_, 0);
    for (std::size_t index = 0; index < keys.size(); ++index)
      first_of_kind_[keys[index].second] = index == 0 || keys[index].first != keys[index - 1].first;
  }

  void add_links(std::int32_t parent) {
    const Cell whole = cell(parent);
    const unsigned sinks = whole.sinks();
    for (int sink = 0; sink < blocks_; ++sink) {
      if (!(sinks >> sink & 1)) continue;
      const Cell rest = whole.without(sink);
      const CanonicalForm base(rest);
      for (int order = 0; order < base.orders(); ++order) {
        Places places{};
        for (int block = 0; block < blocks_; ++block)
          if (block != sink) places[block] = base.places(order)[block - (block > sink)];
        links_.push_back({base.key(), renamed(whole.rows[sink], places), parent});
      }
    }
  }

  static bool allowed(Side side, unsigned operations) { return operations >> (side & 7) & 1; }
  static bool allowed(Row row, unsigned operations) {
    return allowed(lesser_side(row), operations) && allowed(greater_side(row), operations);
  }

  // All new blocks of the given operations, in lexicographic order.
  std::vector<Row> new_rows(unsigned operations) const {
    std::vector<Side> sides;
    for (Side side = 0; side < (kCellInputs + blocks_) << 3; ++side)
      if (allowed(side, operations)) sides.push_back(side);
    std::vector<Row> rows;
    for (std::size_t lesser = 0; lesser < sides.size(); ++lesser)
      for (std::size_t greater = lesser; greater < sides.size(); ++greater)
        rows.push_back(make_row(sides[lesser], sides[greater]));
    return rows;
  }

  // The parent less one sink, plus a new block, may be a given parent too: mark those blocks.
  void mark_owners(const Cell& whole, int sink, Owners& owners) const {
    const Cell rest = whole.without(sink);
    const CanonicalForm base(rest);
    Places back{};
    for (int block = 0; block < rest.blocks; ++block)
      back[base.places(0)[block]] = static_cast<std::uint8_t>(block + (block >= sink));
    auto link = std::lower_bound(links_.begin(), links_.end(), Link{base.key(), 0, 0});
    for (; link != links_.end() && link->base == base.key(); ++link) {
      std::int32_t& owner = owners[renamed(link->row, back)];
      owner = std::min(owner, link->parent);
    }
  }

  // The new blocks for which `parent` is the first possible parent, of equivalent ones the first.
  // Two candidates of one parent can be the same only by an automorphism of the parent, or when
  // deleting another sink leaves the parent again; only then are their keys compared. A sink that has
  // an operation no new block may have was never added to anything, so it makes no other owner.
  std::vector<Row> owned(std::int32_t parent, const std::vector<Row>& rows, unsigned operations) const {
    std::vector<Row> kept;
    if (!first_of_kind_[parent]) return kept;
    const Cell whole = cell(parent);
    const bool symmetric = CanonicalForm(whole).orders() > 1;
    Owners owners;
    owners.fill(INT32_MAX);
    const unsigned sinks = whole.sinks();
    for (int sink = 0; sink < blocks_; ++sink)
      if ((sinks >> sink & 1) && allowed(whole.rows[sink], operations)) mark_owners(whole, sink, owners);
    std::unordered_set<std::uint64_t> seen;
    kept.reserve(rows.size());
    for (const Row row : rows) {
      if (owners[row] < parent) continue;
      const bool doubtful = symmetric || owners[row] == parent;
      if (doubtful && !seen.insert(canonical_key(whole.with(row))).second) continue;
      kept.push_back(row);
    }
    return kept;
  }

  void write_parent(std::int32_t parent, const std::vector<Row>& rows, std::int8_t* codes,
                    std::int32_t* parents) const {
    const std::int8_t* prefix = codes_ + static_cast<std::int64_t>(parent) * 4 * blocks_;
    for (const Row row : rows) {
      std::memcpy(codes, prefix, 4 * blocks_);
      codes += 4 * blocks_;
      for (const Side side : {lesser_side(row), greater_side(row)}) {
        *codes++ = static_cast<std::int8_t>(side >> 3);
        *codes++ = static_cast<std::int8_t>(side & 7);
      }
      *parents++ = parent;
    }
  }

  const std::int8_t* codes_;
  std::int64_t parents_;
  int blocks_;
  std::vector<std::uint8_t> first_of_kind_;
  std::vector<Link> links_;  // sorted
};

inline void canonical_keys(const std::int8_t* codes, std::int64_t cells, int blocks, std::uint64_t* keys,
                           int threads) {
  parallel_for(cells, 4096, threads, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t cell = begin; cell < end; ++cell)
      keys[cell] = canonical_key(Cell(codes + cell * 4 * blocks, blocks));
  });
}

}  // namespace pnas
