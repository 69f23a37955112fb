#include "batcher/slots.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <new>
#include <utility>

namespace ttsfast {
namespace {

// A huge page of x86-64 and of common aarch64 systems: one fault and one TLB entry instead of 512.
constexpr std::size_t kHuge = std::size_t(2) << 20;
constexpr std::size_t kSmall = std::size_t(64) << 10;

}  // namespace

Pages::Pages(std::size_t bytes) {
  const std::size_t unit = bytes >= kHuge / 2 ? kHuge : kSmall;
  const std::size_t size = (bytes + unit - 1) / unit * unit;
  if (size == 0) return;
  void* raw = mmap(nullptr, size + unit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) throw std::bad_alloc();
  // Cut off what lies before and after the aligned part.
  const std::size_t before = (unit - reinterpret_cast<std::uintptr_t>(raw) % unit) % unit;
  start_ = static_cast<unsigned char*>(raw) + before;
  size_ = size;
  if (before > 0) munmap(raw, before);
  munmap(start_ + size, unit - before);
#if defined(MADV_HUGEPAGE)
  // A wish: where it is refused the slot has small pages.
  if (unit == kHuge) madvise(start_, size, MADV_HUGEPAGE);
#endif
}

void Pages::touch() {
  constexpr std::size_t kLeastPage = 4096;
  for (std::size_t at = 0; at < size_; at += kLeastPage) static_cast<volatile unsigned char*>(start_)[at] = 0;
}

Pages::~Pages() {
  if (start_ != nullptr) munmap(start_, size_);
}

Pages::Pages(Pages&& other) noexcept
    : start_(std::exchange(other.start_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Pages& Pages::operator=(Pages&& other) noexcept {
  std::swap(start_, other.start_);
  std::swap(size_, other.size_);
  return *this;
}

Lease::~Lease() { end(); }

Lease& Lease::operator=(Lease&& other) noexcept {
  if (this == &other) return *this;
  end();
  slots_ = std::move(other.slots_);
  pages_ = std::move(other.pages_);
  extra_ = other.extra_;
  return *this;
}

unsigned char* Lease::resize(std::size_t bytes) {
  if (pages_.size() < bytes) {
    pages_ = Pages();
    const std::size_t usual = extra_ ? 0 : slots_->usual_bytes_;
    pages_ = Pages(std::max(bytes, usual));
    if (usual > bytes) pages_.touch();
  }
  return pages_.data();
}

void Lease::end() {
  if (slots_ == nullptr) return;
  if (slots_->in_forked_child()) {
    // Another thread may have held the lock at the fork: the child never takes it, and keeps its copy of the
    // slots until it ends.
    (void)new Lease(std::move(slots_), std::move(pages_), extra_);
    return;
  }
  const std::shared_ptr<Slots> slots = std::move(slots_);
  slots->give_back(std::move(pages_), extra_);
}

Slots::Slots(std::size_t count, std::size_t usual_bytes)
    : process_(getpid()), usual_bytes_(usual_bytes), free_(count) {
  // So that giving a slot back cannot fail.
  used_before_.reserve(count);
}

Lease Slots::take_free() {
  Pages pages;
  if (used_before_.size() == free_--) {
    pages = std::move(used_before_.back());
    used_before_.pop_back();
  }
  return Lease(shared_from_this(), std::move(pages), false);
}

Lease Slots::make_extra() { return Lease(shared_from_this(), Pages(), true); }

void Slots::retire() {
  std::vector<Pages> unmapped;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    retired_ = true;
    unmapped.swap(used_before_);
  }
}

bool Slots::in_forked_child() const { return getpid() != process_; }

void Slots::give_back(Pages pages, bool extra) {
  if (extra) return;
  std::lock_guard<std::mutex> lock(mutex_);
  ++free_;
  if (!retired_ && pages.data() != nullptr) used_before_.push_back(std::move(pages));
  may_begin_.notify_one();
}

}  // namespace ttsfast
