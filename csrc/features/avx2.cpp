// Log-mels for x86-64 processors with AVX2 and FMA.
#include "features/mel.h"

#define TTSFAST_EXACT
#define TTSFAST_BYTES 32
#define TTSFAST_KERNELS "features/frames.h"
#include "common/isa.inc"
