// The arithmetic: runs of adjacent elements of one term, values summed, gradients written.
// Part of one instruction set's version of the fused losses; see common/vector.h. Formulas: DESIGN of the
// terms in ttsfast/losses/reference.py, gradients in docs/derivation.md.
#pragma once

#include <type_traits>

#include "loss/call.h"
#include "common/vector.h"

namespace ttsfast {
namespace TTSFAST_ISA {

// Elements summed in single precision before the sum moves on to double.
constexpr std::int64_t kRun = 512;

// Calls step(i, count, full) over [0, n): `full` says at compile time that count is a full vector. The
// first `head` elements go apart, so that full vectors begin where streaming stores may.
template <typename T, bool kStream, typename Step>
TTSFAST_INLINE void each_vector(std::int64_t n, std::int64_t head, Step step) {
  constexpr std::int64_t width = Lanes<T>::count;
  std::int64_t i = 0;
  if (kStream && head > 0) {
    i = head < n ? head : n;
    step(std::int64_t(0), i, std::false_type{});
  }
  for (; i + width <= n; i += width) step(i, width, std::true_type{});
  if (i < n) step(i, n - i, std::false_type{});
}

// Elements of a line, computed in T and stored as S, before `to` reaches the boundary of a vector of them; -1 where
// it never does.
template <typename T, typename S>
TTSFAST_INLINE std::int64_t head_of(const S* to) {
  const std::int64_t bytes = -reinterpret_cast<std::intptr_t>(to) & (Lanes<T>::count * sizeof(S) - 1);
  return bytes % sizeof(S) == 0 ? bytes / static_cast<std::int64_t>(sizeof(S)) : -1;
}

// A vector to compute with, from what is stored: the same type, or Bfloat for float.
template <typename T, bool kFull, typename S>
TTSFAST_INLINE typename Lanes<T>::Vector fetch(const S* from, std::int64_t count) {
  if constexpr (std::is_same<S, T>::value) {
    if constexpr (kFull) return load<typename Lanes<T>::Vector>(from);
    return load<typename Lanes<T>::Vector>(from, count);
  } else {
    if constexpr (kFull) return widen_bfloat(load<HalfVector>(from));
    return widen_bfloat(load<HalfVector>(from, count));
  }
}

template <bool kFull, bool kStream, typename V, typename S>
TTSFAST_INLINE void put_stored(S* to, V value, std::int64_t count) {
  if constexpr (!kFull) {
    store(to, value, count);
  } else if constexpr (kStream) {
    store_streaming(to, value);
  } else {
    store(to, value);
  }
}

template <typename T, bool kFull, bool kStream, typename S>
TTSFAST_INLINE void put(S* to, typename Lanes<T>::Vector value, std::int64_t count) {
  if constexpr (std::is_same<S, T>::value) {
    put_stored<kFull, kStream>(to, value, count);
  } else {
    put_stored<kFull, kStream>(to, narrow_bfloat(value), count);
  }
}

// Computed in T; predictions are stored as P and targets as G, gradients as what they belong to.
template <typename T, typename P, typename G>
struct MelLine {
  const P* prediction[2];  // the second may be null
  const G* target;
  const T* shift;  // added to the target; may be null
  P* gradient[2];  // each may be null
  G* target_gradient;
  T keep;   // what the target is multiplied by
  T delta;
  T scale;
};

template <Distance kDistance, bool kStream, typename T, typename P, typename G>
TTSFAST_INLINE void mel_run(const MelLine<T, P, G>& line, std::int64_t n, std::int64_t head, Sum<T>& sum) {
  using V = typename Lanes<T>::Vector;
  V total{};
  const V high = all<V>(line.delta), low = -high;
  each_vector<T, kStream>(n, head, [&](std::int64_t i, std::int64_t count, auto full) TTSFAST_INLINE_CALL {
    constexpr bool kFull = decltype(full)::value;
    V target = fetch<T, kFull>(line.target + i, count) * line.keep;
    if (line.shift != nullptr) target += fetch<T, kFull>(line.shift + i, count);
    V slopes{};
    for (int p = 0; p < 2; ++p) {
      if (p == 1 && line.prediction[1] == nullptr) break;
      const V difference = fetch<T, kFull>(line.prediction[p] + i, count) - target;
      V slope;
      if constexpr (kDistance == Distance::huber) {
        slope = clamp(difference, low, high);
        total += slope * (difference - T(0.5) * slope);
      } else if constexpr (kDistance == Distance::l1) {
        slope = difference > 0 ? all<V>(1) : (difference < 0 ? all<V>(-1) : V{});
        total += absolute(difference);
      } else {
        slope = T(2) * difference;
        total += difference * difference;
      }
      slope *= line.scale;
      if (line.gradient[p] != nullptr) put<T, kFull, kStream>(line.gradient[p] + i, slope, count);
      slopes += slope;
    }
    if (line.target_gradient != nullptr)
      put<T, kFull, kStream>(line.target_gradient + i, -line.keep * slopes, count);
  });
  sum.add(total);
}

template <typename T, typename S>
struct KlLine {
  const S* mu;
  const S* logvar;
  const S* prior_mu;  // null: N(0, I)
  const S* prior_logvar;
  S* gradient[4];  // mu, logvar, prior mu, prior logvar; each may be null
  T scale;
};

// Adds twice the nats of n elements.
template <bool kPrior, bool kStream, typename T, typename S>
TTSFAST_INLINE void kl_run(const KlLine<T, S>& line, std::int64_t n, std::int64_t head, Sum<T>& sum) {
  using V = typename Lanes<T>::Vector;
  V total{};
  each_vector<T, kStream>(n, head, [&](std::int64_t i, std::int64_t count, auto full) TTSFAST_INLINE_CALL {
    constexpr bool kFull = decltype(full)::value;
    V difference = fetch<T, kFull>(line.mu + i, count), ratio = fetch<T, kFull>(line.logvar + i, count);
    V root = all<V>(1);
    if constexpr (kPrior) {
      const V logvar = fetch<T, kFull>(line.prior_logvar + i, count);
      difference -= fetch<T, kFull>(line.prior_mu + i, count);
      ratio -= logvar;
      // The root of the prior's precision; equal means are at distance 0 whatever it is, infinite included, and
      // infinitely distant ones at infinity, be it 0: only these are their own doubles.
      root = difference + difference == difference ? root : power(T(-0.5) * logvar);
      difference *= root;
    }
    const auto grown = exponential(ratio);
    const V square = difference * difference;
    total += grown.minus_line + square;
    const V mu_slope = difference * root * line.scale;
    const V spread_slope = T(0.5) * line.scale * grown.minus_one;
    if (line.gradient[0] != nullptr) put<T, kFull, kStream>(line.gradient[0] + i, mu_slope, count);
    if (line.gradient[1] != nullptr) put<T, kFull, kStream>(line.gradient[1] + i, spread_slope, count);
    if constexpr (kPrior) {
      if (line.gradient[2] != nullptr) put<T, kFull, kStream>(line.gradient[2] + i, -mu_slope, count);
      if (line.gradient[3] != nullptr)
        put<T, kFull, kStream>(line.gradient[3] + i, -spread_slope - T(0.5) * line.scale * square, count);
    }
  });
  sum.add(total);
}

// a softplus(-x) + b softplus(x), and its slope b sigmoid(x) - a sigmoid(-x).
template <typename T>
TTSFAST_INLINE void stop_run(const T* logits, T* gradient, std::int64_t n, T a, T b, T scale, Sum<T>& sum) {
  using V = typename Lanes<T>::Vector;
  V total{};
  each_vector<T, false>(n, 0, [&](std::int64_t i, std::int64_t count, auto full) TTSFAST_INLINE_CALL {
    constexpr bool kFull = decltype(full)::value;
    const V x = fetch<T, kFull>(logits + i, count);
    const V decay = power(-absolute(x));
    const V common = log_one_plus(decay);
    // A coefficient of 0 takes its half out: 0 times an infinite logit would be NaN.
    V value = (a + b) * common;
    if (a > 0) value += a * (x < 0 ? -x : V{});
    if (b > 0) value += b * (x > 0 ? x : V{});
    // Lanes past the end hold x = 0, whose value is not 0.
    if constexpr (!kFull)
      for (std::int64_t lane = count; lane < Lanes<T>::count; ++lane) value[lane] = 0;
    total += value;
    if (gradient != nullptr) {
      const V near = T(1) / (T(1) + decay), far = decay / (T(1) + decay);
      const auto positive = x >= 0;
      put<T, kFull, false>(gradient + i,
                            scale * (b * (positive ? near : far) - a * (positive ? far : near)), count);
    }
  });
  sum.add(total);
}

template <typename T, typename S>
struct AttentionLine {
  const S* weights;
  S* gradient;  // may be null
  T step_offset;  // t * N_b
  T step_length;  // T_b
  T inverse;      // 1 / (N_b T_b sigma)
  T scale;
};

// A (1 - exp(-(n/N - t/T)^2 / (2 sigma^2))) over n in [first, first + n): the difference is taken between
// integers, n T - t N, where that of two quotients would cancel near the diagonal.
template <typename T, typename S>
TTSFAST_INLINE void attention_run(const AttentionLine<T, S>& line, std::int64_t first, std::int64_t n, Sum<T>& sum) {
  using V = typename Lanes<T>::Vector;
  V total{}, lanes{};
  for (std::int64_t lane = 0; lane < Lanes<T>::count; ++lane) lanes[lane] = static_cast<T>(first + lane);
  each_vector<T, false>(n, 0, [&](std::int64_t i, std::int64_t count, auto full) TTSFAST_INLINE_CALL {
    constexpr bool kFull = decltype(full)::value;
    const V distance = ((lanes + static_cast<T>(i)) * line.step_length - line.step_offset) * line.inverse;
    const V penalty = -exponential(T(-0.5) * distance * distance).minus_one;
    total += fetch<T, kFull>(line.weights + i, count) * penalty;
    if (line.gradient != nullptr) put<T, kFull, false>(line.gradient + i, penalty * line.scale, count);
  });
  sum.add(total);
}

}  // namespace TTSFAST_ISA
}  // namespace ttsfast
