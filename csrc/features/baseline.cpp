// Log-mels for the compiler's default target: SSE2 on x86-64, NEON on aarch64.
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "features/mel.h"

#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif

#define TTSFAST_ISA mel_baseline
#define TTSFAST_BYTES 16
#include "features/frames.h"

namespace ttsfast {

void log_mel_baseline(const MelPlan& plan, const float* wave, std::int64_t frames, float* out, double* scratch) {
  mel_baseline::log_mel(plan, wave, frames, out, scratch);
}

}  // namespace ttsfast
