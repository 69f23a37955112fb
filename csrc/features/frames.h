// The log-mels of a waveform, as many frames at a time as a register has lanes: each lane is a frame, so a
// frame's numbers depend neither on its neighbours nor on the width. Compiled once per
// instruction set, see common/isa.inc, without contraction of a * b + c, so that all of them round alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "features/mel.h"

namespace ttsfast {
namespace mel {
namespace TTSFAST_ISA {

typedef double Vector __attribute__((vector_size(TTSFAST_BYTES)));
typedef std::int64_t Bits __attribute__((vector_size(TTSFAST_BYTES)));
constexpr std::int64_t kLanes = TTSFAST_BYTES / 8;

struct Point {
  Vector re, im;
};

TTSFAST_INLINE Point operator+(Point a, Point b) { return {a.re + b.re, a.im + b.im}; }
TTSFAST_INLINE Point operator-(Point a, Point b) { return {a.re - b.re, a.im - b.im}; }
// Times the conjugate of the imaginary unit, -i.
TTSFAST_INLINE Point turned(Point a) { return {a.im, -a.re}; }
TTSFAST_INLINE Point times(Point a, const double* factor) {
  return {a.re * factor[0] - a.im * factor[1], a.re * factor[1] + a.im * factor[0]};
}

TTSFAST_INLINE Vector root_of(Vector value) {
#if TTSFAST_BYTES == 64
  return (Vector)_mm512_maskz_sqrt_pd(0xff, (__m512d)value);
#elif TTSFAST_BYTES == 32
  return (Vector)_mm256_sqrt_pd((__m256d)value);
#elif defined(__SSE2__)
  return (Vector)_mm_sqrt_pd((__m128d)value);
#else
  for (std::int64_t lane = 0; lane < kLanes; ++lane) value[lane] = __builtin_sqrt(value[lane]);
  return value;
#endif
}

// Natural logarithm of normal positive numbers, to about 1e-12 relative to the larger of it and 1; NaN for
// what is not finite. x = 2^e m with m from sqrt(1/2) to sqrt(2), log m = 2 artanh((m - 1) / (m + 1)).
TTSFAST_INLINE Vector log_of(Vector x) {
  constexpr std::int64_t kRootHalf = 0x3fe6a09e667f3bcd;
  const Bits bits = (Bits)x - kRootHalf;
  const Bits exponent = bits >> 52;
  const Vector m = (Vector)(((Bits)x) - (exponent << 52));
  // 2^52 + 2^51 plus a small integer holds that integer in its lowest bits.
  constexpr double kShift = 6755399441055744.0;
  const Vector e = (Vector)(exponent + (Bits)(Vector{} + kShift)) - kShift;
  const Vector s = (m - 1.0) / (m + 1.0), s2 = s * s;
  Vector series = Vector{} + 2.0 / 15;
  series = series * s2 + 2.0 / 13;
  series = series * s2 + 2.0 / 11;
  series = series * s2 + 2.0 / 9;
  series = series * s2 + 2.0 / 7;
  series = series * s2 + 2.0 / 5;
  series = series * s2 + 2.0 / 3;
  series = series * s2 + 2.0;
  return e * 0.693147180559945309417 + series * s + (x - x);
}

// The passes are Stockham's: input p + j * (length / radix), output radix * p + k, each a run of `stride` points.

TTSFAST_INLINE void pass2(const Point* x, Point* y, const MelPass& pass, const double* w) {
  const std::int64_t part = pass.length / 2, s = pass.stride;
  for (std::int64_t p = 0; p < part; ++p, w += 2)
    for (std::int64_t q = 0; q < s; ++q) {
      const Point a = x[q + s * p], b = x[q + s * (p + part)];
      y[q + s * (2 * p)] = a + b;
      y[q + s * (2 * p + 1)] = times(a - b, w);
    }
}

TTSFAST_INLINE void pass4(const Point* x, Point* y, const MelPass& pass, const double* w) {
  const std::int64_t part = pass.length / 4, s = pass.stride;
  for (std::int64_t p = 0; p < part; ++p, w += 6)
    for (std::int64_t q = 0; q < s; ++q) {
      const Point* from = x + q + s * p;
      Point* to = y + q + s * 4 * p;
      const Point a = from[0], b = from[s * part], c = from[s * part * 2], d = from[s * part * 3];
      const Point even = a + c, odd = a - c, sum = b + d, difference = turned(b - d);
      to[0] = even + sum;
      to[s] = times(odd + difference, w);
      to[s * 2] = times(even - sum, w + 2);
      to[s * 3] = times(odd - difference, w + 4);
    }
}

TTSFAST_INLINE void pass8(const Point* x, Point* y, const MelPass& pass, const double* w) {
  constexpr double kHalfRoot = 0.70710678118654752440;
  const std::int64_t part = pass.length / 8, s = pass.stride;
  for (std::int64_t p = 0; p < part; ++p, w += 14)
    for (std::int64_t q = 0; q < s; ++q) {
      const Point* from = x + q + s * p;
      Point* to = y + q + s * 8 * p;
      const Point x0 = from[0], x4 = from[s * part * 4], x2 = from[s * part * 2], x6 = from[s * part * 6];
      const Point x1 = from[s * part], x5 = from[s * part * 5], x3 = from[s * part * 3], x7 = from[s * part * 7];
      {
        const Point a = x0 + x4, b = x1 + x5, c = x2 + x6, d = x3 + x7;
        const Point even = a + c, odd = a - c, sum = b + d, difference = turned(b - d);
        to[0] = even + sum;
        to[s * 2] = times(odd + difference, w + 2);
        to[s * 4] = times(even - sum, w + 6);
        to[s * 6] = times(odd - difference, w + 10);
      }
      {
        const Point a = x0 - x4, b = x1 - x5, c = turned(x2 - x6), d = x3 - x7;
        const Point b1 = {(b.re + b.im) * kHalfRoot, (b.im - b.re) * kHalfRoot};
        const Point d3 = {(d.im - d.re) * kHalfRoot, (d.re + d.im) * -kHalfRoot};
        const Point even = a + c, odd = a - c, sum = b1 + d3, difference = turned(b1 - d3);
        to[s] = times(even + sum, w);
        to[s * 3] = times(odd + difference, w + 4);
        to[s * 5] = times(even - sum, w + 8);
        to[s * 7] = times(odd - difference, w + 12);
      }
    }
}

// Any radix, by its definition; `circle` holds the roots of unity of that order.
TTSFAST_INLINE void pass_any(const Point* x, Point* y, const MelPass& pass, const double* w, const double* circle) {
  const std::int64_t r = pass.radix, part = pass.length / r, s = pass.stride;
  for (std::int64_t p = 0; p < part; ++p, w += 2 * (r - 1))
    for (std::int64_t q = 0; q < s; ++q)
      for (std::int64_t k = 0; k < r; ++k) {
        Point sum = x[q + s * p];
        for (std::int64_t j = 1; j < r; ++j)
          sum = sum + times(x[q + s * (p + part * j)], circle + 2 * (j * k % r));
        y[q + s * (r * p + k)] = k == 0 ? sum : times(sum, w + 2 * (k - 1));
      }
}

// Even samples are the real parts, odd ones the imaginary: half as many points (Sorensen et al., 1987).
TTSFAST_INLINE void load_frames(const MelPlan& plan, const float* wave, std::int64_t count, double* points) {
  const double* window = plan.window.data();
  for (std::int64_t lane = 0; lane < kLanes; ++lane) {
    double* to = points + lane;
    const float* from = wave + lane * plan.hop;
    if (lane < count)
      for (std::int64_t i = 0; i < plan.n_fft; ++i) to[i * kLanes] = window[i] * from[i];
    else
      for (std::int64_t i = 0; i < plan.n_fft; ++i) to[i * kLanes] = 0;
  }
}

TTSFAST_INLINE const Point* transform(const MelPlan& plan, Point* x, Point* y) {
  const double* circle = plan.circle.data();
  for (const MelPass* pass = plan.passes.data(); pass != plan.passes.data() + plan.passes.size(); ++pass) {
    const double* w = plan.twiddles.data() + pass->twiddles;
    if (pass->radix == 8) {
      pass8(x, y, *pass, w);
    } else if (pass->radix == 4) {
      pass4(x, y, *pass, w);
    } else if (pass->radix == 2) {
      pass2(x, y, *pass, w);
    } else {
      pass_any(x, y, *pass, w, circle);
      circle += 2 * pass->radix;
    }
    Point* const swap = x;
    x = y;
    y = swap;
  }
  return x;
}

// Magnitudes or powers of bins first_bin to last_bin, from the transform of the half-length points.
TTSFAST_INLINE void weigh(const MelPlan& plan, const Point* z, Vector* magnitude) {
  const std::int64_t half = plan.n_fft / 2;
  for (std::int64_t k = plan.first_bin; k <= plan.last_bin; ++k) {
    const Point a = z[k == half ? 0 : k], b = z[k == 0 ? 0 : half - k];
    const Point even = {a.re + b.re, a.im - b.im}, odd = {a.im + b.im, b.re - a.re};
    const Point bin = even + times(odd, plan.roots.data() + 2 * k);
    const Vector power = bin.re * bin.re + bin.im * bin.im + plan.epsilon;
    magnitude[k - plan.first_bin] = plan.root ? root_of(power) : power;
  }
}

void log_mel(const MelPlan& plan, const float* wave, std::int64_t frames, float* out, double* scratch) {
  const std::int64_t half = plan.n_fft / 2, n_mels = static_cast<std::int64_t>(plan.filters.size());
  Point* const first = reinterpret_cast<Point*>(scratch);
  Point* const second = first + half;
  Vector* const magnitude = reinterpret_cast<Vector*>(second + half);
  for (std::int64_t frame = 0; frame < frames; frame += kLanes) {
    const std::int64_t count = frames - frame < kLanes ? frames - frame : kLanes;
    load_frames(plan, wave + frame * plan.hop, count, scratch);
    weigh(plan, transform(plan, first, second), magnitude);
    for (std::int64_t m = 0; m < n_mels; ++m) {
      const MelFilter& filter = plan.filters.data()[m];
      const double* weight = plan.weights.data() + filter.weights;
      const Vector* bins = magnitude + (filter.first - plan.first_bin);
      Vector sum{};
      for (std::int64_t k = 0; k < filter.count; ++k) sum += bins[k] * weight[k];
      // In this order NaN stays NaN.
      const Vector low = Vector{} + plan.floor;
      const Vector level = log_of(sum < low ? low : sum) * plan.log_scale;
      for (std::int64_t lane = 0; lane < count; ++lane)
        out[(frame + lane) * n_mels + m] = static_cast<float>(level[lane]);
    }
  }
}

}  // namespace TTSFAST_ISA
}  // namespace mel
}  // namespace ttsfast
