// Memory for large gradients that is used again. The C library gives large blocks back to the system, so each
// step would pay for thousands of page faults, more than the losses themselves cost.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ttsfast {

// At least `bytes` bytes, aligned to 64 or more, not cleared. Throws std::bad_alloc.
void* acquire_memory(std::size_t bytes);

// Give a block back, from any thread. Idle blocks are kept for the next acquire_memory, as long as they and
// those in use together are no more than the most that was ever in use at once.
void release_memory(void* block);

// Bytes in use and bytes idle.
struct MemoryUse {
  std::size_t used, idle;
};
MemoryUse memory_use();

}  // namespace ttsfast
