// Running tasks on the threads that PyTorch already has.
//
// PyTorch's CPU kernels run on an OpenMP runtime. Its entry point is handed over when the module is
// imported, so that this code shares those threads instead of keeping a second set that fights them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace pnas::cpu {

using ParallelEntry = void (*)(void (*)(void*), void*, unsigned, unsigned);  // GOMP_parallel
inline ParallelEntry g_parallel_entry = nullptr;

// Work is cut into this many chunks, or fewer, whatever the number of threads: partial sums belong to
// chunks and are added in their order, so results do not depend on threads.
constexpr int kChunks = 16;

inline int chunk_count(std::int64_t items) {
  return static_cast<int>(std::min<std::int64_t>(items, kChunks));
}

// Calls work(chunk, first, last) for each chunk of [0, items), on up to `threads` threads.
template <typename Work>
void for_chunks(std::int64_t items, int threads, const Work& work) {
  const int chunks = chunk_count(items);
  struct Shared {
    const Work& work;
    std::int64_t items;
    int chunks;
    std::atomic<int> next{0};
  } shared{work, items, chunks};
  const auto run = [](void* data) {
    Shared& s = *static_cast<Shared*>(data);
    for (int chunk; (chunk = s.next.fetch_add(1)) < s.chunks;)
      s.work(chunk, s.items * chunk / s.chunks, s.items * (chunk + 1) / s.chunks);
  };
  const int workers = std::min(threads, chunks);
  if (workers <= 1) return run(&shared);
  if (g_parallel_entry) return g_parallel_entry(run, &shared, static_cast<unsigned>(workers), 0);
  std::vector<std::thread> others;
  for (int index = 1; index < workers; ++index) others.emplace_back(run, &shared);
  run(&shared);
  for (auto& thread : others) thread.join();
}

}  // namespace pnas::cpu
