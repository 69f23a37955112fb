// What one thread does for one utterance. Part of one instruction set's version; see common/vector.h.
#pragma once

#include "alignment/forward_sum.h"
#include "alignment/search.h"

namespace ttsfast {
namespace TTSFAST_ISA {

void search_task(const AlignmentCall& call, std::int64_t utterance, unsigned char* working) {
  call.wide ? search_utterance<double>(call, utterance, working) : search_utterance<float>(call, utterance, working);
}

void forward_sum_task(const AlignmentCall& call, std::int64_t utterance, unsigned char* working) {
  call.wide ? forward_sum_utterance<double>(call, utterance, working)
            : forward_sum_utterance<float>(call, utterance, working);
}

}  // namespace TTSFAST_ISA
}  // namespace ttsfast
