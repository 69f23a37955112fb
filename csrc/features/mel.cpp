#include "features/mel.h"

#include <cmath>
#include <memory>
#include <stdexcept>

namespace ttsfast {

namespace {

constexpr std::size_t kWidest = 8;  // lanes

void append_root(std::vector<double>& to, std::int64_t numerator, std::int64_t order) {
  // exp(-2 pi i numerator / order)
  const long double angle = -2 * 3.14159265358979323846264338327950288L * (numerator % order) / order;
  to.push_back(static_cast<double>(std::cos(angle)));
  to.push_back(static_cast<double>(std::sin(angle)));
}

std::int64_t next_radix(std::int64_t length) {
  for (std::int64_t radix : {8, 4, 2})
    if (length % radix == 0) return radix;
  for (std::int64_t radix = 3; radix * radix <= length; radix += 2)
    if (length % radix == 0) return radix;
  return length;
}

}  // namespace

MelPlan plan_mel(std::int64_t n_fft, std::int64_t hop, const double* window, const float* filters,
                 std::int64_t n_mels, double epsilon, bool root, double floor, bool decimal) {
  if (n_fft < 2 || n_fft % 2 != 0) throw std::invalid_argument("n_fft must be positive and even");
  if (hop < 1) throw std::invalid_argument("hop must be positive");
  if (!(floor >= 2.3e-308)) throw std::invalid_argument("floor must be a normal positive number");
  MelPlan plan;
  plan.n_fft = n_fft;
  plan.hop = hop;
  plan.epsilon = epsilon;
  plan.root = root;
  plan.floor = floor;
  plan.log_scale = decimal ? 0.43429448190325182765 : 1.0;
  for (std::int64_t i = 0; i < n_fft; ++i) plan.window.push_back(0.5 * window[i]);
  const std::int64_t half = n_fft / 2;
  for (std::int64_t length = half, stride = 1; length > 1;) {
    const std::int64_t radix = next_radix(length);
    plan.passes.push_back({radix, length, stride, plan.twiddles.size()});
    for (std::int64_t p = 0; p < length / radix; ++p)
      for (std::int64_t k = 1; k < radix; ++k) append_root(plan.twiddles, p * k, length);
    if (radix % 2 != 0)
      for (std::int64_t k = 0; k < radix; ++k) append_root(plan.circle, k, radix);
    length /= radix;
    stride *= radix;
  }
  for (std::int64_t k = 0; k <= half; ++k) append_root(plan.roots, k, n_fft);
  plan.first_bin = half;
  for (std::int64_t m = 0; m < n_mels; ++m) {
    const float* row = filters + m * (half + 1);
    std::int64_t first = 0, last = half;
    while (first <= half && row[first] == 0) ++first;
    while (last >= 0 && row[last] == 0) --last;
    if (first > last) throw std::invalid_argument("filter " + std::to_string(m) + " is zero");
    plan.filters.push_back({first, last - first + 1, plan.weights.size()});
    plan.weights.insert(plan.weights.end(), row + first, row + last + 1);
    plan.first_bin = first < plan.first_bin ? first : plan.first_bin;
    plan.last_bin = last > plan.last_bin ? last : plan.last_bin;
  }
  return plan;
}

void log_mel(const MelPlan& plan, const float* wave, std::int64_t frames, float* out, Isa isa) {
  // Two sets of n_fft / 2 complex points, then n_fft / 2 + 1 magnitudes.
  const auto doubles = static_cast<std::size_t>(2 * plan.n_fft + plan.n_fft / 2 + 1) * kWidest;
  std::size_t space = doubles * sizeof(double) + 64;
  const auto memory = std::make_unique<unsigned char[]>(space);
  void* aligned = memory.get();
  auto* scratch = static_cast<double*>(std::align(64, doubles * sizeof(double), aligned, space));
  TTSFAST_VERSION(isa, mel, log_mel)(plan, wave, frames, out, scratch);
}

}  // namespace ttsfast
