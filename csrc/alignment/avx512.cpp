// The alignment for x86-64 processors with AVX-512.
#include "alignment/call.h"
#include "common/half_scalar.h"

#define TTSFAST_BYTES 64
#define TTSFAST_KERNELS "alignment/dispatch.h"
#include "common/isa.inc"
