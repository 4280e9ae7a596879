// Running tasks on the threads that PyTorch already has.
//
// PyTorch's CPU kernels run on an OpenMP runtime. Its entry point is handed over when the module is
// imported, so that this code shares those threads instead of keeping a second set that fights them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace pnas::cpu {

using ParallelEntry = void (*)(void (*)(void*), void*, unsigned, unsigned);  // GOMP_parallel
inline ParallelEntry g_parallel_entry = nullptr;

// Work is cut into as many chunks as its size asks for, whatever the number of threads: partial sums belong
// to chunks and are added in their order, so results do not depend on threads.
constexpr int kChunks = 16;
constexpr int kSmallWork = 4, kSmall = 1 << 22;  // chunks of work that takes less than a tenth of a millisecond

inline int chunk_count(std::int64_t items, std::int64_t multiply_adds) {
  return static_cast<int>(std::min<std::int64_t>(items, multiply_adds < kSmall ? kSmallWork : kChunks));
}

// The chunks of one call, handed out to whichever thread asks next.
template <typename Work>
class Chunks {
 public:
  Chunks(std::int64_t items, int chunks, const Work& work) : work_(work), items_(items), chunks_(chunks) {}

  // One thread's share. Nothing may be thrown through an OpenMP runtime, so a failure waits here.
  void take() {
    try {
      for (int chunk; (chunk = next_.fetch_add(1)) < chunks_;)
        work_(chunk, items_ * chunk / chunks_, items_ * (chunk + 1) / chunks_);
    } catch (...) {
      next_ = chunks_;
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
  }
  void finish() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  const Work& work_;
  std::int64_t items_;
  int chunks_;
  std::atomic<int> next_{0};
  std::mutex mutex_;
  std::exception_ptr failure_;
};

// Calls work(chunk, first, last) for each of so many chunks of [0, items), on `threads` threads: always as many, even
// where there are fewer chunks, because an OpenMP runtime rebuilds its threads when their number changes.
template <typename Work>
void for_chunks(std::int64_t items, int count, int threads, const Work& work) {
  Chunks<Work> chunks(items, count, work);
  if (threads <= 1) {
    chunks.take();
  } else if (g_parallel_entry) {
    g_parallel_entry([](void* data) { static_cast<Chunks<Work>*>(data)->take(); }, &chunks,
                     static_cast<unsigned>(threads), 0);
  } else {
    std::vector<std::thread> others;
    for (int index = 1; index < threads; ++index) others.emplace_back([&] { chunks.take(); });
    chunks.take();
    for (auto& thread : others) thread.join();
  }
  chunks.finish();
}

}  // namespace pnas::cpu
