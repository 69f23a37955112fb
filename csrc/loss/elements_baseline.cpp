// Losses element by element, for the compiler's default target: SSE2 on x86-64, NEON on aarch64.
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define TTSFAST_ISA baseline
#define TTSFAST_BYTES 16
#include "loss/elements_rows.h"

namespace ttsfast {

void element_rows_baseline(const ElementCall& call, std::int64_t batch, std::int64_t head, std::int64_t first,
                           std::int64_t last) {
  baseline::element_rows_of(call, batch, head, first, last);
}

}  // namespace ttsfast
