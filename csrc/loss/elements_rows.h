// The arithmetic of elements.h, one row at a time. Part of one instruction set's version; see
// vector.h. Formulas: docs/derivation.md.
#pragma once

#include "loss/elements.h"
#include "loss/vector.h"

namespace ttsfast {
namespace TTSFAST_ISA {

// Calls step(i, count) over [0, n), count a full vector until the last.
template <typename T, typename Step>
TTSFAST_INLINE void each_lanes(std::int64_t n, Step step) {
  constexpr std::int64_t width = Lanes<T>::count;
  std::int64_t i = 0;
  for (; i + width <= n; i += width) step(i, width);
  if (i < n) step(i, n - i);
}

template <typename T>
TTSFAST_INLINE typename Lanes<T>::Vector take(const T* from, std::int64_t count) {
  return load<typename Lanes<T>::Vector>(from, count);
}

template <typename T>
TTSFAST_INLINE void give(T* to, typename Lanes<T>::Vector value, std::int64_t count) {
  store(to, value, count);
}

template <typename T>
void zero(T* to, std::int64_t count) {
  if (to != nullptr && count > 0) std::memset(to, 0, static_cast<std::size_t>(count) * sizeof(T));
}

// One row of each tensor.
template <typename T>
struct Row {
  const T* input[4];
  const T* incoming;
  T* output[4];
};

template <typename T>
void mel_row(const ElementCall& call, const Row<T>& row) {
  using V = typename Lanes<T>::Vector;
  const T* const shift = static_cast<const T*>(call.shift);
  const T keep = static_cast<T>(call.keep);
  const V high = all<V>(static_cast<T>(call.delta)), low = -high;
  each_lanes<T>(call.width, [&](std::int64_t i, std::int64_t count) TTSFAST_INLINE_CALL {
    V target = take(row.input[1] + i, count) * keep;
    if (shift != nullptr) target += take(shift + i, count);
    const V difference = take(row.input[0] + i, count) - target;
    V slope = clamp(difference, low, high);
    if (row.incoming == nullptr) {
      give(row.output[0] + i, slope * (difference - T(0.5) * slope), count);
      return;
    }
    slope *= take(row.incoming + i, count);
    if (row.output[0] != nullptr) give(row.output[0] + i, slope, count);
    if (row.output[1] != nullptr) give(row.output[1] + i, -keep * slope, count);
  });
}

template <typename V>
struct Divergence {
  V twice;  // the nats of an element, times 2
  V slope;  // of mu
  V grown, square;
};

template <typename T>
TTSFAST_INLINE Divergence<typename Lanes<T>::Vector> divergence(const Row<T>& row, std::int64_t i, std::int64_t count) {
  using V = typename Lanes<T>::Vector;
  V difference = take(row.input[0] + i, count), ratio = take(row.input[1] + i, count), root = all<V>(1);
  if (row.input[2] != nullptr) {
    const V logvar = take(row.input[3] + i, count);
    difference -= take(row.input[2] + i, count);
    ratio -= logvar;
    // Equal means are at distance 0 under any prior, one of infinite precision included, and infinitely distant
    // ones at infinity: only these are their own doubles.
    root = difference + difference == difference ? root : power(T(-0.5) * logvar);
    difference *= root;
  }
  const auto grown = exponential(ratio);
  const V square = difference * difference;
  return {grown.minus_line + square, difference * root, grown.minus_one, square};
}

template <typename T>
double nats_of(const ElementCall& call, const Row<T>& row) {
  using V = typename Lanes<T>::Vector;
  // Elements summed in single precision before the sum moves on to double.
  constexpr std::int64_t run = 512;
  double twice = 0;
  for (std::int64_t first = 0; first < call.width; first += run) {
    V total{};
    each_lanes<T>(call.width - first < run ? call.width - first : run,
                  [&](std::int64_t i, std::int64_t count) TTSFAST_INLINE_CALL {
                    total += divergence(row, first + i, count).twice;
                  });
    for (std::int64_t lane = 0; lane < Lanes<T>::count; ++lane) twice += static_cast<double>(total[lane]);
  }
  return 0.5 * twice;
}

template <typename T>
void kl_row(const ElementCall& call, const Row<T>& row) {
  using V = typename Lanes<T>::Vector;
  bool free = false;
  if (row.incoming == nullptr || call.free_bits > 0) {
    // Compared as it will be seen; NaN is not free.
    const T nats = static_cast<T>(nats_of(call, row)), bits = static_cast<T>(call.free_bits);
    free = call.free_bits > 0 && nats <= bits;
    if (row.incoming == nullptr) {
      *row.output[0] = free ? bits : nats;
      return;
    }
  }
  if (free) {
    for (T* output : row.output) zero(output, call.width);
    return;
  }
  const T arrived = *row.incoming, half = T(0.5) * arrived;
  each_lanes<T>(call.width, [&](std::int64_t i, std::int64_t count) TTSFAST_INLINE_CALL {
    const Divergence<V> at = divergence(row, i, count);
    if (row.output[0] != nullptr) give(row.output[0] + i, at.slope * arrived, count);
    if (row.output[1] != nullptr) give(row.output[1] + i, at.grown * half, count);
    if (row.output[2] != nullptr) give(row.output[2] + i, -at.slope * arrived, count);
    if (row.output[3] != nullptr) give(row.output[3] + i, -(at.grown + at.square) * half, count);
  });
}

template <typename T>
void stop_steps(const Row<T>& row, std::int64_t first, std::int64_t last, const double* coefficients) {
  using V = typename Lanes<T>::Vector;
  const T a = static_cast<T>(coefficients[0]), b = static_cast<T>(coefficients[1]);
  each_lanes<T>(last - first, [&](std::int64_t i, std::int64_t count) TTSFAST_INLINE_CALL {
    i += first;
    const V x = take(row.input[0] + i, count);
    const V decay = power(-absolute(x));
    if (row.incoming == nullptr) {
      V value = (a + b) * log_one_plus(decay);
      // A coefficient of 0 takes its half out: 0 times an infinite logit would be NaN.
      if (a > 0) value += a * (x < 0 ? -x : V{});
      if (b > 0) value += b * (x > 0 ? x : V{});
      give(row.output[0] + i, value, count);
      return;
    }
    const V near = T(1) / (T(1) + decay), far = decay / (T(1) + decay);
    const auto positive = x >= 0;
    const V slope = b * (positive ? near : far) - a * (positive ? far : near);
    give(row.output[0] + i, slope * take(row.incoming + i, count), count);
  });
}

template <typename T>
void attention_row(const ElementCall& call, const Row<T>& row, std::int64_t step, double steps, double symbols) {
  using V = typename Lanes<T>::Vector;
  V lanes{};
  for (std::int64_t lane = 0; lane < Lanes<T>::count; ++lane) lanes[lane] = static_cast<T>(lane);
  // Between integers, n T - t N, where the difference of two quotients would cancel near the diagonal.
  const T length = static_cast<T>(steps), offset = static_cast<T>(static_cast<double>(step) * symbols);
  const T inverse = static_cast<T>(1.0 / (steps * symbols * call.sigma));
  each_lanes<T>(static_cast<std::int64_t>(symbols), [&](std::int64_t i, std::int64_t count) TTSFAST_INLINE_CALL {
    const V distance = ((lanes + static_cast<T>(i)) * length - offset) * inverse;
    const V penalty = -exponential(T(-0.5) * distance * distance).minus_one;
    const T* const factor = row.incoming == nullptr ? row.input[0] : row.incoming;
    give(row.output[0] + i, take(factor + i, count) * penalty, count);
  });
}

template <typename T>
void element_rows(const ElementCall& call, std::int64_t batch, std::int64_t head, std::int64_t first,
                  std::int64_t last) {
  const std::int64_t columns = call.valid_columns == nullptr ? call.width : call.valid_columns[batch];
  const std::int64_t valid = call.valid_columns != nullptr && columns == 0 ? 0 : call.valid_rows[batch];
  const bool by_row = call.term == ElementTerm::kl;
  for (std::int64_t r = first; r < last; ++r) {
    const std::int64_t at = (batch * call.heads + head) * call.rows + r;
    const std::int64_t values_at = by_row ? at : at * call.width;
    Row<T> row;
    row.incoming = call.incoming == nullptr ? nullptr : static_cast<const T*>(call.incoming) + values_at;
    for (int k = 0; k < 4; ++k) {
      const auto* input = static_cast<const T*>(call.input[k]);
      auto* output = static_cast<T*>(call.output[k]);
      row.input[k] = input == nullptr ? nullptr : input + at * call.width;
      row.output[k] = output == nullptr ? nullptr : output + (call.incoming == nullptr ? values_at : at * call.width);
    }
    const std::int64_t width = by_row && call.incoming == nullptr ? 1 : call.width;
    const std::int64_t written = r >= valid ? 0 : columns == call.width ? width : columns;
    for (T* output : row.output) zero(output == nullptr ? output : output + written, width - written);
    if (r >= valid) continue;
    switch (call.term) {
      case ElementTerm::mel: mel_row(call, row); break;
      case ElementTerm::kl: kl_row(call, row); break;
      case ElementTerm::stop: {
        const std::int64_t turn = call.positive[batch] < columns ? call.positive[batch] : columns;
        stop_steps(row, 0, turn, call.coefficients[0]);
        stop_steps(row, turn, columns, call.coefficients[1]);
        break;
      }
      case ElementTerm::attention:
        attention_row(call, row, r, static_cast<double>(valid), static_cast<double>(columns));
        break;
    }
  }
}

void element_rows_of(const ElementCall& call, std::int64_t batch, std::int64_t head, std::int64_t first,
                            std::int64_t last) {
  if (call.wide) {
    element_rows<double>(call, batch, head, first, last);
  } else {
    element_rows<float>(call, batch, head, first, last);
  }
}

}  // namespace TTSFAST_ISA
}  // namespace ttsfast
