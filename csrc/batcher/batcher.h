// Threads that make the batches of a plan known ahead, and hand them over in its order.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

#include "batcher/fill.h"
#include "batcher/layout.h"
#include "batcher/slots.h"
#include "batcher/table.h"

namespace ttsfast {

// Memory from outside for one batch; the caller keeps it until the batch is taken, or clear() has returned.
struct Lent {
  unsigned char* data = nullptr;
  std::size_t bytes = 0;
};

// A batch, or why there is none. `lease` is empty where the memory was lent.
struct Made {
  Layout layout;
  Lease lease;
  Failure failure;
};

struct Closed : std::runtime_error {
  Closed() : std::runtime_error("the batcher is closed") {}
};

// push(), take() and clear() are for one thread at a time; close() is for any, at any moment. Batches are
// claimed in the order of push(), each by one thread, so their bytes do not depend on how many there are.
//
// A thread begins a batch when a slot is free, and otherwise waits: slots are the look-ahead's bound. Where
// take() finds that the next batch has no slot because every slot is out as a lease, it makes one more for
// this batch: a caller that keeps what it took pays with memory, and is never waited for by itself.
class Batcher {
 public:
  // Without threads, batches are made in take(). Slots have `usual_bytes` from the beginning; what no batch
  // reaches is wasted, and what is missing is added when it is needed. Throws std::invalid_argument for an
  // impossible format.
  Batcher(std::shared_ptr<const Table> table, Format format, std::size_t threads, std::size_t slots,
          std::size_t usual_bytes = 0);
  ~Batcher();
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;

  Layout layout(const std::vector<std::int64_t>& utterances) const {
    return plan_layout(*table_, format_, utterances);
  }

  // Throws Closed; std::invalid_argument as plan_layout() does, or for lent memory that is too small or not
  // aligned to 64 bytes.
  void push(std::vector<std::int64_t> utterances, Lent memory = {});

  // The next batch in order, or nothing after `patience`. Throws Closed; std::logic_error when nothing is left
  // of what was pushed.
  std::optional<Made> take(std::chrono::milliseconds patience);

  // Whether take() would return at once.
  bool ready() const;

  // Forget what was pushed and not taken. When it returns no thread writes to any of it.
  void clear();

  // End the threads; a batch being made is finished first. Whoever waits in take() is told.
  void close();

  std::size_t threads() const { return threads_started_; }
  bool in_forked_child() const { return slots_->in_forked_child(); }

 private:
  enum class State : std::uint8_t { waiting, claimed, done };
  struct Job {
    std::vector<std::int64_t> utterances;
    Layout layout;
    Lent lent;
    Lease lease;
    Failure failure;
    State state = State::waiting;
  };
  using Jobs = std::deque<std::shared_ptr<Job>>;

  void serve();
  void start_threads(std::size_t count);
  // These with the mutex held.
  std::shared_ptr<Job> claim();
  std::vector<std::shared_ptr<Job>> not_yet_advised();
  // Without it.
  void make(Filler& filler, Job& job);
  void finish(Job& job);

  const std::shared_ptr<const Table> table_;
  const Format format_;
  const std::shared_ptr<Slots> slots_;
  Filler own_;  // for take() where there are no threads

  // Under slots_->mutex().
  std::condition_variable done_;
  Jobs jobs_;                 // not taken yet, in order
  std::size_t claimed_ = 0;   // of them, the first so many are claimed or done
  std::size_t advised_ = 0;   // and so many have been read ahead
  std::size_t working_ = 0;   // threads that are making a batch, forgotten ones too
  bool closed_ = false;
  std::vector<std::thread> running_;
  std::size_t threads_started_ = 0;
};

}  // namespace ttsfast
