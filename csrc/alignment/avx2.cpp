// The alignment for x86-64 processors with AVX2 and FMA.
#include "alignment/call.h"
#include "common/half_scalar.h"

#define TTSFAST_BYTES 32
#define TTSFAST_KERNELS "alignment/dispatch.h"
#include "common/isa.inc"
