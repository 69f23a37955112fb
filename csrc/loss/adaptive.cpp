#include "loss/adaptive.h"

#include <algorithm>
#include <cmath>

namespace ttsfast {
namespace {

constexpr double kFastDecay = 0.9, kSlowDecay = 0.99;
constexpr float kTemperature = 2.0f;
constexpr float kLow = 0.5f, kHigh = 2.0f;  // of a factor under dwa and uncertainty
constexpr float kRate = 0.01f;              // of the log-variances' descent
constexpr float kOriginLow = 0.7f, kOriginHigh = 1.3f;

// Exponential average, bias-corrected: the n-th observation has weight (1-d)/(1-d^n).
void average(float* averages, const bool (&active)[4], const float* seen, double decay, std::int64_t observations) {
  float share = 1.0f;
  if (observations > 1)
    share = static_cast<float>(1 - decay) /
            -std::expm1(static_cast<float>(observations) * static_cast<float>(std::log(decay)));
  for (int i = 0; i < 4; ++i)
    if (active[i]) averages[i] += share * (seen[i] - averages[i]);
}

float ratio(float above, float slow) { return slow > 0 ? above / slow : 1.0f; }

void dwa(const AdaptiveState& state, const bool (&active)[4]) {
  float ratios[4], largest = -INFINITY, raised[4], sum = 0, count = 0;
  for (int i = 0; i < 4; ++i) {
    if (!active[i]) continue;
    ratios[i] = ratio(state.fast[i], state.slow[i]);
    largest = std::max(largest, ratios[i]);
  }
  // Measured from the largest, so that equal ratios give exp(0) = 1 and exactly 1 after division.
  for (int i = 0; i < 4; ++i) {
    if (!active[i]) continue;
    raised[i] = std::exp((ratios[i] - largest) / kTemperature);
    sum += raised[i];
    count += 1;
  }
  for (int i = 0; i < 4; ++i)
    if (active[i]) state.factors[i] = std::clamp(raised[i] * (count / sum), kLow, kHigh);
}

void uncertainty(const AdaptiveState& state, const bool (&active)[4], const float (&excess)[4]) {
  const auto low = static_cast<float>(-std::log(double(kHigh))), high = static_cast<float>(-std::log(double(kLow)));
  for (int i = 0; i < 4; ++i) {
    if (!active[i]) continue;
    float& s = state.log_variances[i];
    const float slope = 0.5f * (1 - std::exp(-s) * excess[i]);
    s = std::clamp(s - kRate * slope, low, high);
    state.factors[i] = std::clamp(std::exp(-s), kLow, kHigh);
  }
}

void origin(const AdaptiveState& state, const bool (&active)[4], const float (&values)[4]) {
  for (int i = 0; i < 4; ++i) {
    if (!active[i]) continue;
    const float wanted = 0.5f + 0.5f * std::tanh(ratio(values[i], state.slow[i]) - 1);
    state.factors[i] = i == 0 ? std::clamp(wanted, kOriginLow, kOriginHigh) : 1.0f;
  }
}

}  // namespace

void observe(const AdaptiveState& state, const bool (&active)[4], const float (&values)[4], const float (&excess)[4]) {
  if (state.method == Weighting::fixed) return;
  const float* seen = state.method == Weighting::origin ? values : excess;
  for (int i = 0; i < 4; ++i) {
    if (active[i] && !std::isfinite(seen[i])) {
      ++*state.skipped;
      return;
    }
  }
  const std::int64_t observations = ++*state.observations;
  average(state.fast, active, seen, kFastDecay, observations);
  average(state.slow, active, seen, kSlowDecay, observations);
  switch (state.method) {
    case Weighting::dwa: dwa(state, active); break;
    case Weighting::uncertainty: uncertainty(state, active, excess); break;
    case Weighting::origin: origin(state, active, values); break;
    case Weighting::fixed: break;
  }
}

}  // namespace ttsfast
