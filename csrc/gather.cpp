#include "gather.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define TTSFAST_HALF_X86 1
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace ttsfast {
namespace {

using Convert = void (*)(const std::uint16_t*, float*, std::size_t);

inline float widen(std::uint16_t half) {
  const std::uint32_t sign = std::uint32_t(half & 0x8000u) << 16;
  const std::uint32_t magnitude = half & 0x7FFFu;
  std::uint32_t bits;
  if (magnitude >= 0x7C00u) {
    // Infinity, or a NaN, which the processor's own conversion makes quiet.
    bits = sign | 0x7F800000u | ((magnitude & 0x3FFu) << 13) | (magnitude > 0x7C00u ? 0x00400000u : 0u);
  } else if (magnitude >= 0x0400u) {
    bits = sign | ((magnitude << 13) + (112u << 23));
  } else {
    // A subnormal is its integer times 2^-24, which float holds exactly.
    const float value = float(magnitude) * 5.9604644775390625e-8f;
    std::memcpy(&bits, &value, 4);
    bits |= sign;
  }
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

void convert_scalar(const std::uint16_t* from, float* to, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    // A user's array may begin at an odd address.
    std::uint16_t half;
    std::memcpy(&half, from + i, 2);
    to[i] = widen(half);
  }
}

#if TTSFAST_HALF_X86

__attribute__((target("avx,f16c"))) void convert_vector(const std::uint16_t* from, float* to, std::size_t count) {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
  convert_scalar(from + i, to + i, count - i);
}

bool has_vector() {
  unsigned eax, ebx, ecx, edx;
  // The compiler's check for avx also asks whether the operating system keeps the wide registers.
  return __builtin_cpu_supports("avx") && __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}
constexpr const char* kVector = "f16c";

#elif defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))

// Every aarch64 processor converts; the compiler vectorises the loop.
void convert_vector(const std::uint16_t* from, float* to, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    __fp16 half;
    std::memcpy(&half, from + i, 2);
    to[i] = half;
  }
}

bool has_vector() { return true; }
constexpr const char* kVector = "neon";

#else

constexpr Convert convert_vector = nullptr;
bool has_vector() { return false; }
constexpr const char* kVector = "scalar";

#endif

Convert choose() { return has_vector() ? Convert(convert_vector) : Convert(convert_scalar); }

void fill_rows(const float* row, std::size_t rows, std::size_t bins, float* out) {
  for (std::size_t i = 0; i < rows; ++i) std::copy(row, row + bins, out + i * bins);
}

}  // namespace

void half_to_float(const std::uint16_t* from, float* to, std::size_t count) {
  static const Convert convert = choose();
  convert(from, to, count);
}

void half_to_float_scalar(const std::uint16_t* from, float* to, std::size_t count) {
  convert_scalar(from, to, count);
}

const char* half_implementation() { return has_vector() ? kVector : "scalar"; }

void gather_frames(const std::vector<Frames>& batch, std::size_t padded, std::size_t bins, const float* pad,
                   float* out) {
  for (const Frames& utterance : batch) {
    const std::size_t values = utterance.frames * bins;
    if (utterance.half) {
      half_to_float(static_cast<const std::uint16_t*>(utterance.data), out, values);
    } else if (values > 0) {
      std::memcpy(out, utterance.data, values * sizeof(float));
    }
    fill_rows(pad, padded - utterance.frames, bins, out + values);
    out += padded * bins;
  }
}

}  // namespace ttsfast
