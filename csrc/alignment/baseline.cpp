// The alignment for any processor.
#include "alignment/call.h"
#include "common/half_scalar.h"

#define TTSFAST_BYTES 16
#define TTSFAST_KERNELS "alignment/dispatch.h"
#include "common/isa.inc"
