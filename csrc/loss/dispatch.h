// One task of the pass: a block of rows of one term, from the tensors to its gradients and its sum.
// Part of one instruction set's version of the fused losses; see common/vector.h.
#pragma once

#include "loss/lines.h"
#include "loss/rows.h"
#include "loss/philox.h"

namespace ttsfast {
namespace TTSFAST_ISA {

// The block of term `term` that task `index` is: utterance, first row, rows, and how many of them are valid.
struct Block {
  std::int64_t batch, first, rows, valid;
};

TTSFAST_INLINE Block block_at(std::int64_t index, const Term& term, std::int64_t rows, std::int64_t valid_rows) {
  const std::int64_t first = index % term.blocks * term.block;
  const std::int64_t count = rows - first < term.block ? rows - first : term.block;
  std::int64_t valid = valid_rows - first;
  valid = valid < 0 ? 0 : valid > count ? count : valid;
  return {index / term.blocks, first, count, valid};
}

// Zeros in the padded rows of a block.
inline void zero_padding(const View& gradient, const Block& block, std::int64_t width, bool stream) {
  zero_rows(gradient,
            block_of(gradient, block.batch, block.first + block.valid, block.rows - block.valid, width), stream);
}

// Where the streamed elements of a line begin, or -1 where its gradients are not aligned alike.
template <typename T, int kCount, typename S, typename G = S>
TTSFAST_INLINE std::int64_t common_head(S* const (&gradients)[kCount], G* another = nullptr) {
  std::int64_t head = another == nullptr ? -2 : head_of<T>(another);
  for (S* gradient : gradients) {
    if (gradient == nullptr) continue;
    const std::int64_t own = head_of<T>(gradient);
    if (head != -2 && own != head) return -1;
    head = own;
  }
  return head == -2 ? -1 : head;
}

template <typename T>
TTSFAST_INLINE T* ahead(T* pointer, std::int64_t count) {
  return pointer == nullptr ? nullptr : pointer + count;
}

template <Distance kDistance, bool kStream, typename T, typename P, typename G>
double mel_line(MelLine<T, P, G> line, std::int64_t n) {
  Sum<T> sum;
  std::int64_t head = kStream ? common_head<T>(line.gradient, line.target_gradient) : 0;
  while (n > 0) {
    const std::int64_t run = n < kRun + head ? n : kRun + head;
    mel_run<kDistance, kStream>(line, run, head, sum);
    n -= run;
    head = 0;
    for (int p = 0; p < 2; ++p) {
      line.prediction[p] = ahead(line.prediction[p], run);
      line.gradient[p] = ahead(line.gradient[p], run);
    }
    line.target += run;
    line.shift = ahead(line.shift, run);
    line.target_gradient = ahead(line.target_gradient, run);
  }
  return total_of(sum);
}

template <Distance kDistance, typename T, typename P, typename G>
double mel_line(const MelLine<T, P, G>& line, std::int64_t n, bool stream) {
  if (stream && common_head<T>(line.gradient, line.target_gradient) >= 0) return mel_line<kDistance, true>(line, n);
  return mel_line<kDistance, false>(line, n);
}

// amount * deviation * xi for the block's valid rows.
template <typename T>
void noise_rows(const Call& call, const Block& block, T* to) {
  const T* deviation = static_cast<const T*>(call.deviation.data);
  for (std::int64_t r = 0; r < block.valid; ++r) {
    T* row = to + r * call.bins;
    standard_normal(call.seed, call.step, static_cast<std::uint32_t>(block.batch),
                    static_cast<std::uint32_t>(block.first + r), call.bins, row);
    for (std::int64_t c = 0; c < call.bins; ++c)
      row[c] *= static_cast<T>(call.amount) * (deviation == nullptr ? T(1) : deviation[c]);
  }
}

// The valid rows of a block: predictions read as P, targets as G, gradients written alike.
template <typename P, typename G, typename T>
double mel_block(const Call& call, const Block& block, T* scratch) {
  const std::int64_t bins = call.bins;
  const auto place = [&](const View& view) {
    return block_of(view, block.batch, block.first, block.valid, bins);
  };
  const Rows<G> target = read_rows<G>(call.target, place(call.target), scratch);
  Rows<P> prediction[2], gradient[2];
  for (int p = 0; p < 2; ++p) {
    prediction[p] = read_rows<P>(call.prediction[p], place(call.prediction[p]), scratch);
    gradient[p] = gradient_rows<P>(call.prediction_gradient[p], place(call.prediction_gradient[p]), scratch);
  }
  const Rows<G> target_gradient = gradient_rows<G>(call.target_gradient, place(call.target_gradient), scratch);
  Rows<T> shift;
  if (call.smoothing == Smoothing::noise) {
    noise_rows(call, block, scratch);
    shift = {scratch, bins};
  } else if (call.smoothing == Smoothing::mean && call.mean.data != nullptr) {
    for (std::int64_t c = 0; c < bins; ++c)
      scratch[c] = static_cast<T>(call.amount) * static_cast<const T*>(call.mean.data)[c];
    shift = {scratch, 0};
  }

  // Rows that follow each other without a gap are one long line.
  bool joined = target.stride == bins && (!shift || shift.stride == bins);
  joined = joined && (!target_gradient || target_gradient.stride == bins);
  for (int p = 0; p < 2; ++p) {
    joined = joined && (!prediction[p] || prediction[p].stride == bins);
    joined = joined && (!gradient[p] || gradient[p].stride == bins);
  }
  const std::int64_t lines = joined ? 1 : block.valid, length = joined ? block.valid * bins : bins;
  double total = 0;
  for (std::int64_t r = 0; r < lines; ++r) {
    const MelLine<T, P, G> line = {
        {prediction[0].row(r), prediction[1] ? prediction[1].row(r) : nullptr},
        target.row(r),
        shift ? shift.row(r) : nullptr,
        {gradient[0] ? gradient[0].row(r) : nullptr, gradient[1] ? gradient[1].row(r) : nullptr},
        target_gradient ? target_gradient.row(r) : nullptr,
        call.smoothing == Smoothing::mean ? static_cast<T>(1.0 - call.amount) : T(1),
        static_cast<T>(call.delta),
        static_cast<T>(call.mel.scale[block.batch])};
    switch (call.distance) {
      case Distance::huber: total += mel_line<Distance::huber>(line, length, call.stream); break;
      case Distance::l1: total += mel_line<Distance::l1>(line, length, call.stream); break;
      case Distance::mse: total += mel_line<Distance::mse>(line, length, call.stream); break;
    }
  }
  for (int p = 0; p < 2; ++p) write_rows(call.prediction_gradient[p], place(call.prediction_gradient[p]), gradient[p]);
  write_rows(call.target_gradient, place(call.target_gradient), target_gradient);
  return total;
}

template <typename T>
double mel_task(const Call& call, std::int64_t index, T* scratch) {
  const Block block = block_at(index, call.mel, call.frames, call.mel_lengths[index / call.mel.blocks]);
  const View* const gradients[3] = {&call.prediction_gradient[0], &call.prediction_gradient[1], &call.target_gradient};
  for (const View* gradient : gradients) zero_padding(*gradient, block, call.bins, call.stream);
  if (block.valid == 0 || call.bins == 0) return 0;
  if constexpr (std::is_same<T, float>::value) {
    const View* const predictions[4] = {&call.prediction[0], &call.prediction[1], gradients[0], gradients[1]};
    const View* const targets[2] = {&call.target, gradients[2]};
    // Predictions of a network under autocast, and targets from the data in either type.
    if (are_bfloat(predictions, 2))
      return are_bfloat(targets, 2) ? mel_block<Bfloat, Bfloat>(call, block, scratch)
                                    : mel_block<Bfloat, T>(call, block, scratch);
  }
  return mel_block<T, T>(call, block, scratch);
}

template <bool kPrior, bool kStream, typename T, typename S>
double kl_line(KlLine<T, S> line, std::int64_t n) {
  Sum<T> sum;
  std::int64_t head = kStream ? common_head<T>(line.gradient) : 0;
  while (n > 0) {
    const std::int64_t run = n < kRun + head ? n : kRun + head;
    kl_run<kPrior, kStream>(line, run, head, sum);
    n -= run;
    head = 0;
    line.mu += run;
    line.logvar += run;
    line.prior_mu = ahead(line.prior_mu, run);
    line.prior_logvar = ahead(line.prior_logvar, run);
    for (S*& gradient : line.gradient) gradient = ahead(gradient, run);
  }
  return 0.5 * total_of(sum);
}

template <typename T, typename S>
double kl_line(const KlLine<T, S>& line, std::int64_t n, bool stream) {
  stream = stream && common_head<T>(line.gradient) >= 0;
  if (line.prior_mu != nullptr) return stream ? kl_line<true, true>(line, n) : kl_line<true, false>(line, n);
  return stream ? kl_line<false, true>(line, n) : kl_line<false, false>(line, n);
}

// With free bits a vector's nats decide whether it has a gradient, so it is read twice, the second time
// from the nearest cache.
template <typename T, typename S>
double kl_vector(const KlLine<T, S>& line, std::int64_t n, double free_bits, bool stream) {
  KlLine<T, S> values = line;
  for (S*& gradient : values.gradient) gradient = nullptr;
  const double nats = kl_line(values, n, false);
  if (!(nats <= free_bits)) return kl_line(line, n, stream);
  for (S* gradient : line.gradient)
    if (gradient != nullptr) std::memset(static_cast<void*>(gradient), 0, static_cast<std::size_t>(n) * sizeof(S));
  return free_bits;
}

// The valid rows of a block, all tensors read and written as S.
template <typename S, typename T>
double kl_block(const Call& call, const Block& block, const View* const (&views)[8], T* scratch) {
  const std::int64_t width = call.latents;
  const auto place = [&](const View& view) {
    return block_of(view, block.batch, block.first, block.valid, width);
  };
  // Values, then gradients.
  Rows<S> rows[8];
  bool joined = call.free_bits == 0;
  for (int i = 0; i < 8; ++i) {
    rows[i] = i < 4 ? read_rows<S>(*views[i], place(*views[i]), scratch)
                    : gradient_rows<S>(*views[i], place(*views[i]), scratch);
    joined = joined && (!rows[i] || rows[i].stride == width);
  }
  const std::int64_t lines = joined ? 1 : block.valid, n = joined ? block.valid * width : width;
  double total = 0;
  for (std::int64_t r = 0; r < lines; ++r) {
    const auto row = [&](int i) { return rows[i] ? rows[i].row(r) : nullptr; };
    const KlLine<T, S> line{row(0), row(1), row(2), row(3), {row(4), row(5), row(6), row(7)},
                            static_cast<T>(call.kl.scale[block.batch])};
    total += call.free_bits > 0 ? kl_vector(line, n, call.free_bits, call.stream) : kl_line(line, n, call.stream);
  }
  for (int i = 4; i < 8; ++i) write_rows(*views[i], place(*views[i]), rows[i]);
  return total;
}

template <typename T>
double kl_task(const Call& call, std::int64_t index, T* scratch) {
  const std::int64_t length = call.mel_lengths[index / call.kl.blocks];
  const std::int64_t valid = call.per_frame ? length : length > 0;
  const Block block = block_at(index, call.kl, call.per_frame ? call.frames : 1, valid);
  const View* const views[8] = {&call.posterior[0], &call.posterior[1], &call.prior[0], &call.prior[1],
                                &call.posterior_gradient[0], &call.posterior_gradient[1],
                                &call.prior_gradient[0], &call.prior_gradient[1]};
  for (int i = 4; i < 8; ++i) zero_padding(*views[i], block, call.latents, call.stream);
  if (block.valid == 0) return 0;
  if constexpr (std::is_same<T, float>::value)
    if (are_bfloat(views, 2)) return kl_block<Bfloat>(call, block, views, scratch);
  return kl_block<T>(call, block, views, scratch);
}

template <typename T>
double stop_task(const Call& call, std::int64_t index, T* scratch) {
  const std::int64_t length = call.step_lengths[index], included = length + call.tails[index];
  // Seen as S rows of one element, so that padding is rows here too.
  const Block block{index, 0, call.steps, included};
  zero_padding(call.logits_gradient, block, 1, false);
  if (included == 0) return 0;
  const auto place = [&](const View& view) {
    return Place{index * view.stride[0], 1, included, view.stride[0], view.stride[1]};
  };
  const Rows<T> logits = read_rows<T>(call.logits, place(call.logits), scratch);
  const Rows<T> gradient = gradient_rows<T>(call.logits_gradient, place(call.logits_gradient), scratch);
  // Target 1 begins at the last valid step; a truncated utterance has none.
  const std::int64_t negative = call.truncated[index] ? included : length - 1;
  const T scale = static_cast<T>(call.stop.scale[index]);
  Sum<T> sum;
  for (std::int64_t first = 0; first < included;) {
    const int target = first >= negative;
    const std::int64_t end = target ? included : negative;
    const std::int64_t run = end - first < kRun ? end - first : kRun;
    stop_run<T>(logits.data + first, ahead(gradient.data, first), run,
                         static_cast<T>(call.coefficients[target][0]), static_cast<T>(call.coefficients[target][1]),
                scale, sum);
    first += run;
  }
  write_rows(call.logits_gradient, place(call.logits_gradient), gradient);
  return total_of(sum);
}

// Weights read, and gradients written, as S.
template <typename S, typename T>
double attention_task(const Call& call, const Layer& layer, std::int64_t index, T* scratch) {
  const std::int64_t head = index / call.attention.blocks % layer.heads;
  const std::int64_t batch = index / call.attention.blocks / layer.heads;
  const std::int64_t length = call.step_lengths[batch], valid = call.text_lengths[batch];
  const Block block = block_at(index, call.attention, call.attention_steps, valid == 0 ? 0 : length);
  const auto place = [&](const View& view, std::int64_t row, std::int64_t rows, std::int64_t column,
                         std::int64_t columns) {
    return Place{batch * view.stride[0] + head * view.stride[1] + (block.first + row) * view.stride[2] +
                     column * view.stride[3],
                 rows, columns, view.stride[2], view.stride[3]};
  };
  zero_rows(layer.gradient, place(layer.gradient, block.valid, block.rows - block.valid, 0, call.symbols), call.stream);
  zero_rows(layer.gradient, place(layer.gradient, 0, block.valid, valid, call.symbols - valid), false);
  if (block.valid == 0) return 0;
  const Place from = place(layer.value, 0, block.valid, 0, valid), to = place(layer.gradient, 0, block.valid, 0, valid);
  const Rows<S> weights = read_rows<S>(layer.value, from, scratch);
  const Rows<S> gradient = gradient_rows<S>(layer.gradient, to, scratch);
  const double span = static_cast<double>(valid) * static_cast<double>(length) * call.sigma;
  Sum<T> sum;
  for (std::int64_t r = 0; r < block.valid; ++r) {
    AttentionLine<T, S> line{weights.row(r),
                          gradient ? gradient.row(r) : nullptr,
                          static_cast<T>((block.first + r) * valid),
                          static_cast<T>(length),
                          static_cast<T>(1.0 / span),
                          static_cast<T>(call.attention.scale[batch])};
    for (std::int64_t first = 0; first < valid; first += kRun) {
      attention_run<T>(line, first, valid - first < kRun ? valid - first : kRun, sum);
      line.weights += kRun;
      line.gradient = ahead(line.gradient, kRun);
    }
  }
  write_rows(layer.gradient, to, gradient);
  return total_of(sum);
}

template <typename T>
double any_task(const Call& call, std::int64_t task, T* scratch) {
  if (task < call.kl.first) return mel_task(call, task - call.mel.first, scratch);
  if (task < call.stop.first) return kl_task(call, task - call.kl.first, scratch);
  if (task < call.attention.first) return stop_task(call, task - call.stop.first, scratch);
  std::int64_t layer = 0;
  while (layer + 1 < call.layer_count && task >= call.layers[layer + 1].first) ++layer;
  const Layer& found = call.layers[layer];
  const std::int64_t index = task - found.first;
  if constexpr (std::is_same<T, float>::value) {
    const View* const views[2] = {&found.value, &found.gradient};
    if (are_bfloat(views, 3)) return attention_task<Bfloat>(call, found, index, scratch);
  }
  return attention_task<T>(call, found, index, scratch);
}

void loss_task(Call& call, std::int64_t task, void* scratch) {
  call.sums[task] = call.wide ? any_task(call, task, static_cast<double*>(scratch))
                              : any_task(call, task, static_cast<float*>(scratch));
  if (call.stream) finish_streaming();
}

}  // namespace TTSFAST_ISA
}  // namespace ttsfast
