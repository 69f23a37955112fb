// The fused losses for x86-64 processors with AVX-512 (F, BW, DQ, VL).
#include "loss/call.h"

#if TTSFAST_X86

// What the headers of this file define must be compiled for any processor, so they come before the switch.
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <type_traits>

#include "common/half.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif

#define TTSFAST_ISA avx512
#define TTSFAST_BYTES 64
#include "loss/terms.h"

namespace ttsfast {

void sweep_avx512(Call& call, std::int64_t task, void* scratch) { avx512::sweep(call, task, scratch); }

}  // namespace ttsfast

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
