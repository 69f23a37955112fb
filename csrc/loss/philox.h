// Philox 4x32-10 and the normal noise made of it; the layout of counters, keys and bins is that of
// ttsfast/losses/philox.py, to the last bit of the integers.
// Part of one instruction set's version of the fused losses; see common/vector.h.
#pragma once

#include "common/vector.h"

namespace ttsfast {
namespace TTSFAST_ISA {

struct Words {
  WordVector x[4];
};

TTSFAST_INLINE void multiply(std::uint32_t constant, WordVector x, WordVector& high, WordVector& low) {
  const LongVector product = __builtin_convertvector(x, LongVector) * std::uint64_t(constant);
  high = __builtin_convertvector(product >> 32, WordVector);
  low = __builtin_convertvector(product, WordVector);
}

TTSFAST_INLINE Words philox(WordVector block, std::uint32_t frame, std::uint32_t batch, std::uint32_t seed,
                            std::uint32_t step) {
  WordVector x0 = block, x1 = WordVector{} + frame, x2 = WordVector{} + batch, x3{};
  for (int round = 0; round < 10; ++round) {
    WordVector high0, low0, high1, low1;
    multiply(0xD2511F53u, x0, high0, low0);
    multiply(0xCD9E8D57u, x2, high1, low1);
    x0 = high1 ^ x1 ^ seed;
    x1 = low1;
    x2 = high0 ^ x3 ^ step;
    x3 = low0;
    seed += 0x9E3779B9u;
    step += 0xBB67AE85u;
  }
  return {{x0, x1, x2, x3}};
}

// 2^-24 times the upper 24 bits, exactly.
TTSFAST_INLINE FloatVector upper_bits(WordVector word, std::int32_t plus) {
  return __builtin_convertvector(reinterpret_cast<IntVector>(word >> 8) + plus, FloatVector) * 5.9604644775390625e-8f;
}

// Two normal numbers per lane from two words.
TTSFAST_INLINE void box_muller(WordVector x, WordVector y, float* first, float* second) {
  FloatVector sine, cosine;
  sine_cosine(upper_bits(y, 0), sine, cosine);
  const FloatVector radius = square_root(-2.0f * logarithm(upper_bits(x, 1)));
  store(first, radius * cosine);
  store(second, radius * sine);
}

TTSFAST_INLINE void box_muller(WordVector x, WordVector y, double* first, double* second) {
  constexpr double unit = 5.9604644775390625e-8, turn = 6.283185307179586;
  for (std::int64_t i = 0; i < Lanes<float>::count; ++i) {
    const double radius = std::sqrt(-2.0 * std::log(((x[i] >> 8) + 1) * unit));
    const double angle = turn * ((y[i] >> 8) * unit);
    first[i] = radius * std::cos(angle);
    second[i] = radius * std::sin(angle);
  }
}

// Noise of the bins of one frame.
template <typename T>
void standard_normal(std::uint32_t seed, std::uint32_t step, std::uint32_t batch, std::uint32_t frame,
                     std::int64_t bins, T* row) {
  constexpr std::int64_t lanes = Lanes<float>::count;
  WordVector block{};
  for (std::int64_t i = 0; i < lanes; ++i) block[i] = static_cast<std::uint32_t>(i);
  for (std::int64_t first = 0; first < bins; first += 4 * lanes, block += static_cast<std::uint32_t>(lanes)) {
    const Words words = philox(block, frame, batch, seed, step);
    T normal[4][lanes];
    box_muller(words.x[0], words.x[1], normal[0], normal[1]);
    box_muller(words.x[2], words.x[3], normal[2], normal[3]);
    const std::int64_t count = bins - first < 4 * lanes ? bins - first : 4 * lanes;
    for (std::int64_t c = 0; c < count; ++c) row[first + c] = normal[c & 3][c >> 2];
  }
}

}  // namespace TTSFAST_ISA
}  // namespace ttsfast
