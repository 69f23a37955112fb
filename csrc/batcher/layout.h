// Where each array of a batch lies in its slot.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "batcher/table.h"
#include "common/half.h"

namespace ttsfast {

// How batches are made of utterances; fixed for the life of a batcher.
struct Format {
  Element element = Element::f32;
  std::size_t tail_frames = 8;      // kept free after the longest utterance
  std::size_t frame_multiple = 8;   // T is a multiple of this
  std::size_t text_multiple = 1;    // and N of this
  bool targets = false;             // also the frame mask and the stop targets
  std::vector<float> silence;       // (bins,), the value of padded frames
};

// Byte offsets, each a multiple of 64.
struct Layout {
  std::size_t utterances = 0, frames = 0, symbols = 0;  // B, T, N
  std::size_t valid_frames = 0;                         // the sum of the utterances' own
  std::size_t mel = 0;           // (B, T, bins) of the format's element
  std::size_t text = 0;          // (B, N) int64, padded with 0
  std::size_t text_lengths = 0;  // (B,) int64
  std::size_t mel_lengths = 0;   // (B,) int64
  std::size_t speaker = 0;       // (B,) int64
  std::size_t truncated = 0;     // (B,) bool
  std::size_t frame_mask = 0;    // (B, T) bool, with targets
  std::size_t stop_targets = 0;  // (B, T) float, with targets
  std::size_t bytes = 0;
};

// Throws std::invalid_argument for a format that cannot be.
void check_format(const Format& format, std::size_t bins);

// Throws std::invalid_argument where there is no utterance, one that the table does not have, or where the
// batch would exceed 2^40 bytes.
Layout plan_layout(const Table& table, const Format& format, const std::vector<std::int64_t>& utterances);

}  // namespace ttsfast
