// Adaptive weights on the CPU: ttsfast/losses/adaptive.py is the reference, and says what the methods are.
#pragma once

#include <cstdint>

namespace ttsfast {

enum class Weighting : int { fixed, dwa, uncertainty };

// Of the methods; the reference's own, which it hands over with the options of the loss.
struct AdaptiveConstants {
  double fast_decay = 0, slow_decay = 0, temperature = 0;
  double low = 0, high = 0;       // bounds of a factor
  double rate = 0, steepest = 0;  // of the log-variances' descent
  double log_variance_bound = 0;  // on both sides
};

// Of the fused sweep, by term: mel, kl, stop, attention; then the terms of an alignment, computed beside it.
constexpr int kTerms = 4, kAllTerms = 6;

// The buffers of AdaptiveWeights; vectors by term, of all of them.
struct AdaptiveState {
  Weighting method = Weighting::fixed;
  float *factors = nullptr, *fast = nullptr, *slow = nullptr, *log_variances = nullptr;
  std::int64_t *observations = nullptr, *skipped = nullptr;
};

// Update the factors of the next step from this step's excess of each of the first terms over its floor. A step with an
// active term that is not finite changes nothing but `skipped`.
void observe(const AdaptiveState& state, const AdaptiveConstants& constants, const bool* active, const float* excess,
             int terms);

}  // namespace ttsfast
