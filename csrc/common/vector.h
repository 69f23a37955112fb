// Short vectors of float and double, and the functions that losses and alignment need on them. Compiled once per
// instruction set (see common/isa.inc), and inlined into that version's own functions, so nothing leaks into another's.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace ttsfast {
namespace TTSFAST_ISA {

typedef float FloatVector __attribute__((vector_size(TTSFAST_BYTES)));
typedef double DoubleVector __attribute__((vector_size(TTSFAST_BYTES)));
typedef std::int32_t IntVector __attribute__((vector_size(TTSFAST_BYTES)));
typedef std::uint32_t WordVector __attribute__((vector_size(TTSFAST_BYTES)));
typedef std::uint64_t LongVector __attribute__((vector_size(2 * TTSFAST_BYTES)));
typedef double SumVector __attribute__((vector_size(2 * TTSFAST_BYTES)));
typedef std::uint16_t HalfVector __attribute__((vector_size(TTSFAST_BYTES / 2)));

// A number as it is stored; computed in float.
struct Bfloat {
  std::uint16_t bits;
};

template <typename T>
struct Lanes;
template <>
struct Lanes<float> {
  using Vector = FloatVector;
  static constexpr std::int64_t count = TTSFAST_BYTES / 4;
};
template <>
struct Lanes<double> {
  using Vector = DoubleVector;
  static constexpr std::int64_t count = TTSFAST_BYTES / 8;
};

template <typename V>
struct Element;
template <>
struct Element<FloatVector> {
  using type = float;
};
template <>
struct Element<DoubleVector> {
  using type = double;
};

template <typename V>
TTSFAST_INLINE V all(typename Element<V>::type value) {
  return V{} + value;
}

// Of a vector of floats, those before `count`.
#if TTSFAST_BYTES == 64
TTSFAST_INLINE __mmask16 first_lanes(std::int64_t count) { return static_cast<__mmask16>((1u << count) - 1u); }
#elif TTSFAST_BYTES == 32
TTSFAST_INLINE IntVector first_lanes(std::int64_t count) {
  return IntVector{0, 1, 2, 3, 4, 5, 6, 7} < static_cast<std::int32_t>(count);
}
#endif

template <typename V, typename T>
TTSFAST_INLINE V load(const T* from) {
  V value;
  std::memcpy(&value, from, sizeof(V));
  return value;
}

// The first `count` elements, then those of `rest`. By name for floats: a copy of so many bytes calls a function.
template <typename V, typename T>
TTSFAST_INLINE V load(const T* from, std::int64_t count, V rest = V{}) {
#if TTSFAST_BYTES == 64
  if constexpr (std::is_same_v<V, FloatVector>)
    return reinterpret_cast<V>(_mm512_mask_loadu_ps(reinterpret_cast<__m512>(rest), first_lanes(count), from));
#elif TTSFAST_BYTES == 32
  if constexpr (std::is_same_v<V, FloatVector>) {
    const IntVector mask = first_lanes(count);
    const __m256 read = _mm256_maskload_ps(from, reinterpret_cast<__m256i>(mask));
    return mask ? reinterpret_cast<V>(read) : rest;
  }
#endif
  std::memcpy(&rest, from, static_cast<std::size_t>(count) * sizeof(T));
  return rest;
}

template <typename V, typename T>
TTSFAST_INLINE void store(T* to, V value) {
  std::memcpy(to, &value, sizeof(V));
}

template <typename V, typename T>
TTSFAST_INLINE void store(T* to, V value, std::int64_t count) {
#if TTSFAST_BYTES == 64
  if constexpr (std::is_same_v<V, FloatVector>) {
    _mm512_mask_storeu_ps(to, first_lanes(count), reinterpret_cast<__m512>(value));
    return;
  }
#elif TTSFAST_BYTES == 32
  if constexpr (std::is_same_v<V, FloatVector>) {
    _mm256_maskstore_ps(to, reinterpret_cast<__m256i>(first_lanes(count)), reinterpret_cast<__m256>(value));
    return;
  }
#endif
  std::memcpy(to, &value, static_cast<std::size_t>(count) * sizeof(T));
}

// The elements one place on: the last of `left`, then those of `here` but its last. From registers: read from
// memory, they would have to wait for both of the writes that they lie in.
template <typename V>
TTSFAST_INLINE V one_on(V left, V here) {
  constexpr int size = sizeof(left[0]);
#if TTSFAST_BYTES == 64
  return reinterpret_cast<V>(_mm512_maskz_alignr_epi32(0xFFFF, reinterpret_cast<__m512i>(here), reinterpret_cast<__m512i>(left), 16 - size / 4));
#elif TTSFAST_BYTES == 32
  const __m256i between = _mm256_permute2x128_si256(reinterpret_cast<__m256i>(left), reinterpret_cast<__m256i>(here), 0x21);
  return reinterpret_cast<V>(_mm256_alignr_epi8(reinterpret_cast<__m256i>(here), between, 16 - size));
#elif defined(__SSE2__)
  return reinterpret_cast<V>(_mm_or_si128(_mm_slli_si128(reinterpret_cast<__m128i>(here), size), _mm_srli_si128(reinterpret_cast<__m128i>(left), 16 - size)));
#else
  constexpr int last = TTSFAST_BYTES / size - 1;
  V result = here;
  for (int lane = last; lane > 0; --lane) result[lane] = here[lane - 1];
  result[0] = left[last];
  return result;
#endif
}

// The elements one place back: those of `here` but its first, then the first of `right`.
template <typename V>
TTSFAST_INLINE V one_back(V here, V right) {
  constexpr int size = sizeof(here[0]);
#if TTSFAST_BYTES == 64
  return reinterpret_cast<V>(_mm512_maskz_alignr_epi32(0xFFFF, reinterpret_cast<__m512i>(right), reinterpret_cast<__m512i>(here), size / 4));
#elif TTSFAST_BYTES == 32
  const __m256i between = _mm256_permute2x128_si256(reinterpret_cast<__m256i>(here), reinterpret_cast<__m256i>(right), 0x21);
  return reinterpret_cast<V>(_mm256_alignr_epi8(between, reinterpret_cast<__m256i>(here), size));
#elif defined(__SSE2__)
  return reinterpret_cast<V>(_mm_or_si128(_mm_srli_si128(reinterpret_cast<__m128i>(here), size), _mm_slli_si128(reinterpret_cast<__m128i>(right), 16 - size)));
#else
  constexpr int last = TTSFAST_BYTES / size - 1;
  V result = here;
  for (int lane = 0; lane < last; ++lane) result[lane] = here[lane + 1];
  result[last] = right[0];
  return result;
#endif
}

// Past the caches; `to` must be a multiple of the width of V. Where the processor has no such store of that width,
// an ordinary one.
template <typename V, typename T>
TTSFAST_INLINE void store_streaming(T* to, V value) {
#if TTSFAST_BYTES == 64
  if constexpr (sizeof(V) == 64) {
    __m512i bits;
    std::memcpy(&bits, &value, 64);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), bits);
    return;
  }
