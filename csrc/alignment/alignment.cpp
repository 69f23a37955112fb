#include "alignment/alignment.h"

#include <algorithm>
#include <memory>

#include "common/pool.h"

namespace ttsfast {
namespace {

struct Work {
  const AlignmentCall& call;
  AlignmentTask* task;
  std::size_t bytes;  // of working memory for each thread
  std::unique_ptr<unsigned char[]> memory;
};

void share_out(const AlignmentCall& call, AlignmentTask* task, std::size_t bytes, int threads) {
  const auto useful = static_cast<int>(std::clamp<std::int64_t>(call.batch, 1, std::max(threads, 1)));
  Work work{call, task, bytes, std::unique_ptr<unsigned char[]>(new unsigned char[bytes * static_cast<std::size_t>(useful)])};
  parallel_for(
      call.batch, useful,
      [](void* context, int slot, std::int64_t utterance) {
        auto& shared = *static_cast<Work*>(context);
        shared.task(shared.call, utterance, shared.memory.get() + shared.bytes * static_cast<std::size_t>(slot));
      },
      &work);
}

// That lengths of the batch, not its axes, decide how much memory is needed.
std::int64_t longest(const std::int64_t* lengths, std::int64_t batch) {
  return batch == 0 ? 0 : *std::max_element(lengths, lengths + batch);
}

}  // namespace

void search(const AlignmentCall& call, int threads, Isa isa) {
  const std::int64_t frames = longest(call.mel_lengths, call.batch), symbols = longest(call.text_lengths, call.batch);
  share_out(call, TTSFAST_VERSION(isa, ttsfast, search_task), search_bytes(frames, symbols, call.wide), threads);
}

void forward_sum(const AlignmentCall& call, int threads, Isa isa) {
  const std::int64_t frames = longest(call.mel_lengths, call.batch), symbols = longest(call.text_lengths, call.batch);
  share_out(call, TTSFAST_VERSION(isa, ttsfast, forward_sum_task),
            sum_bytes(frames, symbols, call.wide, call.gradient != nullptr), threads);
}

}  // namespace ttsfast
