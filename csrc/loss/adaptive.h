// Adaptive weights on the CPU: ttsfast/losses/adaptive.py is the reference, and says what the methods are.
#pragma once

#include <cstdint>

namespace ttsfast {

enum class Weighting : int { fixed, dwa, uncertainty };

// Of the methods; the reference's own, which it hands over with the options of the loss.
struct AdaptiveConstants {
  double fast_decay = 0, slow_decay = 0, temperature = 0;
  double low = 0, high = 0;  // bounds of a factor
  double rate = 0;           // of the log-variances' descent
};

// The buffers of AdaptiveWeights; vectors of four, by term.
struct AdaptiveState {
  Weighting method = Weighting::fixed;
  float *factors = nullptr, *fast = nullptr, *slow = nullptr, *log_variances = nullptr;
  std::int64_t *observations = nullptr, *skipped = nullptr;
};

// Update the factors of the next step from this step's excess of each term over its floor. A step with an active term
// that is not finite changes nothing but `skipped`.
void observe(const AdaptiveState& state, const AdaptiveConstants& constants, const bool (&active)[4],
             const float (&excess)[4]);

}  // namespace ttsfast
