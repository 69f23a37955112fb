// The fused losses for x86-64 processors with AVX-512 (F, BW, DQ, VL).
#include "common/half.h"
#include "loss/call.h"

#define TTSFAST_BYTES 64
#define TTSFAST_KERNELS "loss/dispatch.h"
#include "common/isa.inc"
