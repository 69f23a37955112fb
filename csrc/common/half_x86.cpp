#include "common/half_kernels.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#if defined(__GNUC__) && !defined(__clang__)
// Of registers that its own headers leave undefined on purpose.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <cpuid.h>
#include <immintrin.h>

#include "common/half_scalar.h"

#define TTSFAST_AVX2 __attribute__((target("avx,avx2,f16c")))
#define TTSFAST_AVX512 __attribute__((target("avx,avx2,f16c,avx512f,avx512bw,avx512vl")))

namespace ttsfast {
namespace {

// The processor fetches ahead by itself, but not across the end of a page, and into caches that what is read once
// need not pass through. Measured on memory that is in no cache: a tenth faster than without, 512 bytes to 8 KiB
// ahead alike. The address may lie beyond the array: what does not exist is not fetched.
constexpr std::uintptr_t kAhead = 4096;

inline void fetch_ahead(const void* from) {
  _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<std::uintptr_t>(from) + kAhead), _MM_HINT_NTA);
}

// Rounded to nearest even; a NaN becomes the one that the scalar code writes.
TTSFAST_AVX2 inline __m256i upper_halves(__m256 wide) {
  const __m256i bits = _mm256_castps_si256(wide);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(wide, wide, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(_mm256_srli_epi32(sum, 16), _mm256_set1_epi32(kBfloatNaN), nan);
}

template <bool Stream>
TTSFAST_AVX2 void floats_eight(const std::uint16_t* from, float* to, std::size_t count) {
  std::size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    fetch_ahead(from + i);
    for (int k = 0; k < 32; k += 8) {
      const __m256 wide = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i + k)));
      if (Stream) {
        _mm256_stream_ps(to + i + k, wide);
      } else {
        _mm256_storeu_ps(to + i + k, wide);
      }
    }
  }
  floats_plain(from + i, to + i, count - i, false);
}

template <bool Stream>
TTSFAST_AVX2 void bfloats_eight(const std::uint16_t* from, std::uint16_t* to, std::size_t count) {
  std::size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    fetch_ahead(from + i);
    for (int k = 0; k < 32; k += 16) {
      const auto* in = reinterpret_cast<const __m128i*>(from + i + k);
      const __m256i low = upper_halves(_mm256_cvtph_ps(_mm_loadu_si128(in)));
      const __m256i high = upper_halves(_mm256_cvtph_ps(_mm_loadu_si128(in + 1)));
      // Packing takes turns between the two in each half of the register.
      const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xD8);
      if (Stream) {
        _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i + k), packed);
      } else {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i + k), packed);
      }
    }
  }
  bfloats_plain(from + i, to + i, count - i, false);
}

template <bool Stream>
TTSFAST_AVX512 void floats_sixteen(const std::uint16_t* from, float* to, std::size_t count) {
  std::size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    fetch_ahead(from + i);
    for (int k = 0; k < 32; k += 16) {
      const __m512 wide = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i + k)));
      if (Stream) {
        _mm512_stream_ps(to + i + k, wide);
      } else {
        _mm512_storeu_ps(to + i + k, wide);
      }
    }
  }
  floats_plain(from + i, to + i, count - i, false);
}

TTSFAST_AVX512 inline __m256i upper_halves(__m512 wide) {
  const __m512i bits = _mm512_castps_si512(wide);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __mmask16 nan = _mm512_cmp_ps_mask(wide, wide, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(
      _mm512_mask_blend_epi32(nan, _mm512_srli_epi32(sum, 16), _mm512_set1_epi32(kBfloatNaN)));
}

template <bool Stream>
TTSFAST_AVX512 void bfloats_sixteen(const std::uint16_t* from, std::uint16_t* to, std::size_t count) {
  std::size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    fetch_ahead(from + i);
    const auto* in = reinterpret_cast<const __m256i*>(from + i);
    const __m256i low = upper_halves(_mm512_cvtph_ps(_mm256_loadu_si256(in)));
    const __m256i high = upper_halves(_mm512_cvtph_ps(_mm256_loadu_si256(in + 1)));
    const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    if (Stream) {
      _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), both);
    } else {
      _mm512_storeu_si512(to + i, both);
    }
  }
  bfloats_plain(from + i, to + i, count - i, false);
}

// A whole line at once: it leaves the processor without waiting for its other parts.
TTSFAST_AVX512 void copy_lines(const unsigned char* from, unsigned char* to, std::size_t bytes, bool stream) {
  std::size_t i = 0;
  for (; stream && i + 64 <= bytes; i += 64) {
    fetch_ahead(from + i);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_loadu_si512(from + i));
  }
  copy_plain(from + i, to + i, bytes - i, false);
}

TTSFAST_AVX2 void copy_half_lines(const unsigned char* from, unsigned char* to, std::size_t bytes, bool stream) {
  std::size_t i = 0;
  for (; stream && i + 64 <= bytes; i += 64) {
    fetch_ahead(from + i);
    for (int k = 0; k < 64; k += 32)
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i + k),
                          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i + k)));
  }
  copy_plain(from + i, to + i, bytes - i, false);
}

template <void (*Streaming)(const std::uint16_t*, float*, std::size_t),
          void (*Cached)(const std::uint16_t*, float*, std::size_t)>
void floats_either(const std::uint16_t* from, float* to, std::size_t count, bool stream) {
  (stream ? Streaming : Cached)(from, to, count);
}

template <void (*Streaming)(const std::uint16_t*, std::uint16_t*, std::size_t),
          void (*Cached)(const std::uint16_t*, std::uint16_t*, std::size_t)>
void bfloats_either(const std::uint16_t* from, std::uint16_t* to, std::size_t count, bool stream) {
  (stream ? Streaming : Cached)(from, to, count);
}

bool has_f16c() {
  unsigned eax, ebx, ecx, edx;
  // The compiler's check for avx2 also asks whether the operating system keeps the wide registers.
  return __builtin_cpu_supports("avx2") && __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}

}  // namespace

const HalfKernels* half_f16c() {
  static const HalfKernels kernels{"f16c", floats_either<floats_eight<true>, floats_eight<false>>,
                                   bfloats_either<bfloats_eight<true>, bfloats_eight<false>>, copy_half_lines};
  return has_f16c() ? &kernels : nullptr;
}

const HalfKernels* half_avx512() {
  static const HalfKernels kernels{"avx512", floats_either<floats_sixteen<true>, floats_sixteen<false>>,
                                   bfloats_either<bfloats_sixteen<true>, bfloats_sixteen<false>>, copy_lines};
  const bool has = has_f16c() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl");
  return has ? &kernels : nullptr;
}

}  // namespace ttsfast

#else

namespace ttsfast {

const HalfKernels* half_f16c() { return nullptr; }
const HalfKernels* half_avx512() { return nullptr; }

}  // namespace ttsfast

#endif
