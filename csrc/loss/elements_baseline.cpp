// Losses element by element, for the compiler's default target: SSE2 on x86-64, NEON on aarch64.
#include "loss/elements.h"

#define TTSFAST_BYTES 16
#define TTSFAST_KERNELS "loss/elements_rows.h"
#include "common/isa.inc"
