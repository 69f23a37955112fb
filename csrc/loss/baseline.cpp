// The fused losses for the compiler's default target: SSE2 on x86-64, NEON on aarch64.
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define TTSFAST_ISA baseline
#define TTSFAST_BYTES 16
#include "loss/terms.h"

namespace ttsfast {

void sweep_baseline(Call& call, std::int64_t task, void* scratch) { baseline::sweep(call, task, scratch); }

}  // namespace ttsfast
