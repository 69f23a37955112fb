// Ragged utterances in memory into one padded batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "half.h"

namespace ttsfast {

// One utterance's frames, (frames, bins) in row-major order.
struct Frames {
  const void* data;
  std::size_t frames;
  bool half;  // IEEE binary16; otherwise float
};

// Larger than this, a batch is written past the caches: it would only push other data out of them.
constexpr std::size_t kStreamFrom = std::size_t(1) << 20;

// Write utterance b into out[b, :frames_b, :] and pad[:] into every later frame.
// out is (batch.size(), padded, bins); the caller has checked that frames_b <= padded for each b.
void gather_frames(const std::vector<Frames>& batch, std::size_t padded, std::size_t bins, const float* pad,
                   float* out);

// `rows` times the same `row_bytes` bytes.
void fill_rows(const void* row, std::size_t row_bytes, std::size_t rows, void* out, bool streaming);

// One row of the (B, padded) frame mask: 1 on an utterance's own frames, 0 after them.
void write_frame_mask(std::size_t frames, std::size_t padded, std::uint8_t* out);

// One row of the (B, padded) stop targets: 1 from the last own frame on. An utterance without frames stops at
// once; a truncated one never does.
void write_stop_targets(std::size_t frames, bool truncated, std::size_t padded, float* out);

}  // namespace ttsfast
