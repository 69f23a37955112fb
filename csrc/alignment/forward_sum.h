// The forward-sum loss of one utterance: sums forwards, sums backwards, and the gradient, in log space.
// Part of one instruction set's version of the alignment; see common/vector.h. Steps and names: docs/derivation.md.
#pragma once

#include "alignment/lines.h"

namespace ttsfast {
namespace TTSFAST_ISA {

// log(e^a + e^b). Where only one is NaN, it must be b.
template <typename V>
TTSFAST_INLINE V log_add(V a, V b) {
  using T = typename Element<V>::type;
  const V high = at_least(a, b);
  const V sum = high + log_one_plus(power(-absolute(a - b)));
  // Of two negative infinities the difference is NaN.
  return high == nowhere<T>() ? high : sum;
}

// log(e^blank + sum e^x).
template <typename T>
TTSFAST_INLINE T log_norm(const T* row, std::int64_t symbols, T blank) {
  using V = typename Lanes<T>::Vector;
  V high = all<V>(blank);
  for (std::int64_t i = 0; i < symbols; i += Lanes<T>::count) high = at_least(high, part_of(row, i, symbols));
  const T top = largest<T>(high);
  V sum{};
  for (std::int64_t i = 0; i < symbols; i += Lanes<T>::count) sum += power(part_of(row, i, symbols) - top);
  T total = std::exp(blank - top);
  for (std::int64_t lane = 0; lane < Lanes<T>::count; ++lane) total += sum[lane];
  return top + std::log(total);
}

// What sums of a frame are kept relative to: the largest of elements first..last - 1. Where all are of probability 0,
// they are kept as they are.
template <typename T>
TTSFAST_INLINE T level_of(const T* sums, std::int64_t first, std::int64_t last, T high = nowhere<T>()) {
  auto most = all<typename Lanes<T>::Vector>(high);
  for (std::int64_t i = first; i < last; i += Lanes<T>::count) most = at_least(most, part_of(sums, i, last));
  const T found = largest<T>(most);
  return found == nowhere<T>() ? 0 : found;
}

template <typename T>
void forward_sum_utterance(const AlignmentCall& call, std::int64_t utterance, unsigned char* working) {
  using V = typename Lanes<T>::Vector;
  constexpr std::int64_t width = Lanes<T>::count;
  const std::int64_t symbols = call.text_lengths[utterance], frames = call.mel_lengths[utterance];
  const T scale = static_cast<const T*>(call.scale)[utterance], blank = static_cast<T>(call.blank);
  T* const loss = static_cast<T*>(call.losses) + utterance;
  T* const gradient =
      call.gradient == nullptr ? nullptr : static_cast<T*>(call.gradient) + utterance * call.frames * call.symbols;
  const auto zeros = [&](std::int64_t first, std::int64_t last) {
    if (last > first) std::memset(gradient + first, 0, static_cast<std::size_t>(last - first) * sizeof(T));
  };
  if (symbols == 0 || frames < symbols) {
    *loss = 0;
    if (gradient != nullptr) zeros(0, call.frames * call.symbols);
    return;
  }

  Memory memory(working);
  double* const offsets = memory.numbers<double>(frames);
  Rows<T> rows(call, utterance, memory.numbers<T>(kTile * padded(symbols)));
  T* const norms = memory.numbers<T>(frames);
  T* const passed = memory.row<T>(symbols, nowhere<T>());
  const std::int64_t stride = gradient == nullptr ? 0 : padded(symbols);
  T* const labels = memory.numbers<T>(stride == 0 ? padded(symbols) : stride * frames);
  for (std::int64_t i = 0; i < padded(symbols); ++i) labels[i] = nowhere<T>();

  // Forwards: `labels` is L, `passed` is C, `none` is C of no symbol. All of a frame are relative to its
  // offset, the largest that can still reach the end, so that the precision is that of what matters at the frame.
  double offset = 0;
  T shift = 0;
  T none = 0;
  for (std::int64_t t = 0; t < frames; ++t) {
    const T* const row = rows.at(t);
    const T norm = norms[t] = log_norm(row, symbols, blank), waiting = blank - norm - shift;
    offset += static_cast<double>(shift);
    offsets[t] = offset;
    const T* const from = labels + (t > 0 ? t - 1 : 0) * stride;
    T* const to = labels + t * stride;
    V left = all<V>(none);
    none += waiting;
    for (std::int64_t i = 0; i < symbols; i += width) {
      const V emitted = part_of(row, i, symbols) - norm - shift, before = load<V>(passed + i);
      const V label = emitted + log_add(load<V>(from + i), one_on(left, before));
      store(to + i, label);
      store(passed + i, log_add(label, before + waiting));
      left = before;
    }
    const std::int64_t least = symbols - frames + t;
    shift = least < 0 ? level_of(passed, 0, symbols, none) : level_of(passed, least, symbols);
  }
  const double total = offset + static_cast<double>(passed[symbols - 1]);
  *loss = static_cast<T>(-total) * scale;
  if (gradient == nullptr) return;

  // Backwards: `after` is the sum over what may follow the label, `rest` that over what may follow its end.
  T* const after = memory.row<T>(symbols, nowhere<T>());
  T* const rest = memory.row<T>(symbols, nowhere<T>());
  after[symbols - 1] = rest[symbols - 1] = 0;
  offset = 0;
  shift = 0;
  for (std::int64_t t = frames - 1; t >= 0; --t) {
    const T* const row = rows.at(t);
    const T norm = norms[t], waiting = blank - norm;
    offset += static_cast<double>(shift);
    const T level = static_cast<T>(offsets[t] + offset - total);
    const T* const label = labels + t * stride;
    T* const slope = gradient + t * call.symbols;
    zeros(t * call.symbols + symbols, (t + 1) * call.symbols);
    V right = all<V>(nowhere<T>());
    for (std::int64_t i = (symbols - 1) / width * width; i >= 0; i -= width) {
      const V emitted = part_of(row, i, symbols) - norm, following = load<V>(after + i) - shift, next = emitted + following;
      const V value = scale * (power(emitted) - power(load<V>(label + i) + following + level));
      store(slope + i, value, symbols - i < width ? symbols - i : width);
      const V ended = log_add(one_back(next, right), load<V>(rest + i) - shift + waiting);
      store(rest + i, ended);
      store(after + i, log_add(next, ended));
      right = next;
    }
    // Of the symbols that the frame before can have reached.
    shift = level_of(after, 0, t < symbols ? t : symbols);
  }
  zeros(frames * call.symbols, call.frames * call.symbols);
}

}  // namespace TTSFAST_ISA
}  // namespace ttsfast
