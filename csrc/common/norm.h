// The Euclidean norm of many tensors together, as gradients are clipped by.
#pragma once

#include <cstdint>
#include <vector>

namespace ttsfast {

struct Numbers {
  const float* data;
  std::int64_t size;
};

// The same bits for any number of threads. Squares are taken in single precision, so beyond 1.8e19 they are infinite.
double norm(const std::vector<Numbers>& tensors, int threads);

}  // namespace ttsfast
