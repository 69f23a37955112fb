// Log-mels for x86-64 processors with AVX-512.
#if defined(__x86_64__)

// What the headers of this file define must be compiled for any processor, so they come before the switch.
#include <immintrin.h>

#include "features/mel.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx2"))), apply_to = function)
#pragma clang fp contract(off)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx2")
#pragma GCC optimize("fp-contract=off")
#endif

#define TTSFAST_ISA mel_avx512
#define TTSFAST_BYTES 64
#include "features/frames.h"

namespace ttsfast {

void log_mel_avx512(const MelPlan& plan, const float* wave, std::int64_t frames, float* out, double* scratch) {
  mel_avx512::log_mel(plan, wave, frames, out, scratch);
}

}  // namespace ttsfast

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
