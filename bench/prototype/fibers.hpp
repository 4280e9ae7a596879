// What `card.cuh` has, on a CPU: every thread of a block is a fiber, and where a warp or a block acts together its
// fibers wait for each other. A warp runs as far ahead of the others as barriers let it, and a lane as far as its
// warp's instructions do, in an order that is asked for: where a barrier is missing, results are wrong.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include <ucontext.h>

#define DEVICE inline
#define __global__
#define __launch_bounds__(threads)

using bf16 = unsigned short;

namespace fibers {

constexpr unsigned kLanes = 32, kStack = 64 << 10;
constexpr char kGarbage = 0x7f; // of bf16 and fp32: 3.4e38

enum class State { kReady, kAtWarp, kAtBlock, kDone };

struct Copy {
  unsigned to;
  const void *from;
};

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStack);
  State state = State::kReady;
  unsigned barriers = 0;
  std::vector<Copy> copies;
  unsigned words[6]; // what it hands to its warp
};

// In which order warps, and lanes of a warp, run.
enum class Order { kForward, kBackward };

struct Block {
  std::vector<char> memory;
  std::vector<Fiber> threads;
  ucontext_t scheduler;
  unsigned block = 0, current = 0; // the block's number, the thread that runs
  unsigned omitted = ~0u; // the barrier, counted from 0, that nobody waits at
  std::function<void()> kernel;
};

inline Block here;

[[noreturn]] inline void fail(const char *why) {
  std::fprintf(stderr, "thread %u: %s\n", here.current, why);
  std::exit(3);
}

inline Fiber &self() { return here.threads[here.current]; }
inline Fiber &lane_of_warp(unsigned lane) { return here.threads[here.current / kLanes * kLanes + lane]; }

inline void wait(State state) {
  self().state = state;
  swapcontext(&self().context, &here.scheduler);
}

inline void begin() {
  here.kernel();
  wait(State::kDone);
}

// Run a warp's lanes from one instruction of the warp to the next, until all wait at a barrier or are done.
inline void run_warp(unsigned warp, Order order) {
  for (;;) {
    unsigned at[4] = {};
    for (unsigned i = 0; i < kLanes; ++i) {
      here.current = warp * kLanes + (order == Order::kForward ? i : kLanes - 1 - i);
      if (self().state == State::kReady) swapcontext(&here.scheduler, &self().context);
      ++at[static_cast<int>(self().state)];
    }
    const unsigned waiting = at[static_cast<int>(State::kAtWarp)];
    if (waiting == 0) return;
    if (waiting != kLanes) fail("some lanes of its warp do not come to an instruction of the warp");
    for (unsigned lane = 0; lane < kLanes; ++lane) lane_of_warp(lane).state = State::kReady;
  }
}

// Run a kernel as one block, from shared memory full of garbage; how many barriers a thread came to.
inline unsigned run_block(unsigned threads, unsigned shared_bytes, Order order, unsigned omitted,
                          std::function<void()> kernel) {
  here.memory.assign(shared_bytes, kGarbage);
  here.threads = std::vector<Fiber>(threads);
  here.omitted = omitted, here.kernel = std::move(kernel);
  for (Fiber &fiber : here.threads) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = kStack;
    makecontext(&fiber.context, begin, 0);
  }
  const unsigned warps = threads / kLanes;
  for (;;) {
    for (unsigned i = 0; i < warps; ++i) run_warp(order == Order::kForward ? i : warps - 1 - i, order);
    unsigned done = 0;
    for (Fiber &fiber : here.threads) done += fiber.state == State::kDone;
    if (done == threads) return here.threads[0].barriers;
    if (done) fail("some threads are done where others wait at a barrier");
    for (Fiber &fiber : here.threads) fiber.state = State::kReady;
  }
}

inline char *shared(unsigned at, unsigned bytes) {
  if (at % bytes || at + bytes > here.memory.size()) fail("an address in shared memory is unaligned or outside");
  return here.memory.data() + at;
}

