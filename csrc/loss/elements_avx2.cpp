// Losses element by element, for x86-64 processors with AVX2 and FMA.
#include "loss/elements.h"

#define TTSFAST_BYTES 32
#define TTSFAST_KERNELS "loss/elements_rows.h"
#include "common/isa.inc"