#endif
#if TTSFAST_BYTES >= 32
  if constexpr (sizeof(V) == 32) {
    __m256i bits;
    std::memcpy(&bits, &value, 32);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), bits);
    return;
  }
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(V) == 16) {
    __m128i bits;
    std::memcpy(&bits, &value, 16);
    _mm_stream_si128(reinterpret_cast<__m128i*>(to), bits);
    return;
  }
#endif
  store(to, value);
}

// Other threads must see what was streamed before they are told that it is there.
TTSFAST_INLINE void finish_streaming() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// A sum in double precision, one for each lane until the end.
template <typename T>
struct Sum;

template <>
struct Sum<float> {
  SumVector lanes{};
  TTSFAST_INLINE void add(FloatVector value) { lanes += __builtin_convertvector(value, SumVector); }
};

template <>
struct Sum<double> {
  DoubleVector lanes{};
  TTSFAST_INLINE void add(DoubleVector value) { lanes += value; }
};

template <typename T>
TTSFAST_INLINE double total_of(const Sum<T>& sum) {
  double total = 0;
  for (std::size_t i = 0; i < sizeof(sum.lanes) / sizeof(double); ++i) total += sum.lanes[i];
  return total;
}

// The smaller and the larger of the bound and the value; a value that is NaN stays NaN. By name, since
// compilers turn a choice between vectors into a comparison and a blend.
TTSFAST_INLINE FloatVector at_most(FloatVector bound, FloatVector value) {
#if TTSFAST_BYTES == 64
  return reinterpret_cast<FloatVector>(_mm512_maskz_min_ps(0xFFFF, reinterpret_cast<__m512>(bound), reinterpret_cast<__m512>(value)));
#elif TTSFAST_BYTES == 32
  return reinterpret_cast<FloatVector>(_mm256_min_ps(reinterpret_cast<__m256>(bound), reinterpret_cast<__m256>(value)));
#elif defined(__SSE2__)
  return reinterpret_cast<FloatVector>(_mm_min_ps(reinterpret_cast<__m128>(bound), reinterpret_cast<__m128>(value)));
#else
  return bound < value ? bound : value;
#endif
}

