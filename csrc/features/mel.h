// Log-mel features: a real transform of windowed frames, a filterbank and a logarithm, in one pass over a
// waveform. No Python here; see ttsfast/data/features/mel.py for what the numbers mean.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/isa.h"

namespace ttsfast {

struct MelFilter {
  std::int64_t first, count;  // frequency bins
  std::size_t weights;        // where its weights begin in MelPlan::weights
};

// One pass of the transform: `length` points, each `stride` apart, are split `radix` ways.
struct MelPass {
  std::int64_t radix, length, stride;
  std::size_t twiddles;  // where its factors begin in MelPlan::twiddles
};

// Everything about a contract that is the same for every waveform.
struct MelPlan {
  std::int64_t n_fft = 0, hop = 0;
  double epsilon = 0, floor = 0, log_scale = 1;
  bool root = true;
  std::vector<double> window;  // (n_fft,), halved: the real transform wants its inputs so
  std::vector<MelPass> passes;
  std::vector<double> twiddles;  // cosine, -sine
  std::vector<double> roots;     // of unity of order n_fft, (n_fft / 2 + 1, 2)
  std::vector<double> circle;    // of unity of every odd radix, one after another, in the order of passes
  std::vector<MelFilter> filters;
  std::vector<double> weights;
  std::int64_t first_bin = 0, last_bin = 0;  // that any filter reads, the last one included
};

// filters: (n_mels, n_fft / 2 + 1). Throws std::invalid_argument for what cannot be.
MelPlan plan_mel(std::int64_t n_fft, std::int64_t hop, const double* window, const float* filters,
                 std::int64_t n_mels, double epsilon, bool root, double floor, bool decimal);

// wave: (n_fft + (frames - 1) * hop,) or more; out: (frames, n_mels). The same bits for every `isa`, and for a
// frame whatever its neighbours are.
void log_mel(const MelPlan& plan, const float* wave, std::int64_t frames, float* out, Isa isa);

// One version per instruction set; `scratch` is aligned to 64 bytes, see log_mel above for its size.
namespace mel {
using Frames = void(const MelPlan& plan, const float* wave, std::int64_t frames, float* out, double* scratch);
namespace baseline {
Frames log_mel;
}
namespace avx2 {
Frames log_mel;
}
namespace avx512 {
Frames log_mel;
}
}  // namespace mel

}  // namespace ttsfast