inline float as_float(unsigned word) {
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

inline unsigned as_word(float value) {
  unsigned word;
  std::memcpy(&word, &value, sizeof word);
  return word;
}

// To nearest, ties to even.
inline unsigned rounded(float value) {
  const unsigned word = as_word(value);
  return value != value ? 0x7fff : (word + 0x7fff + (word >> 16 & 1)) >> 16;
}

inline float half_of(unsigned word, unsigned which) { return as_float(which ? word & 0xffff0000u : word << 16); }

inline void load_matrices(unsigned *words, unsigned at, unsigned count, bool transposed) {
  const unsigned lane = here.current % kLanes;
  self().words[0] = at;
  wait(State::kAtWarp);
  for (unsigned m = 0; m < count; ++m) {
    unsigned halves[2];
    for (unsigned which = 0; which < 2; ++which) {
      unsigned row = lane / 4, column = 2 * (lane % 4) + which;
      if (transposed) std::swap(row, column);
      bf16 half;
      std::memcpy(&half, shared(lane_of_warp(8 * m + row).words[0], 16) + 2 * column, sizeof half);
      halves[which] = half;
    }
    words[m] = halves[0] | halves[1] << 16;
  }
  wait(State::kAtWarp);
}

// sum += A B, of `depth` columns of A.
inline void multiply(float *sum, unsigned depth) {
  const unsigned lane = here.current % kLanes;
  wait(State::kAtWarp);
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
    float total = 0;
    for (unsigned k = 0; k < depth; ++k) {
      const unsigned holder = k % 8 / 2;
      const float a = half_of(lane_of_warp(row % 8 * 4 + holder).words[row / 8 + k / 8 * 2], k % 2);
      total += a * half_of(lane_of_warp(column * 4 + holder).words[4 + k / 8], k % 2);
    }
    sum[i] += total;
  }
  wait(State::kAtWarp);
}

} // namespace fibers

inline unsigned shared_memory() { return 0; }
inline unsigned thread() { return fibers::here.current; }
inline unsigned block() { return fibers::here.block; }
inline void warp_barrier() { fibers::wait(fibers::State::kAtWarp); }
inline void barrier() {
  if (fibers::self().barriers++ != fibers::here.omitted) fibers::wait(fibers::State::kAtBlock);
}

inline void copy_16(unsigned to, const void *from) { fibers::self().copies.push_back({to, from}); }
inline void wait_for_copies() {
  for (const fibers::Copy &copy : fibers::self().copies) std::memcpy(fibers::shared(copy.to, 16), copy.from, 16);
  fibers::self().copies.clear();
}

inline void read_16(unsigned *words, const void *from) { std::memcpy(words, from, 16); }
inline void write_16(void *to, const unsigned *words) { std::memcpy(to, words, 16); }

inline unsigned load_half(unsigned at) {
  bf16 half;
  std::memcpy(&half, fibers::shared(at, 2), 2);
  return half;
}
inline float load_float(unsigned at) {
  float value;
  std::memcpy(&value, fibers::shared(at, 4), 4);
  return value;
}
inline void load_16(unsigned *words, unsigned at) { std::memcpy(words, fibers::shared(at, 16), 16); }
inline void store_word(unsigned at, unsigned word) { std::memcpy(fibers::shared(at, 4), &word, 4); }
inline void store_float(unsigned at, float value) { store_word(at, fibers::as_word(value)); }
inline void store_16(unsigned at, const unsigned *words) { std::memcpy(fibers::shared(at, 16), words, 16); }

inline void load_4(unsigned *m, unsigned at) { fibers::load_matrices(m, at, 4, false); }
inline void load_2(unsigned *m, unsigned at) { fibers::load_matrices(m, at, 2, false); }
inline void load_4_transposed(unsigned *m, unsigned at) { fibers::load_matrices(m, at, 4, true); }
inline void load_2_transposed(unsigned *m, unsigned at) { fibers::load_matrices(m, at, 2, true); }

inline void multiply_16(float *sum, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  const unsigned words[] = {a0, a1, a2, a3, b0, b1};
  std::memcpy(fibers::self().words, words, sizeof words);
  fibers::multiply(sum, 16);
}
inline void multiply_8(float *sum, unsigned a0, unsigned a1, unsigned b) {
  const unsigned words[] = {a0, a1, 0, 0, b, 0};
  std::memcpy(fibers::self().words, words, sizeof words);
  fibers::multiply(sum, 8);
}

inline float of_lane_across(float value, unsigned bits) {
  fibers::self().words[0] = fibers::as_word(value);
  fibers::wait(fibers::State::kAtWarp);
  const float found = fibers::as_float(fibers::lane_of_warp(fibers::here.current % fibers::kLanes ^ bits).words[0]);
  fibers::wait(fibers::State::kAtWarp);
  return found;
}

inline unsigned pack(float lower, float upper) { return fibers::rounded(lower) | fibers::rounded(upper) << 16; }
inline unsigned pack_relu(float lower, float upper) { return pack(lower > 0 ? lower : 0, upper > 0 ? upper : 0); }
inline float lower(unsigned word) { return fibers::half_of(word, 0); }
inline float upper(unsigned word) { return fibers::half_of(word, 1); }
