// Losses element by element, for x86-64 processors with AVX-512 (F, BW, DQ, VL).
#include "loss/elements.h"

#define TTSFAST_BYTES 64
#define TTSFAST_KERNELS "loss/elements_rows.h"
#include "common/isa.inc"
