// Ragged utterances in memory into one padded batch.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/half.h"

namespace ttsfast {

// One utterance's frames, (frames, bins) in row-major order.
struct Frames {
  const void* data;
  std::size_t frames;
  bool half;  // IEEE binary16; otherwise float
};

// Larger than this, a batch is written past the caches: it would only push other data out of them.
constexpr std::size_t kStreamFrom = std::size_t(1) << 20;

// Whether a batch of so many bytes is.
inline bool streams(std::size_t bytes) { return bytes >= kStreamFrom; }

// Write utterance b into out[b, :frames_b, :] and pad[:] into every later frame.
// out is (batch.size(), padded, bins); the caller has checked that frames_b <= padded for each b, and calls
// end_streaming() before another thread reads.
void gather_frames(const std::vector<Frames>& batch, std::size_t padded, std::size_t bins, const float* pad,
                   float* out);

// The same bytes over and over, from a block of them that stays in the nearest cache.
class Repeated {
 public:
  // `period` bytes at `unit`, which are copied.
  Repeated(const void* unit, std::size_t period);
  // The first `bytes` of the endless row of units.
  void write(void* out, std::size_t bytes, bool streaming) const;

 private:
  std::vector<unsigned char> block_;
};

// Values one after another, in a piece that stays in the nearest cache until whole lines of it can be written.
// A line of which only a part is written must be fetched first, and what follows waits for it.
class Lines {
 public:
  Lines(void* out, bool streaming) : out_(static_cast<unsigned char*>(out)), streaming_(streaming) {}
  ~Lines() { flush(); }
  Lines(const Lines&) = delete;
  Lines& operator=(const Lines&) = delete;

  // Where some of the next `count` values are to be written, and how many, at least one. One type for all.
  template <typename T>
  std::pair<T*, std::size_t> next(std::size_t count) {
    if (held_ + sizeof(T) > sizeof(piece_)) flush();
    const std::size_t here = std::min(count, (sizeof(piece_) - held_) / sizeof(T));
    auto* to = reinterpret_cast<T*>(piece_ + held_);
    held_ += here * sizeof(T);
    return {to, here};
  }

  template <typename T>
  void repeat(T value, std::size_t count) {
    while (count > 0) {
      const auto [to, here] = next<T>(count);
      std::fill(to, to + here, value);
      count -= here;
    }
  }

 private:
  void flush();

  unsigned char* out_;
  const bool streaming_;
  std::size_t held_ = 0;
  alignas(64) unsigned char piece_[4096];
};

// One row of the (B, padded) frame mask: 1 on an utterance's own frames, 0 after them.
void write_frame_mask(std::size_t frames, std::size_t padded, Lines& out);

// One row of the (B, padded) stop targets, float: 1 from the last own frame on. An utterance without frames
// stops at once; a truncated one never does.
void write_stop_targets(std::size_t frames, bool truncated, std::size_t padded, Lines& out);

}  // namespace ttsfast
