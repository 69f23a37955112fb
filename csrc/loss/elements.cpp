#include "loss/elements.h"

#include <algorithm>

#include "loss/losses.h"
#include "common/pool.h"

namespace ttsfast {
namespace {

// Elements per task: enough to outweigh handing it out.
constexpr std::int64_t kTaskElements = 8192;

struct Work {
  const ElementCall& call;
  ElementRows* run;
  std::int64_t rows, blocks;  // per task, and tasks per utterance and head
};

void run_task(void* context, int, std::int64_t task) {
  const auto& work = *static_cast<const Work*>(context);
  const std::int64_t first = task % work.blocks * work.rows, group = task / work.blocks;
  work.run(work.call, group / work.call.heads, group % work.call.heads, first,
           std::min(first + work.rows, work.call.rows));
}

}  // namespace

void run_elements(const ElementCall& call, int threads, int isa) {
  if (call.batch * call.heads * call.rows == 0) return;
  const std::int64_t rows = std::clamp<std::int64_t>(kTaskElements / std::max<std::int64_t>(call.width, 1), 1, call.rows);
  Work work{call, TTSFAST_VERSION(static_cast<Isa>(isa), ttsfast, element_rows_of), rows, (call.rows + rows - 1) / rows};
  parallel_for(call.batch * call.heads * work.blocks, threads, run_task, &work);
}

}  // namespace ttsfast
