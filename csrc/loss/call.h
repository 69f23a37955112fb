// One call of the fused losses, as the kernels of every instruction set see it: raw memory and numbers.
// Plain pointers and no containers: a template of the standard library, compiled by a file that may use
// wide registers, could end up serving processors without them.
// Formulas and options are those of ttsfast/losses/reference.py and ttsfast/terms/spec.py.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/view.h"

namespace ttsfast {

enum class Distance : std::int32_t { huber = 0, l1 = 1, mse = 2 };
enum class Smoothing : std::int32_t { none = 0, mean = 1, noise = 2 };

struct Term {
  std::int64_t block = 1;   // rows per task
  std::int64_t blocks = 0;  // tasks per utterance (and head)
  std::int64_t first = 0;   // index of the first task
  const double* scale = nullptr;  // (B,) what the gradient of one element is multiplied by
};

struct Layer {
  View value;     // (B, H, S, N)
  View gradient;  // absent: not wanted
  std::int64_t heads = 1;
  std::int64_t first = 0;
};

struct Call {
  bool wide = false;    // compute in double
  bool stream = false;  // write gradients past the caches
  std::int64_t batch = 0, frames = 0, bins = 0, latents = 0;
  std::int64_t steps = 0;                         // of the stop logits
  std::int64_t attention_steps = 0, symbols = 0;  // of the attention
  // Each (B,): valid frames, steps and symbols within their axes; steps after the end that the stop term
  // takes in; whether the clip was cut before its end.
  const std::int64_t* mel_lengths = nullptr;
  const std::int64_t* step_lengths = nullptr;
  const std::int64_t* text_lengths = nullptr;
  const std::int64_t* tails = nullptr;
  const std::uint8_t* truncated = nullptr;

  Term mel, kl, stop, attention;
  std::int64_t tasks = 0;
  // One sum per task: its place is fixed, so the total does not depend on which thread ran what.
  double* sums = nullptr;

  int predictions = 0;
  View prediction[2], target, mean, deviation;
  View prediction_gradient[2], target_gradient;
  Distance distance = Distance::huber;
  Smoothing smoothing = Smoothing::none;
  double delta = 1.0, amount = 0.0;
  std::uint32_t seed = 0, step = 0;

  bool per_frame = false;  // latents (B, T, Z) rather than (B, Z)
  View posterior[2], prior[2];
  View posterior_gradient[2], prior_gradient[2];
  double free_bits = 0.0;

  View logits, logits_gradient;
  double coefficients[2][2] = {{0, 1}, {1, 0}};  // (a, b) of targets 0 and 1

  const Layer* layers = nullptr;
  std::int64_t layer_count = 0;
  double sigma = 0.2;
};

// Scratch that one task needs, in bytes: the rows that are not already in the type and order computed in.
std::size_t scratch_bytes(const Call& call);

// Run one task: its part of the gradients (zeros in padding) and its sum. One version per instruction set.
using LossTask = void(Call& call, std::int64_t task, void* scratch);
namespace baseline {
LossTask loss_task;
}
namespace avx2 {
LossTask loss_task;
}
namespace avx512 {
LossTask loss_task;
}

}  // namespace ttsfast
