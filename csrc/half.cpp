#include "half.h"

#include <algorithm>
#include <cstring>

#include "half_scalar.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define TTSFAST_HALF_X86 1
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace ttsfast {
namespace {

// What this processor has. The streaming ones write past the caches, to addresses that are multiples of 64.
struct Kernels {
  void (*floats)(const std::uint16_t*, float*, std::size_t);
  void (*floats_streaming)(const std::uint16_t*, float*, std::size_t);
  void (*copy_streaming)(const unsigned char*, unsigned char*, std::size_t);
  const char* name;
};

void floats_scalar(const std::uint16_t* from, float* to, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const float value = widen(load_half(from + i));
    std::memcpy(to + i, &value, 4);
  }
}

#if TTSFAST_HALF_X86

// Eight lanes: sixteen (AVX-512) were measured and gained nothing, since memory is what is waited for.
template <bool Stream>
__attribute__((target("avx,f16c"))) void floats_f16c(const std::uint16_t* from, float* to, std::size_t count) {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 wide = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
    if (Stream) {
      _mm256_stream_ps(to + i, wide);
    } else {
      _mm256_storeu_ps(to + i, wide);
    }
  }
  floats_scalar(from + i, to + i, count - i);
}

void copy_streaming_sse2(const unsigned char* from, unsigned char* to, std::size_t bytes) {
  std::size_t i = 0;
  for (; i + 64 <= bytes; i += 64) {
    __m128i part[4];
    std::memcpy(part, from + i, 64);
    for (int k = 0; k < 4; ++k) _mm_stream_si128(reinterpret_cast<__m128i*>(to + i) + k, part[k]);
  }
  std::memcpy(to + i, from + i, bytes - i);
}

Kernels choose() {
  unsigned eax, ebx, ecx, edx;
  // The compiler's check for avx also asks whether the operating system keeps the wide registers.
  if (__builtin_cpu_supports("avx") && __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0)
    return {floats_f16c<false>, floats_f16c<true>, copy_streaming_sse2, "f16c"};
  return {floats_scalar, floats_scalar, copy_streaming_sse2, "scalar"};
}

#else

void copy_plain(const unsigned char* from, unsigned char* to, std::size_t bytes) { std::memcpy(to, from, bytes); }

#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))

// Every aarch64 processor converts; the compiler vectorises the loop.
void floats_neon(const std::uint16_t* from, float* to, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    __fp16 half;
    std::memcpy(&half, from + i, 2);
    const float value = half;
    std::memcpy(to + i, &value, 4);
  }
}

Kernels choose() { return {floats_neon, floats_neon, copy_plain, "neon"}; }

#else

Kernels choose() { return {floats_scalar, floats_scalar, copy_plain, "scalar"}; }

#endif
#endif

const Kernels& kernels() {
  static const Kernels chosen = choose();
  return chosen;
}

// Through floats, which hold every half exactly, a piece at a time that stays in the nearest cache. The loop over
// plain integers is one that compilers vectorise on any processor.
void bfloats(const std::uint16_t* from, unsigned char* to, std::size_t count) {
  constexpr std::size_t kPiece = 1024;
  float wide[kPiece];
  std::uint16_t rounded[kPiece];
  for (std::size_t done = 0; done < count; done += kPiece) {
    const std::size_t piece = std::min(kPiece, count - done);
    kernels().floats(from + done, wide, piece);
    for (std::size_t i = 0; i < piece; ++i) rounded[i] = to_bfloat(wide[i]);
    std::memcpy(to + 2 * done, rounded, 2 * piece);
  }
}

// Bytes from `to` up to the next multiple of 64.
std::size_t before_line(const void* to) { return (64 - reinterpret_cast<std::uintptr_t>(to) % 64) % 64; }

}  // namespace

void half_to_float(const std::uint16_t* from, float* to, std::size_t count) { kernels().floats(from, to, count); }

void half_to_float_scalar(const std::uint16_t* from, float* to, std::size_t count) {
  floats_scalar(from, to, count);
}

void round_float(const float* from, Element element, void* to, std::size_t count) {
  auto* out = static_cast<unsigned char*>(to);
  if (element == Element::f32) {
    std::memcpy(out, from, count * 4);
    return;
  }
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint16_t value = element == Element::bf16 ? to_bfloat(from[i]) : narrow(from[i]);
    std::memcpy(out + 2 * i, &value, 2);
  }
}

void convert_half(const std::uint16_t* from, Element element, void* to, std::size_t count, bool streaming) {
  if (element == Element::f16) {
    copy_bytes(from, to, count * 2, streaming);
  } else if (element == Element::bf16) {
    bfloats(from, static_cast<unsigned char*>(to), count);
  } else {
    auto* out = static_cast<float*>(to);
    const std::size_t head = before_line(to);
    if (!streaming || head % 4 != 0) {
      kernels().floats(from, out, count);
      return;
    }
    const std::size_t first = std::min(head / 4, count);
    kernels().floats(from, out, first);
    kernels().floats_streaming(from + first, out + first, count - first);
  }
}

void copy_bytes(const void* from, void* to, std::size_t bytes, bool streaming) {
  const auto* in = static_cast<const unsigned char*>(from);
  auto* out = static_cast<unsigned char*>(to);
  if (bytes == 0) return;
  if (!streaming) {
    std::memcpy(out, in, bytes);
    return;
  }
  const std::size_t first = std::min(before_line(to), bytes);
  std::memcpy(out, in, first);
  kernels().copy_streaming(in + first, out + first, bytes - first);
}

void end_streaming() {
#if TTSFAST_HALF_X86
  _mm_sfence();
#endif
}

const char* half_implementation() { return kernels().name; }

}  // namespace ttsfast
