// Losses element by element, for x86-64 processors with AVX2 and FMA.
#include "loss/call.h"
#include "loss/elements.h"

#if TTSFAST_X86

// What the headers of this file define must be compiled for any processor, so they come before the switch.
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <type_traits>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#define TTSFAST_ISA avx2
#define TTSFAST_BYTES 32
#include "loss/elements_rows.h"

namespace ttsfast {

void element_rows_avx2(const ElementCall& call, std::int64_t batch, std::int64_t head, std::int64_t first,
                         std::int64_t last) {
  avx2::element_rows_of(call, batch, head, first, last);
}

}  // namespace ttsfast

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
