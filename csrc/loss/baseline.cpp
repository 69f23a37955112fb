// The fused losses for the compiler's default target: SSE2 on x86-64, NEON on aarch64.
#include "common/half.h"
#include "loss/call.h"

#define TTSFAST_BYTES 16
#define TTSFAST_KERNELS "loss/dispatch.h"
#include "common/isa.inc"
