// Monotonic alignment search: the sums of one frame a vector at a time, written over those of the frame before, a bit
// for each cell, and back. Part of one instruction set's version of the alignment; see common/vector.h.
#pragma once

#include <type_traits>

#include "alignment/lines.h"

namespace ttsfast {
namespace TTSFAST_ISA {

// Which lanes move, and the sums that they then have; a lane that compares NaN stays.
TTSFAST_INLINE unsigned better(FloatVector move, FloatVector stay, FloatVector& best) {
#if TTSFAST_BYTES == 64
  const __mmask16 moved = _mm512_cmp_ps_mask(reinterpret_cast<__m512>(move), reinterpret_cast<__m512>(stay), _CMP_GT_OQ);
  best = reinterpret_cast<FloatVector>(_mm512_mask_blend_ps(moved, reinterpret_cast<__m512>(stay), reinterpret_cast<__m512>(move)));
  return moved;
#else
  const auto moved = move > stay;
  best = moved ? move : stay;
#if TTSFAST_BYTES == 32
  return static_cast<unsigned>(_mm256_movemask_ps(reinterpret_cast<__m256>(moved)));
#elif defined(__SSE2__)
  return static_cast<unsigned>(_mm_movemask_ps(reinterpret_cast<__m128>(moved)));
#else
  unsigned bits = 0;
  for (int lane = 0; lane < Lanes<float>::count; ++lane) bits |= (moved[lane] & 1u) << lane;
  return bits;
#endif
#endif
}

TTSFAST_INLINE unsigned better(DoubleVector move, DoubleVector stay, DoubleVector& best) {
  const auto moved = move > stay;
  best = moved ? move : stay;
  unsigned bits = 0;
  for (int lane = 0; lane < Lanes<double>::count; ++lane) bits |= static_cast<unsigned>(moved[lane] & 1) << lane;
  return bits;
}

template <typename T>
void search_utterance(const AlignmentCall& call, std::int64_t utterance, unsigned char* working) {
  using V = typename Lanes<T>::Vector;
  constexpr std::int64_t width = Lanes<T>::count;
  using Bits = std::conditional_t<width == 16, std::uint16_t, std::uint8_t>;
  const std::int64_t symbols = call.text_lengths[utterance], frames = call.mel_lengths[utterance];
  std::int64_t* const durations = call.durations + utterance * call.symbols;
  for (std::int64_t n = 0; n < call.symbols; ++n) durations[n] = 0;
  if (symbols == 0 || frames < symbols) return;

  Memory memory(working);
  Rows<T> rows(call, utterance, memory.numbers<T>(kTile * padded(symbols)));
  T* const sums = memory.row<T>(symbols, nowhere<T>());
  const std::int64_t words = (symbols + width - 1) / width;
  Bits* const moves = memory.numbers<Bits>(frames * words);

  sums[0] = rows.at(0)[0];
  for (std::int64_t t = 1; t < frames; ++t) {
    const T* const row = rows.at(t);
    Bits* const moved = moves + t * words;
    const std::int64_t reached = t < symbols ? t + 1 : symbols;
    const T diagonal = sums[t < symbols ? t - 1 : 0];
    V left = all<V>(nowhere<T>());
    for (std::int64_t i = 0; i < reached; i += width) {
      const V stay = load<V>(sums + i);
      V best;
      moved[i / width] = static_cast<Bits>(better(one_on(left, stay), stay, best));
      store(sums + i, part_of(row, i, symbols) + best);
      left = stay;
    }
    if (t < symbols) {
      // The symbol that is reached now at the earliest was not reached before, whatever the scores are.
      sums[t] = row[t] + diagonal;
      sums[t + 1] = nowhere<T>();
    }
  }

  std::int64_t n = symbols - 1;
  for (std::int64_t t = frames - 1; t > 0; --t) {
    ++durations[n];
    n -= n == t || (moves[t * words + n / width] >> (n % width) & 1);
  }
  ++durations[n];
}

}  // namespace TTSFAST_ISA
}  // namespace ttsfast
