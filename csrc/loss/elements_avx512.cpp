// Losses element by element, for x86-64 processors with AVX-512 (F, BW, DQ, VL).
#include "loss/call.h"
#include "loss/elements.h"

#if TTSFAST_X86

// What the headers of this file define must be compiled for any processor, so they come before the switch.
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <type_traits>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif

#define TTSFAST_ISA avx512
#define TTSFAST_BYTES 64
#include "loss/elements_rows.h"

namespace ttsfast {

void element_rows_avx512(const ElementCall& call, std::int64_t batch, std::int64_t head, std::int64_t first,
                         std::int64_t last) {
  avx512::element_rows_of(call, batch, head, first, last);
}

}  // namespace ttsfast

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
