// Loss terms element by element, for reduction="none": the values, or each gradient times what arrived.
// Plain pointers and no containers, for the reason given in call.h.
#pragma once

#include <cstdint>

namespace ttsfast {

enum class ElementTerm : std::int32_t { mel = 0, kl = 1, stop = 2, attention = 3 };

// Every tensor is contiguous, all of float or, with `wide`, all of double. Inputs and gradients have the shape
// (batch, heads, rows, width): mel (B, 1, T, C), latents (B, 1, T, Z), logits (B, 1, 1, S), attention
// (B, H, S, N). Values and what arrives at them have that shape too, but one element a row for latents.
struct ElementCall {
  ElementTerm term = ElementTerm::mel;
  bool wide = false;
  std::int64_t batch = 0, heads = 0, rows = 0, width = 0;
  // Each (B,), within the axes; elements beyond them are never read and give 0.
  const std::int64_t* valid_rows = nullptr;
  const std::int64_t* valid_columns = nullptr;
  const std::int64_t* positive = nullptr;  // stop: the first column whose target is 1
  // mel: prediction and target; KL: mu, logvar and, or null, the prior's; otherwise the first alone.
  const void* input[4] = {};
  const void* shift = nullptr;     // mel: (C,) added to the target, or null
  const void* incoming = nullptr;  // null: write the values to output[0]
  void* output[4] = {};            // gradients of the inputs, null where none is wanted
  double keep = 1.0, delta = 1.0;  // mel: what the target is multiplied by, where Huber turns linear
  double free_bits = 0.0;
  double coefficients[2][2] = {};  // stop: (a, b) of targets 0 and 1
  double sigma = 0.2;
};

// Run rows [first, last) of one utterance and head. One version per instruction set.
using ElementRows = void(const ElementCall& call, std::int64_t batch, std::int64_t head, std::int64_t first,
                         std::int64_t last);
namespace baseline {
ElementRows element_rows_of;
}
namespace avx2 {
ElementRows element_rows_of;
}
namespace avx512 {
ElementRows element_rows_of;
}

// Everything, on up to `threads` threads; `isa` as in losses.h. The same bits for any number of them.
void run_elements(const ElementCall& call, int threads, int isa);

}  // namespace ttsfast
