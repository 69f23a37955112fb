#include "batcher/batcher.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <new>
#include <system_error>

namespace ttsfast {
namespace {

// Signals are for the threads that the program started itself: one taken by a thread in here would not
// interrupt the call that a person wants interrupted.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&all, fault);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

void name_this_thread() {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "ttsfast-batcher");
#endif
}

}  // namespace

Batcher::Batcher(std::shared_ptr<const Table> table, Format format, std::size_t threads, std::size_t slots,
                 std::size_t usual_bytes)
    : table_(std::move(table)),
      format_((check_format(format, table_->bins()), std::move(format))),
      slots_(std::make_shared<Slots>(std::max<std::size_t>(slots, 1), usual_bytes)),
      own_(*table_, format_) {
  start_threads(threads);
}

Batcher::~Batcher() { close(); }

void Batcher::start_threads(std::size_t count) {
  const SignalsBlocked blocked;
  for (; threads_started_ < count; ++threads_started_) {
    try {
      running_.emplace_back([this] { serve(); });
    } catch (const std::system_error&) {
      // The system gives no more threads: fewer do the same work, and without any take() does it.
      return;
    }
  }
}

void Batcher::push(std::vector<std::int64_t> utterances, Lent memory) {
  auto job = std::make_shared<Job>();
  job->layout = plan_layout(*table_, format_, utterances);
  job->utterances = std::move(utterances);
  job->lent = memory;
  if (memory.data != nullptr &&
      (memory.bytes < job->layout.bytes || reinterpret_cast<std::uintptr_t>(memory.data) % 64 != 0))
    throw std::invalid_argument("lent memory of " + std::to_string(memory.bytes) + " bytes, needed " +
                                std::to_string(job->layout.bytes) + " at a multiple of 64");
  std::lock_guard<std::mutex> lock(slots_->mutex());
  if (closed_) throw Closed();
  jobs_.push_back(std::move(job));
  slots_->may_begin().notify_one();
}

std::optional<Made> Batcher::take(std::chrono::milliseconds patience) {
  // Before the lock, so that it dies after: where close() has forgotten the batch this may end its lease.
  std::shared_ptr<Job> next;
  std::unique_lock<std::mutex> lock(slots_->mutex());
  if (closed_) throw Closed();
  if (jobs_.empty()) throw std::logic_error("nothing was pushed that has not been taken");
  next = jobs_.front();
  if (next->state == State::waiting && next->lent.data == nullptr && !next->lease && !slots_->any_free()) {
    next->lease = slots_->make_extra();
    slots_->may_begin().notify_one();
  }
  if (threads_started_ == 0 && next->state == State::waiting) {
    claim();
    lock.unlock();
    make(own_, *next);
    lock.lock();
    finish(*next);
  }
  if (!done_.wait_for(lock, patience, [&] { return closed_ || next->state == State::done; })) return std::nullopt;
  if (closed_) throw Closed();
  jobs_.pop_front();
  --claimed_;
  advised_ -= std::min<std::size_t>(advised_, 1);
  return Made{next->layout, std::move(next->lease), std::move(next->failure)};
}

bool Batcher::ready() const {
  std::lock_guard<std::mutex> lock(slots_->mutex());
  return !jobs_.empty() && jobs_.front()->state == State::done;
}

void Batcher::clear() {
  Jobs forgotten;
  std::unique_lock<std::mutex> lock(slots_->mutex());
  forgotten.swap(jobs_);
  claimed_ = advised_ = 0;
  done_.wait(lock, [this] { return working_ == 0; });
  // Their leases end after the lock has been let go, since ending one takes it.
  lock.unlock();
}

void Batcher::close() {
  std::vector<std::thread> ending;
  Jobs forgotten;
  {
    std::lock_guard<std::mutex> lock(slots_->mutex());
    closed_ = true;
    ending.swap(running_);
    forgotten.swap(jobs_);
    claimed_ = advised_ = 0;
    slots_->may_begin().notify_all();
    done_.notify_all();
  }
  for (std::thread& thread : ending) thread.join();
  forgotten.clear();
  slots_->retire();
}

void Batcher::serve() {
  name_this_thread();
  Filler filler(*table_, format_);
  std::unique_lock<std::mutex> lock(slots_->mutex());
  for (;;) {
    std::shared_ptr<Job> job;
    slots_->may_begin().wait(lock, [&] { return closed_ || (job = claim()) != nullptr; });
    if (job == nullptr) return;
    auto ahead = not_yet_advised();
    lock.unlock();
    for (const auto& later : ahead) filler.advise(later->utterances);
    // A batch that was forgotten meanwhile dies with the last of these, and its lease takes the lock.
    ahead.clear();
    make(filler, *job);
    lock.lock();
    finish(*job);
    lock.unlock();
    job.reset();
    lock.lock();
  }
}

std::shared_ptr<Batcher::Job> Batcher::claim() {
  if (closed_ || claimed_ == jobs_.size()) return nullptr;
  const std::shared_ptr<Job>& next = jobs_[claimed_];
  if (next->lent.data == nullptr && !next->lease) {
    if (!slots_->any_free()) return nullptr;
    next->lease = slots_->take_free();
  }
  next->state = State::claimed;
  ++claimed_;
  ++working_;
  return next;
}

std::vector<std::shared_ptr<Batcher::Job>> Batcher::not_yet_advised() {
  // What is claimed is being read already.
  const std::size_t from = std::max(advised_, claimed_);
  advised_ = jobs_.size();
  return {jobs_.begin() + static_cast<std::ptrdiff_t>(from), jobs_.end()};
}

void Batcher::make(Filler& filler, Job& job) {
  try {
    unsigned char* slot = job.lent.data != nullptr ? job.lent.data : job.lease.resize(job.layout.bytes);
    job.failure = filler.fill(job.utterances, job.layout, slot);
  } catch (const std::bad_alloc&) {
    job.failure = {Fault::memory, -1, std::to_string(job.layout.bytes) + " bytes"};
  }
}

void Batcher::finish(Job& job) {
  job.state = State::done;
  --working_;
  done_.notify_all();
}

}  // namespace ttsfast
