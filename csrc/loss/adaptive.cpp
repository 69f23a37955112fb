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

// exp(exponents / temperature) over its mean over the active terms, within the bounds.
void share_out(const AdaptiveState& state, const AdaptiveConstants& constants, const bool* active,
               const float* exponents, float temperature, int terms) {
  const auto low = static_cast<float>(constants.low), high = static_cast<float>(constants.high);
  float largest = -INFINITY, raised[kAllTerms], sum = 0, count = 0;
  for (int i = 0; i < terms; ++i)
    if (active[i]) largest = std::max(largest, exponents[i]);
  // Measured from the largest, so that equal ones give exp(0) = 1 and exactly 1 after division.
  for (int i = 0; i < terms; ++i) {
    if (!active[i]) continue;
    raised[i] = std::exp((exponents[i] - largest) / temperature);
    sum += raised[i];
    count += 1;
  }
  for (int i = 0; i < terms; ++i)
    if (active[i]) state.factors[i] = std::clamp(raised[i] * (count / sum), low, high);
}

void dwa(const AdaptiveState& state, const AdaptiveConstants& constants, const bool* active, int terms) {
  float ratios[kAllTerms] = {};
  for (int i = 0; i < terms; ++i)
    if (active[i]) ratios[i] = state.slow[i] > 0 ? state.fast[i] / state.slow[i] : 1.0f;
  share_out(state, constants, active, ratios, static_cast<float>(constants.temperature), terms);
}

void uncertainty(const AdaptiveState& state, const AdaptiveConstants& constants, const bool* active,
                 const float* excess, int terms) {
  const auto bound = static_cast<float>(constants.log_variance_bound);
  float precisions[kAllTerms] = {};
  for (int i = 0; i < terms; ++i) {
    if (!active[i]) continue;
    float& s = state.log_variances[i];
    const float slope = std::max(0.5f * (1 - std::exp(-s) * excess[i]), -static_cast<float>(constants.steepest));
    s = std::clamp(s - static_cast<float>(constants.rate) * slope, -bound, bound);
    precisions[i] = -s;
  }
  share_out(state, constants, active, precisions, 1.0f, terms);
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
