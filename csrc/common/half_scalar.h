// One value at a time: what every processor runs, and what the vectors leave over.
#pragma once

#include <cstdint>
#include <cstring>

namespace ttsfast {

constexpr std::uint32_t kBfloatNaN = 0x7FC0;

// A user's array may begin at an odd address.
inline std::uint16_t load_half(const std::uint16_t* from) {
  std::uint16_t half;
  std::memcpy(&half, from, 2);
  return half;
}

// Without branches, so that a loop over it becomes one over vectors.
inline float widen(std::uint16_t half) {
  const std::uint32_t sign = std::uint32_t(half & 0x8000u) << 16;
  const std::uint32_t magnitude = half & 0x7FFFu, shifted = magnitude << 13;
  // A subnormal is what it adds to 2^-14, the smallest normal half; the difference is one that float holds.
  const std::uint32_t lowest = 113u << 23, raised = shifted + lowest;
  float base, sum;
  std::memcpy(&base, &lowest, 4);
  std::memcpy(&sum, &raised, 4);
  sum -= base;
  std::uint32_t small;
  std::memcpy(&small, &sum, 4);
  // Infinity, or a NaN, which the processor's own conversion makes quiet.
  const std::uint32_t large = shifted | 0x7F800000u | (magnitude > 0x7C00u ? 0x00400000u : 0u);
  const std::uint32_t normal = shifted + (112u << 23);
  const std::uint32_t bits = sign | (magnitude >= 0x7C00u ? large : magnitude >= 0x0400u ? normal : small);
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline std::uint16_t to_bfloat(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const std::uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<std::uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? kBfloatNaN : rounded);
}

inline std::uint16_t narrow(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const std::uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<std::uint16_t>(sign | 0x7E00u);
  // 65520, halfway from the largest half to the next power of two, and all above it.
  if (magnitude >= 0x477FF000u) return static_cast<std::uint16_t>(sign | 0x7C00u);
  if (magnitude >= 0x38800000u)
    return static_cast<std::uint16_t>(sign | ((magnitude - (112u << 23) + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13));
  // Below the smallest normal half: adding 0.5 makes the sum's unit 2^-24, so the processor does the rounding.
  float sum;
  std::memcpy(&sum, &magnitude, 4);
  sum += 0.5f;
  std::memcpy(&bits, &sum, 4);
  return static_cast<std::uint16_t>(sign | (bits - 0x3F000000u));
}

}  // namespace ttsfast
