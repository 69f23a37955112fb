// Memory of real numbers as the kernels see it.
#pragma once

#include <cstdint>

namespace ttsfast {

enum class Type : std::int32_t { f32 = 0, f64 = 1, bf16 = 2, f16 = 3 };

// (rows of) a strided tensor; strides in elements. data is null where the tensor is absent.
struct View {
  void* data = nullptr;
  Type type = Type::f32;
  std::int64_t stride[4] = {0, 0, 0, 0};
};

}  // namespace ttsfast
