// Rows of scores as adjacent numbers of the type computed with, and vectors of them.
// Part of one instruction set's version of the alignment; see common/vector.h.
#pragma once

#include "alignment/call.h"
#include "common/vector.h"

namespace ttsfast {
namespace TTSFAST_ISA {

template <typename T>
constexpr T nowhere() {
  return -static_cast<T>(__builtin_huge_val());
}

TTSFAST_INLINE float read(const float* from, Type) { return *from; }
TTSFAST_INLINE double read(const double* from, Type) { return *from; }
TTSFAST_INLINE float read(const std::uint16_t* from, Type type) {
  if (type == Type::f16) return widen(*from);
  const std::uint32_t bits = std::uint32_t(*from) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

template <typename T, typename S>
void bring(const S* from, Type type, std::int64_t along_t, std::int64_t along_n, std::int64_t count, std::int64_t symbols,
           std::int64_t width, T* to) {
  const auto one = [&](std::int64_t k, std::int64_t n) TTSFAST_INLINE_CALL {
    to[k * width + n] = static_cast<T>(read(from + k * along_t + n * along_n, type));
  };
  if (along_t < along_n) {
    for (std::int64_t n = 0; n < symbols; ++n)
      for (std::int64_t k = 0; k < count; ++k) one(k, n);
  } else {
    for (std::int64_t k = 0; k < count; ++k)
      for (std::int64_t n = 0; n < symbols; ++n) one(k, n);
  }
}

// The rows of one utterance, asked for in order, forwards or backwards.
template <typename T>
class Rows {
 public:
  Rows(const AlignmentCall& call, std::int64_t utterance, T* memory)
      : view_(call.scores),
        symbols_(call.text_lengths[utterance]),
        frames_(call.mel_lengths[utterance]),
        start_(utterance * call.scores.stride[0]),
        memory_(memory),
        direct_(call.scores.stride[2] == 1 && call.scores.type == (sizeof(T) == 8 ? Type::f64 : Type::f32)) {}

  TTSFAST_INLINE const T* at(std::int64_t t) {
    if (direct_) return static_cast<const T*>(view_.data) + start_ + t * view_.stride[1];
    if (t / kTile != tile_) load_tile(t / kTile);
    return memory_ + t % kTile * padded(symbols_);
  }

 private:
  void load_tile(std::int64_t tile) {
    tile_ = tile;
    const std::int64_t first = tile * kTile, count = frames_ - first < kTile ? frames_ - first : kTile;
    const std::int64_t from = start_ + first * view_.stride[1];
    const auto tile_of = [&](const auto* data) {
      bring(data + from, view_.type, view_.stride[1], view_.stride[2], count, symbols_, padded(symbols_), memory_);
    };
    switch (view_.type) {
      case Type::f32: return tile_of(static_cast<const float*>(view_.data));
      case Type::f64: return tile_of(static_cast<const double*>(view_.data));
      default: return tile_of(static_cast<const std::uint16_t*>(view_.data));
    }
  }

  View view_;
  std::int64_t symbols_, frames_, start_;
  T* memory_;
  bool direct_;
  std::int64_t tile_ = -1;
};

// Elements i and on of a row of n, and -inf beyond its end.
template <typename T>
TTSFAST_INLINE typename Lanes<T>::Vector part_of(const T* row, std::int64_t i, std::int64_t n) {
  using V = typename Lanes<T>::Vector;
  return i + Lanes<T>::count <= n ? load<V>(row + i) : load<V>(row + i, n - i, all<V>(nowhere<T>()));
}

template <typename T>
TTSFAST_INLINE T largest(typename Lanes<T>::Vector values) {
  T result = values[0];
  for (std::int64_t lane = 1; lane < Lanes<T>::count; ++lane) result = result < values[lane] ? values[lane] : result;
  return result;
}

// Working memory, handed out piece by piece, each at the start of a cache line; each row with room before and after it.
class Memory {
 public:
  explicit Memory(unsigned char* from) : next_(from + (-reinterpret_cast<std::intptr_t>(from) & 63)) {}

  template <typename T>
  T* numbers(std::int64_t count) {
    T* const result = reinterpret_cast<T*>(next_);
    next_ += (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return result;
  }

  template <typename T>
  T* row(std::int64_t symbols, T value) {
    const std::int64_t count = padded(symbols) + 2 * kPad;
    T* const result = numbers<T>(count);
    for (std::int64_t i = 0; i < count; ++i) result[i] = value;
    return result + kPad;
  }

 private:
  unsigned char* next_;
};

}  // namespace TTSFAST_ISA
}  // namespace ttsfast
