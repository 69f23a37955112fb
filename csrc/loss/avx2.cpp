// The fused losses for x86-64 processors with AVX2 and FMA.
#include "common/half.h"
#include "loss/call.h"

#define TTSFAST_BYTES 32
#define TTSFAST_KERNELS "loss/dispatch.h"
#include "common/isa.inc"
