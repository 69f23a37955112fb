// Log-mels for the compiler's default target: SSE2 on x86-64, NEON on aarch64.
#include "features/mel.h"

#define TTSFAST_EXACT
#define TTSFAST_BYTES 16
#define TTSFAST_KERNELS "features/frames.h"
#include "common/isa.inc"
