// Memory for batches: slots that are filled, handed out as leases, and filled again once a lease has ended.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace ttsfast {

// Pages straight from the system, huge ones where it has them; not cleared a second time when used again.
class Pages {
 public:
  Pages() = default;
  // Throws std::bad_alloc.
  explicit Pages(std::size_t bytes);
  // Have the system provide all of them now.
  void touch();
  ~Pages();
  Pages(Pages&& other) noexcept;
  Pages& operator=(Pages&& other) noexcept;
  unsigned char* data() const { return start_; }
  std::size_t size() const { return size_; }

 private:
  unsigned char* start_ = nullptr;
  std::size_t size_ = 0;
};

class Slots;

// The right to one slot, from its claim by a thread until the last tensor over it has gone.
class Lease {
 public:
  Lease() = default;
  ~Lease();
  Lease(Lease&& other) noexcept = default;
  Lease& operator=(Lease&& other) noexcept;
  explicit operator bool() const { return slots_ != nullptr; }

  // At least `bytes` of memory, and the usual bytes at once; what an earlier, smaller batch left is given up.
  // Throws std::bad_alloc.
  unsigned char* resize(std::size_t bytes);
  unsigned char* data() const { return pages_.data(); }

 private:
  friend class Slots;
  Lease(std::shared_ptr<Slots> slots, Pages pages, bool extra)
      : slots_(std::move(slots)), pages_(std::move(pages)), extra_(extra) {}
  void end();

  std::shared_ptr<Slots> slots_;
  Pages pages_;
  bool extra_ = false;
};

// Outlives the batcher as long as a lease is out. Its mutex also guards the batcher's queue, since what a
// thread may begin depends on both; the functions that say so are called with it held.
class Slots : public std::enable_shared_from_this<Slots> {
 public:
  // A batch needs no more than `usual_bytes`, as far as anyone knows: slots have them from the beginning, and
  // do not grow one after the other as each meets the largest batch.
  Slots(std::size_t count, std::size_t usual_bytes);

  std::mutex& mutex() { return mutex_; }
  // Notified when work may begin: a slot has come back, or there is more to do.
  std::condition_variable& may_begin() { return may_begin_; }

  // With the mutex held. A lease on a free slot, if there is one; one without memory first.
  bool any_free() const { return free_ > 0; }
  Lease take_free();
  // With the mutex held. A lease on a slot beyond the count, whose memory goes back to the system with it.
  Lease make_extra();

  // Give the memory of free slots back now, and that of the others when their leases end.
  void retire();

  // In a process forked from the one that made it: neither locks nor threads are to be relied on.
  bool in_forked_child() const;

 private:
  friend class Lease;
  void give_back(Pages pages, bool extra);

  const pid_t process_;
  const std::size_t usual_bytes_;
  std::mutex mutex_;
  std::condition_variable may_begin_;
  std::size_t free_;
  std::vector<Pages> used_before_;  // of free slots, the last used last; the others have no memory yet
  bool retired_ = false;
};

}  // namespace ttsfast
