// Short vectors of float and double, and the functions the losses need on them. Included by one file per
// instruction set, which defines TTSFAST_ISA (the namespace) and TTSFAST_BYTES (the width of a register).
// Everything here is inlined into that file's own functions, so nothing leaks into another's.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define TTSFAST_INLINE inline __attribute__((always_inline))
#define TTSFAST_INLINE_CALL __attribute__((always_inline))

namespace ttsfast {
namespace TTSFAST_ISA {

typedef float FloatVector __attribute__((vector_size(TTSFAST_BYTES)));
typedef double DoubleVector __attribute__((vector_size(TTSFAST_BYTES)));
typedef std::int32_t IntVector __attribute__((vector_size(TTSFAST_BYTES)));
typedef std::uint32_t WordVector __attribute__((vector_size(TTSFAST_BYTES)));
typedef std::uint64_t LongVector __attribute__((vector_size(2 * TTSFAST_BYTES)));
typedef std::uint16_t HalfVector __attribute__((vector_size(TTSFAST_BYTES / 2)));

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

template <typename V, typename T>
TTSFAST_INLINE V load(const T* from) {
  V value;
  std::memcpy(&value, from, sizeof(V));
  return value;
}

// The first `count` elements, then zeros.
template <typename V, typename T>
TTSFAST_INLINE V load(const T* from, std::int64_t count) {
  V value{};
  std::memcpy(&value, from, static_cast<std::size_t>(count) * sizeof(T));
  return value;
}

template <typename V, typename T>
TTSFAST_INLINE void store(T* to, V value) {
  std::memcpy(to, &value, sizeof(V));
}

template <typename V, typename T>
TTSFAST_INLINE void store(T* to, V value, std::int64_t count) {
  std::memcpy(to, &value, static_cast<std::size_t>(count) * sizeof(T));
}

// Past the caches; `to` must be a multiple of the register's width.
template <typename V, typename T>
TTSFAST_INLINE void store_streaming(T* to, V value) {
#if TTSFAST_BYTES == 64
  __m512i bits;
  std::memcpy(&bits, &value, 64);
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), bits);
#elif TTSFAST_BYTES == 32
  __m256i bits;
  std::memcpy(&bits, &value, 32);
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), bits);
#elif defined(__SSE2__)
  __m128i bits;
  std::memcpy(&bits, &value, 16);
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), bits);
#else
  store(to, value);
#endif
}

// Other threads must see what was streamed before they are told that it is there.
TTSFAST_INLINE void finish_streaming() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

template <typename V>
TTSFAST_INLINE double sum(V value) {
  double total = 0;
  for (std::size_t i = 0; i < sizeof(V) / sizeof(value[0]); ++i) total += static_cast<double>(value[i]);
  return total;
}

// NaN stays NaN: no comparison with it holds.
template <typename V>
TTSFAST_INLINE V clamp(V value, V low, V high) {
  value = value > high ? high : value;
  return value < low ? low : value;
}

TTSFAST_INLINE FloatVector absolute(FloatVector value) {
  return reinterpret_cast<FloatVector>(reinterpret_cast<WordVector>(value) & 0x7FFFFFFFu);
}

TTSFAST_INLINE DoubleVector absolute(DoubleVector value) { return value < 0 ? -value : value; }

// 2^k in float for integers -127 < k < 128 held as floats.
TTSFAST_INLINE FloatVector power_of_two(FloatVector k) {
  return reinterpret_cast<FloatVector>((reinterpret_cast<WordVector>(__builtin_convertvector(k, IntVector)) + 127u) << 23);
}

TTSFAST_INLINE FloatVector nearest(FloatVector value) {
  // Beyond 2^23 a float has no fraction: adding this rounds it off. Right for |value| < 2^22.
  const float shift = 12582912.0f;
  return (value + shift) - shift;
}

// x = k ln 2 + f with |f| <= ln(2)/2.
struct Split {
  FloatVector k, f;
  FloatVector half;  // 2^k / 2: 2^128 has no float, but e^x below the largest float may need it
  FloatVector tail;  // e^f - 1 - f by Taylor's series
};

TTSFAST_INLINE Split split(FloatVector x) {
  const FloatVector bounded = clamp(x, all<FloatVector>(-87.0f), all<FloatVector>(89.0f));
  const FloatVector k = nearest(bounded * 1.44269504f);
  // ln 2 in two parts: the first has few enough bits that its product with k is exact.
  const FloatVector f = (bounded - k * 0.693145752f) - k * 1.42860677e-6f;
  const FloatVector tail =
      f * f *
      (0.5f +
       f * (1.66666667e-1f +
            f * (4.16666667e-2f +
                 f * (8.33333333e-3f + f * (1.38888889e-3f + f * (1.98412698e-4f + f * 2.48015873e-5f))))));
  return {k, f, power_of_two(k - 1.0f), tail};
}

// e^x; 0 below the smallest normal float.
TTSFAST_INLINE FloatVector power(FloatVector x) {
  const Split s = split(x);
  return 2.0f * (s.half + s.half * (s.f + s.tail));
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
  const FloatVector scaled = 2.0f * (s.half * (s.f + s.tail) + (s.half - 0.5f));
  const auto small = s.k == 0.0f;
  return {small ? s.f + s.tail : scaled, small ? s.tail : scaled - x};
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

TTSFAST_INLINE FloatVector widen_bfloat(HalfVector half) {
  return reinterpret_cast<FloatVector>(__builtin_convertvector(half, WordVector) << 16);
}

// Round to nearest, ties to even; NaN stays NaN.
TTSFAST_INLINE HalfVector narrow_bfloat(FloatVector value) {
  const WordVector bits = reinterpret_cast<WordVector>(value);
  const WordVector rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const auto ordered = value == value;
  return __builtin_convertvector(ordered ? rounded : (bits >> 16) | 0x40u, HalfVector);
}

}  // namespace TTSFAST_ISA
}  // namespace ttsfast
