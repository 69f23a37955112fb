// The fused losses for x86-64 processors with AVX2 and FMA.
#include "loss/call.h"

#if TTSFAST_X86

// What the headers of this file define must be compiled for any processor, so they come before the switch.
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <type_traits>

#include "common/half.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#define TTSFAST_ISA avx2
#define TTSFAST_BYTES 32
#include "loss/terms.h"

namespace ttsfast {

void sweep_avx2(Call& call, std::int64_t task, void* scratch) { avx2::sweep(call, task, scratch); }

}  // namespace ttsfast

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
