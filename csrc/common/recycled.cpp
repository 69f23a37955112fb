#include "common/recycled.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <list>
#include <mutex>
#include <new>
#include <unordered_map>

namespace ttsfast {
namespace {

// A huge page of x86-64 and of common aarch64 systems: one fault and one TLB entry instead of 512.
constexpr std::size_t kPage = std::size_t(2) << 20;

// An idle block serves a request of down to this fraction of its size.
constexpr std::size_t kLargestExcess = 2;

class Recycler {
 public:
  void* acquire(std::size_t bytes) {
    const std::size_t size = (std::max<std::size_t>(bytes, 1) + kPage - 1) / kPage * kPage;
    std::lock_guard<std::mutex> lock(mutex_);
    auto best = idle_.end();
    for (auto block = idle_.begin(); block != idle_.end(); ++block)
      if (block->size >= size && block->size <= kLargestExcess * size &&
          (best == idle_.end() || block->size < best->size))
        best = block;
    Block found;
    if (best != idle_.end()) {
      found = *best;
      idle_.erase(best);
      idle_bytes_ -= found.size;
    } else {
      found = {map(size), size};
    }
    used_.emplace(found.start, found.size);
    used_bytes_ += found.size;
    most_used_ = std::max(most_used_, used_bytes_);
    trim();
    return found.start;
  }

  void release(void* start) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto entry = used_.find(start);
    if (entry == used_.end()) return;
    idle_.push_back({start, entry->second});
    idle_bytes_ += entry->second;
    used_bytes_ -= entry->second;
    used_.erase(entry);
    trim();
  }

  MemoryUse use() {
    std::lock_guard<std::mutex> lock(mutex_);
    return {used_bytes_, idle_bytes_};
  }

  std::mutex& mutex() { return mutex_; }

 private:
  struct Block {
    void* start = nullptr;
    std::size_t size = 0;
  };

  static void* map(std::size_t size) {
    void* raw = mmap(nullptr, size + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) throw std::bad_alloc();
    // Cut off what lies before and after the aligned part.
    const auto address = reinterpret_cast<std::uintptr_t>(raw);
    const std::size_t before = (kPage - address % kPage) % kPage;
    char* start = static_cast<char*>(raw) + before;
    if (before > 0) munmap(raw, before);
    munmap(start + size, kPage - before);
#if defined(MADV_HUGEPAGE)
    // A wish: where it is refused the block has small pages.
    madvise(start, size, MADV_HUGEPAGE);
#endif
    return start;
  }

  // The longest idle go first.
  void trim() {
    while (!idle_.empty() && used_bytes_ + idle_bytes_ > most_used_) {
      munmap(idle_.front().start, idle_.front().size);
      idle_bytes_ -= idle_.front().size;
      idle_.pop_front();
    }
  }

  std::mutex mutex_;
  std::list<Block> idle_;
  std::unordered_map<void*, std::size_t> used_;
  std::size_t used_bytes_ = 0, idle_bytes_ = 0, most_used_ = 0;
};

// Never destroyed: tensors may outlive every static. Held across fork(), so that the child's copy is whole.
Recycler& recycler() {
  static Recycler* const only = [] {
    auto* made = new Recycler;
    pthread_atfork([] { recycler().mutex().lock(); }, [] { recycler().mutex().unlock(); },
                   [] { recycler().mutex().unlock(); });
    return made;
  }();
  return *only;
}

}  // namespace

void* acquire_memory(std::size_t bytes) { return recycler().acquire(bytes); }
void release_memory(void* block) { recycler().release(block); }
MemoryUse memory_use() { return recycler().use(); }

}  // namespace ttsfast