TTSFAST_INLINE FloatVector at_least(FloatVector bound, FloatVector value) {
#if TTSFAST_BYTES == 64
  return reinterpret_cast<FloatVector>(_mm512_maskz_max_ps(0xFFFF, reinterpret_cast<__m512>(bound), reinterpret_cast<__m512>(value)));
#elif TTSFAST_BYTES == 32
  return reinterpret_cast<FloatVector>(_mm256_max_ps(reinterpret_cast<__m256>(bound), reinterpret_cast<__m256>(value)));
#elif defined(__SSE2__)
  return reinterpret_cast<FloatVector>(_mm_max_ps(reinterpret_cast<__m128>(bound), reinterpret_cast<__m128>(value)));
#else
  return bound > value ? bound : value;
#endif
}

TTSFAST_INLINE DoubleVector at_most(DoubleVector bound, DoubleVector value) { return bound < value ? bound : value; }
TTSFAST_INLINE DoubleVector at_least(DoubleVector bound, DoubleVector value) { return bound > value ? bound : value; }

template <typename V>
TTSFAST_INLINE V clamp(V value, V low, V high) {
  return at_least(low, at_most(high, value));
}

TTSFAST_INLINE FloatVector absolute(FloatVector value) {
  return reinterpret_cast<FloatVector>(reinterpret_cast<WordVector>(value) & 0x7FFFFFFFu);
}

TTSFAST_INLINE DoubleVector absolute(DoubleVector value) { return value < 0 ? -value : value; }

// 2^k for integers -127 < k < 128 held as floats.
TTSFAST_INLINE FloatVector power_of_two(FloatVector k) {
  return reinterpret_cast<FloatVector>((reinterpret_cast<WordVector>(__builtin_convertvector(k, IntVector)) + 127u) << 23);
}

TTSFAST_INLINE FloatVector nearest(FloatVector value) {
  // Beyond 2^23 a float has no fraction: adding this rounds it off. Right for |value| < 2^22.
  const float shift = 12582912.0f;
  return (value + shift) - shift;
}

// x = k ln 2 + f with |f| <= ln(2)/2, up to x = 88.4; beyond, k stays and f grows until e^f overflows.
struct Split {
  FloatVector k, f;
  FloatVector scale;  // 2^k
  FloatVector tail;   // e^f - 1 - f by Taylor's series
};

TTSFAST_INLINE Split split(FloatVector x) {
  x = at_least(all<FloatVector>(-87.0f), x);
  const FloatVector k = at_most(all<FloatVector>(127.0f), nearest(x * 1.44269504f));
  // ln 2 in two parts: the first has few enough bits that its product with k is exact.
  const FloatVector f = (x - k * 0.693145752f) - k * 1.42860677e-6f;
  // In pairs rather than one after the other: the loops wait for this chain of dependent operations.
  const FloatVector q = f * f;
  const FloatVector low = 0.5f + f * 1.66666667e-1f, middle = 4.16666667e-2f + f * 8.33333333e-3f;
  const FloatVector high = (1.38888889e-3f + f * 1.98412698e-4f) + q * 2.48015873e-5f;
  return {k, f, power_of_two(k), q * (low + q * (middle + q * high))};
}

// e^x; 0 below the smallest normal float.
TTSFAST_INLINE FloatVector power(FloatVector x) {
  const Split s = split(x);
  const FloatVector result = s.scale + s.scale * (s.f + s.tail);
  return x < -87.0f ? FloatVector{} : result;
}

TTSFAST_INLINE DoubleVector power(DoubleVector x) {
  for (std::int64_t i = 0; i < Lanes<double>::count; ++i) x[i] = std::exp(x[i]);
  return x;
}

struct Exponential {
  FloatVector minus_one;   // e^x - 1
  FloatVector minus_line;  // e^x - 1 - x, precise near 0 too, where subtracting would cancel
};

TTSFAST_INLINE Exponential exponential(FloatVector x) {
  const Split s = split(x);
  const FloatVector minus_one = s.scale * (s.f + s.tail) + (s.scale - 1.0f);
  return {minus_one, s.k == 0.0f ? s.tail : minus_one - x};
}

struct WideExponential {
  DoubleVector minus_one, minus_line;
};

TTSFAST_INLINE WideExponential exponential(DoubleVector x) {
  WideExponential result;
  for (std::int64_t i = 0; i < Lanes<double>::count; ++i) {
    result.minus_one[i] = std::expm1(x[i]);
    result.minus_line[i] = result.minus_one[i] - x[i];
  }
  return result;
}

// log(1 + e) for 0 <= e <= 1: 2 atanh(e / (2 + e)) as its series.
TTSFAST_INLINE FloatVector log_one_plus(FloatVector e) {
  const FloatVector s = e / (2.0f + e), q = s * s;
  return 2.0f * s + 2.0f * s * q *
         (3.33333333e-1f +
          q * (2.0e-1f +
               q * (1.42857143e-1f +
                    q * (1.11111111e-1f +
                         q * (9.09090909e-2f + q * (7.69230769e-2f + q * (6.66666667e-2f + q * 5.88235294e-2f)))))));
}

