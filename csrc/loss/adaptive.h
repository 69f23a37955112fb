// Adaptive weights on the CPU: ttsfast/losses/adaptive.py is the reference, and says what the methods are.
#pragma once

#include <cstdint>

namespace ttsfast {

enum class Weighting : int { fixed = 0, dwa = 1, uncertainty = 2, origin = 3 };

// The buffers of AdaptiveWeights; vectors of four, by term.
struct AdaptiveState {
  Weighting method = Weighting::fixed;
  float *factors = nullptr, *fast = nullptr, *slow = nullptr, *log_variances = nullptr;
  std::int64_t *observations = nullptr, *skipped = nullptr;
};

// Update the factors of the next step from this step's values and their excess over the floors. A step with an
// active term that is not finite changes nothing but `skipped`.
void observe(const AdaptiveState& state, const bool (&active)[4], const float (&values)[4], const float (&excess)[4]);

}  // namespace ttsfast
