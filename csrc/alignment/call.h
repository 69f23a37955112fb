// One call of the search or of the forward-sum loss, as the kernels of every instruction set see it: raw memory and
// numbers, no containers (see loss/call.h). Formulas: ttsfast/alignment/reference.py and docs/derivation.md.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/view.h"

namespace ttsfast {

// Frames brought to adjacent numbers of the type computed with at a time: a line of a transposed tensor holds 16
// floats of one symbol.
constexpr std::int64_t kTile = 16;
// Elements that rows of working memory are rounded up to, and that lie free before and after them: the widest register.
constexpr std::int64_t kPad = 16;

constexpr std::int64_t padded(std::int64_t symbols) { return (symbols + kPad - 1) / kPad * kPad; }

struct AlignmentCall {
  View scores;        // (B, T, N): scores, or log-probabilities
  bool wide = false;  // compute in double
  std::int64_t batch = 0, frames = 0, symbols = 0;
  const std::int64_t* text_lengths = nullptr;  // (B,) within their axes
  const std::int64_t* mel_lengths = nullptr;
  std::int64_t* durations = nullptr;  // (B, N), of the search
  // Of the loss, in the type computed with.
  double blank = 0.0;
  const void* scale = nullptr;  // (B,) what loss and gradient are multiplied by
  void* losses = nullptr;       // (B,)
  void* gradient = nullptr;     // (B, T, N); null: not wanted
};

// Working memory of one utterance of at most so many frames and symbols, in bytes.
constexpr std::size_t search_bytes(std::int64_t frames, std::int64_t symbols, bool wide) {
  const std::int64_t rows = kTile * padded(symbols) + padded(symbols) + 2 * kPad;
  // A bit for each cell, in bytes that hold no more than a register's lanes: two doubles at the least.
  return static_cast<std::size_t>(rows * (wide ? 8 : 4) + frames * padded(symbols) / 2 + 64);
}

constexpr std::size_t sum_bytes(std::int64_t frames, std::int64_t symbols, bool wide, bool gradient) {
  const std::int64_t rows = kTile + (gradient ? frames : 1) + 3;
  const std::int64_t numbers = rows * (padded(symbols) + 2 * kPad) + frames;
  return static_cast<std::size_t>(numbers * (wide ? 8 : 4) + 8 * frames + 3 * 64);
}

// What one thread does for one utterance, one version for each instruction set.
using AlignmentTask = void(const AlignmentCall& call, std::int64_t utterance, unsigned char* working);
namespace baseline {
AlignmentTask search_task, forward_sum_task;
}
namespace avx2 {
AlignmentTask search_task, forward_sum_task;
}
namespace avx512 {
AlignmentTask search_task, forward_sum_task;
}

}  // namespace ttsfast