TTSFAST_INLINE DoubleVector log_one_plus(DoubleVector e) {
  for (std::int64_t i = 0; i < Lanes<double>::count; ++i) e[i] = std::log1p(e[i]);
  return e;
}

// Natural logarithm of normal positive floats.
TTSFAST_INLINE FloatVector logarithm(FloatVector x) {
  const IntVector bits = reinterpret_cast<IntVector>(x);
  // Mantissas in [sqrt(1/2), sqrt(2)), so that log is small where x is near 1.
  const IntVector exponent = (bits - 0x3F3504F3) >> 23;
  const FloatVector mantissa = reinterpret_cast<FloatVector>(bits - (exponent << 23));
  const FloatVector k = __builtin_convertvector(exponent, FloatVector);
  const FloatVector z = mantissa - 1.0f, s = z / (2.0f + z), q = s * s;
  const FloatVector series =
      2.0f * s + 2.0f * s * q * (3.33333333e-1f + q * (2.0e-1f + q * (1.42857143e-1f + q * 1.11111111e-1f)));
  return k * 0.693145752f + (k * 1.42860677e-6f + series);
}

TTSFAST_INLINE FloatVector square_root(FloatVector x) {
  for (std::int64_t i = 0; i < Lanes<float>::count; ++i) x[i] = std::sqrt(x[i]);
  return x;
}

// sine and cosine of 2 pi v for 0 <= v < 1: the quadrant is split off exactly, the rest is Taylor's series.
TTSFAST_INLINE void sine_cosine(FloatVector v, FloatVector& sine, FloatVector& cosine) {
  const FloatVector turns = 4.0f * v, quadrant = nearest(turns);
  const FloatVector x = (turns - quadrant) * 1.57079633f, q = x * x;
  const FloatVector s =
      x + x * q * (-1.66666667e-1f + q * (8.33333333e-3f + q * (-1.98412698e-4f + q * 2.75573192e-6f)));
  const FloatVector c =
      1.0f + q * (-0.5f + q * (4.16666667e-2f + q * (-1.38888889e-3f + q * (2.48015873e-5f - q * 2.75573192e-7f))));
  const IntVector turn = __builtin_convertvector(quadrant, IntVector);
  const auto swapped = (turn & 1) != 0;
  sine = swapped ? c : s;
  cosine = swapped ? s : c;
  sine = (turn & 2) != 0 ? -sine : sine;
  cosine = ((turn + 1) & 2) != 0 ? -cosine : cosine;
}

// By name, since compilers take vectors of halves apart to convert them.
TTSFAST_INLINE FloatVector widen_bfloat(HalfVector half) {
#if TTSFAST_BYTES == 64
  const WordVector wide = reinterpret_cast<WordVector>(_mm512_maskz_cvtepu16_epi32(0xFFFF, reinterpret_cast<__m256i>(half)));
#elif TTSFAST_BYTES == 32
  const WordVector wide = reinterpret_cast<WordVector>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(half)));
#else
  const WordVector wide = __builtin_convertvector(half, WordVector);
#endif
  return reinterpret_cast<FloatVector>(wide << 16);
}

// Round to nearest, ties to even; NaN stays NaN.
TTSFAST_INLINE HalfVector narrow_bfloat(FloatVector value) {
  const WordVector bits = reinterpret_cast<WordVector>(value);
  const auto ordered = value == value;
  const WordVector rounded = ordered ? bits + (0x7FFFu + ((bits >> 16) & 1u)) : bits | 0x400000u;
  // The upper half of each word, side by side.
  HalfVector half;
#if TTSFAST_BYTES == 64
  const __m512i odd = _mm512_set_epi64(0, 0, 0, 0, 0x001F001D001B0019, 0x0017001500130011, 0x000F000D000B0009, 0x0007000500030001);
  const __m512i packed = _mm512_maskz_permutexvar_epi16(0xFFFFFFFF, odd, reinterpret_cast<__m512i>(rounded));
  std::memcpy(&half, &packed, sizeof(half));
#elif TTSFAST_BYTES == 32
  // Packing takes turns between the two halves of the register.
  const __m256i upper = reinterpret_cast<__m256i>(rounded >> 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(upper, upper), 0x08);
  std::memcpy(&half, &packed, sizeof(half));
#else
  half = __builtin_convertvector(rounded >> 16, HalfVector);
#endif
  return half;
}

}  // namespace TTSFAST_ISA
}  // namespace ttsfast
