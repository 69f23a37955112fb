// The alignment from the outside: utterances shared out to threads. The same bits for any number of them.
#pragma once

#include "alignment/call.h"
#include "common/isa.h"

namespace ttsfast {

// Writes the durations.
void search(const AlignmentCall& call, int threads, Isa isa);

// Writes the losses, and the gradient where there is room for it.
void forward_sum(const AlignmentCall& call, int threads, Isa isa);

}  // namespace ttsfast
