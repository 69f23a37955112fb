#include "common/pool.h"

#include <pthread.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "common/team.h"

namespace ttsfast {
namespace {

constexpr int kMaxThreads = 256;

// Pieces per thread that the work is claimed in: enough for a thread that falls behind to leave some to the
// others, few enough that threads work far apart in memory. Claimed one by one, tasks that are neighbours in
// memory run on different cores, whose prefetchers then take each other's lines: two threads are no faster
// than one.
constexpr std::int64_t kPiecesPerThread = 16;

// What all threads of one call share, on the caller's stack.
struct Work {
  void (*run)(void*, int, std::int64_t);
  void* context;
  std::int64_t count, piece;
  std::atomic<std::int64_t> next{0};
  std::atomic<int> joined{0};

  void take_all() {
    const int slot = joined.fetch_add(1, std::memory_order_relaxed);
    for (;;) {
      const std::int64_t first = next.fetch_add(piece, std::memory_order_relaxed);
      if (first >= count) return;
      const std::int64_t last = std::min(first + piece, count);
      for (std::int64_t index = first; index < last; ++index) run(context, slot, index);
    }
  }
};

class Pool {
 public:
  // False: the pool is busy with another caller's work, nothing was done.
  bool try_run(Work& work, int helpers) {
    std::unique_lock<std::mutex> alone(caller_, std::try_to_lock);
    if (!alone.owns_lock()) return false;
    start_up_to(helpers);
    helpers = std::min(helpers, started_.load(std::memory_order_relaxed));
    keep_off_the_callers_processor();
    {
      std::lock_guard<std::mutex> lock(state_);
      work_ = &work;
      wanted_ = helpers;
      working_ = 0;
    }
    if (helpers == 1) {
      wake_.notify_one();
    } else if (helpers > 1) {
      wake_.notify_all();
    }
    work.take_all();
    std::unique_lock<std::mutex> lock(state_);
    // A helper that has not woken yet would find nothing left to do: do not wait for it.
    wanted_ = 0;
    done_.wait(lock, [this] { return working_ == 0; });
    return true;
  }

  int started() const { return started_.load(std::memory_order_relaxed); }

 private:
  void start_up_to(int helpers) {
    while (started() < helpers) {
      try {
        std::thread helper([this] { serve(); });
        handles_.push_back(helper.native_handle());
        helper.detach();
      } catch (const std::system_error&) {
        // The system gives no more threads: fewer do the same work.
        return;
      }
      started_.fetch_add(1, std::memory_order_relaxed);
      left_out_ = -1;
    }
  }

  // Where no processor is idle (another runtime's threads wait for work in loops), a woken thread is put on
  // the processor of the one that woke it, and the two take turns: worse than no helper. So, where helpers
  // and caller could have every processor the caller may use, the caller's own is closed to the helpers.
  void keep_off_the_callers_processor() {
#if defined(__linux__)
    const int here = sched_getcpu();
    if (here < 0 || here == left_out_) return;
    left_out_ = here;
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
    const int processors = CPU_COUNT(&allowed);
    if (processors > 1 && started() + 1 >= processors) CPU_CLR(static_cast<std::size_t>(here), &allowed);
    for (const pthread_t helper : handles_) pthread_setaffinity_np(helper, sizeof(allowed), &allowed);
#endif
  }

  void serve() {
    std::unique_lock<std::mutex> lock(state_);
    for (;;) {
      wake_.wait(lock, [this] { return wanted_ > 0; });
      --wanted_;
      ++working_;
      Work* const work = work_;
      lock.unlock();
      work->take_all();
      lock.lock();
      if (--working_ == 0) done_.notify_one();
    }
  }

  std::vector<pthread_t> handles_;
  int left_out_ = -1;
  std::mutex caller_;
  std::mutex state_;
  std::condition_variable wake_;
  std::condition_variable done_;
  Work* work_ = nullptr;
  int wanted_ = 0;
  int working_ = 0;
  std::atomic<int> started_{0};
};

std::atomic<Pool*> current{nullptr};

// Never destroyed: its threads sleep in it until the process ends. A forked child has none of those
// threads and locks of unknown state, so it forgets the pool and makes its own when it needs one.
Pool& pool() {
  Pool* found = current.load(std::memory_order_acquire);
  if (found != nullptr) return *found;
  static const int registered = pthread_atfork(nullptr, nullptr, [] { current.store(nullptr); });
  (void)registered;
  Pool* made = new Pool;
  if (current.compare_exchange_strong(found, made)) return *made;
  delete made;
  return *found;
}

}  // namespace

void parallel_for(std::int64_t count, int threads, void (*run)(void*, int, std::int64_t), void* context) {
  const auto useful = static_cast<int>(std::min<std::int64_t>({threads, kMaxThreads, count}));
  Work work{run, context, count, std::max<std::int64_t>(1, count / (std::max(useful, 1) * kPiecesPerThread))};
  if (useful > 1) {
    const auto take = [](void* shared) { static_cast<Work*>(shared)->take_all(); };
    if (run_on_team(useful, take, &work) || pool().try_run(work, useful - 1)) return;
  }
  work.take_all();
}

int pool_threads() {
  const Pool* found = current.load(std::memory_order_acquire);
  return found == nullptr ? 0 : found->started();
}

}  // namespace ttsfast
