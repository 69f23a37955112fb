// Threads for the losses: those of torch's own OpenMP runtime where team.h has found it, otherwise a small pool
// (linking to an OpenMP of our own would make two in one process, which break each other's threading).
#pragma once

#include <cstdint>

namespace ttsfast {

// Call run(context, slot, i) for every i in [0, count), on up to `threads` threads, the caller among them. `slot`
// is below `threads` and one thread's own for the call: what the caller set aside for it is not shared.
// Which thread runs which i is not fixed, so a task writes only what belongs to its own i. run must not
// throw. Safe after fork(), whose child uses the pool; where another thread is using the pool, the caller works
// alone.
void parallel_for(std::int64_t count, int threads, void (*run)(void* context, int slot, std::int64_t index),
                  void* context);

// Threads that the pool of this process has started.
int pool_threads();

}  // namespace ttsfast
