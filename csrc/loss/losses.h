// The fused losses from the outside: options, tensors, one call.
#pragma once

#include <cstdint>
#include <vector>

#include "common/isa.h"
#include "loss/adaptive.h"
#include "loss/call.h"

namespace ttsfast {

struct LossOptions {
  bool active[kAllTerms] = {};  // enters the total
  double base_weights[kAllTerms] = {};
  bool by_utterance = false;
  bool elbo = true;
  double mel_floor = 0.0;        // of one element of one prediction
  double stop_floors[2] = {};    // of one element, targets 0 and 1
  std::int64_t stop_tail = 0;    // steps
  Distance distance = Distance::huber;
  double delta = 1.0;
  Smoothing smoothing = Smoothing::none;
  double amount = 0.0;
  double free_bits = 0.0;
  double coefficients[2][2] = {};
  double sigma = 0.2;
  std::uint32_t seed = 0;
  AdaptiveConstants adaptive;
};

// What terms are divided by: see Counts in ttsfast/terms/counts.py.
struct Normalizer {
  static constexpr int kCounts = 4;
  enum Kind { own, scalar, counts } kind = own;
  double values[kCounts] = {};  // frames, stop steps, attention steps, utterances; a scalar is the first
};

// Tensors of one call; lengths are clamped to their axes here.
struct LossTensors {
  Call call;  // views and sizes
  std::vector<std::int64_t> mel_lengths, step_lengths, text_lengths;
  std::vector<std::uint8_t> truncated;
  std::vector<Layer> layers;
  std::vector<double> wide[2];   // corpus statistics in the type computed in: mean and deviation
  std::vector<float> narrow[2];  // of one of the two types
  bool present[kTerms] = {};
  double weights[kTerms] = {};
  double grad_scale = 1.0;
  Normalizer normalizer;
};

struct LossValues {
  double total = 0.0;
  double values[kTerms] = {};
  double floors[kTerms] = {};
  std::int64_t frames = 0;
};

// Values, floors and every gradient whose view has memory. Bitwise the same for any number of threads.
LossValues run_losses(const LossOptions& options, LossTensors& tensors, int threads, Isa isa);

}  // namespace ttsfast
