// Log-mels for x86-64 processors with AVX-512 (F, BW, DQ, VL).
#include "features/mel.h"

#define TTSFAST_EXACT
#define TTSFAST_BYTES 64
#define TTSFAST_KERNELS "features/frames.h"
#include "common/isa.inc"
