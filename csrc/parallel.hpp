// Independent pieces of work on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace pnas {

// Calls work(first, last) for consecutive ranges that cover [0, count), each at most `grain` long, on
// at most `threads` threads; the first exception thrown is thrown again when all have stopped.
template <class Work>
void parallel_for(std::int64_t count, std::int64_t grain, int threads, const Work& work) {
  std::atomic<std::int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr failure;
  const auto run = [&] {
    try {
      for (std::int64_t first; (first = next.fetch_add(grain)) < count;)
        work(first, std::min(first + grain, count));
    } catch (...) {
      next = count;
      const std::lock_guard<std::mutex> lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  const std::int64_t ranges = (count + grain - 1) / grain;
  const std::int64_t helpers = std::min<std::int64_t>(threads, ranges) - 1;  // the caller works too
  std::vector<std::thread> pool;
  pool.reserve(std::max<std::int64_t>(helpers, 0));
  try {
    for (std::int64_t helper = 0; helper < helpers; ++helper) pool.emplace_back(run);
  } catch (const std::system_error&) {
    // The system has no more threads to give: those that started do the work.
  }
  run();
  for (std::thread& thread : pool) thread.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace pnas
