// The threads that torch's own operations run on. After each operation they wait in a loop for the next one,
// on the processors that threads of our own would need: who shares the work with them does not fight them.
// What it brings, on two idle cores: a call of the loss on a batch of 16 x 400 x 80 that lies in a cache (the case
// `cache` of `ttsfast bench loss`) takes 0.36 ms, on the pool's threads 0.46. Of a training step that is a thousandth.
#pragma once

namespace ttsfast {

// Use the OpenMP runtime that the loaded library `path` depends on. False where it is not loaded or has none.
bool join_team_of(const char* path);

// Use the pool's threads again; false, as there is no team then.
bool leave_team();

// Call run(context) on `threads` threads at once, the caller among them, and wait for all.
// False, and nothing done, where there is no team to join; after fork(), the child has none.
bool run_on_team(int threads, void (*run)(void*), void* context);

}  // namespace ttsfast
