#include "loss/adaptive.h"

#include <algorithm>
#include <cmath>

namespace ttsfast {
namespace {

// Exponential average, bias-corrected: the n-th observation has weight (1-d)/(1-d^n).
void average(float* averages, const bool* active, const float* seen, int terms, double decay,
             std::int64_t observations) {
  float share = 1.0f;
  if (observations > 1)
    share = static_cast<float>(1 - decay) /
            -std::expm1(static_cast<float>(observations) * static_cast<float>(std::log(decay)));
  for (int i = 0; i < terms; ++i)
    if (active[i]) averages[i] += share * (seen[i] - averages[i]);
}

void dwa(const AdaptiveState& state, const AdaptiveConstants& constants, const bool* active, int terms) {
  const auto temperature = static_cast<float>(constants.temperature);
  const auto low = static_cast<float>(constants.low), high = static_cast<float>(constants.high);
  float ratios[kAllTerms], largest = -INFINITY, raised[kAllTerms], sum = 0, count = 0;
  for (int i = 0; i < terms; ++i) {
    if (!active[i]) continue;
    ratios[i] = state.slow[i] > 0 ? state.fast[i] / state.slow[i] : 1.0f;
    largest = std::max(largest, ratios[i]);
  }
  // Measured from the largest, so that equal ratios give exp(0) = 1 and exactly 1 after division.
  for (int i = 0; i < terms; ++i) {
    if (!active[i]) continue;
    raised[i] = std::exp((ratios[i] - largest) / temperature);
    sum += raised[i];
    count += 1;
  }
  for (int i = 0; i < terms; ++i)
    if (active[i]) state.factors[i] = std::clamp(raised[i] * (count / sum), low, high);
}

void uncertainty(const AdaptiveState& state, const AdaptiveConstants& constants, const bool* active,
                 const float* excess, int terms) {
  const auto least = static_cast<float>(-std::log(constants.high)), most = static_cast<float>(-std::log(constants.low));
  const auto low = static_cast<float>(constants.low), high = static_cast<float>(constants.high);
  for (int i = 0; i < terms; ++i) {
    if (!active[i]) continue;
    float& s = state.log_variances[i];
    const float slope = 0.5f * (1 - std::exp(-s) * excess[i]);
    s = std::clamp(s - static_cast<float>(constants.rate) * slope, least, most);
    state.factors[i] = std::clamp(std::exp(-s), low, high);
  }
}

}  // namespace

void observe(const AdaptiveState& state, const AdaptiveConstants& constants, const bool* active, const float* excess,
             int terms) {
  if (state.method == Weighting::fixed) return;
  for (int i = 0; i < terms; ++i) {
    if (active[i] && !std::isfinite(excess[i])) {
      ++*state.skipped;
      return;
    }
  }
  const std::int64_t observations = ++*state.observations;
  average(state.fast, active, excess, terms, constants.fast_decay, observations);
  average(state.slow, active, excess, terms, constants.slow_decay, observations);
  if (state.method == Weighting::dwa) {
    dwa(state, constants, active, terms);
  } else {
    uncertainty(state, constants, active, excess, terms);
  }
}

}  // namespace ttsfast
