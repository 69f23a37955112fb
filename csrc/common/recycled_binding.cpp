// Tensors in recycled memory.
#include <pybind11/stl.h>

#include <memory>

#include "bindings.h"
#include "common/dlpack.h"
#include "common/recycled.h"
#include "common/tensors.h"

namespace py = pybind11;

namespace {

using namespace ttsfast;

// `Managed` is DLManagedTensorVersioned, or DLManagedTensor for a torch that cannot be given one directly.
template <typename Managed>
struct Held {
  Managed managed{};
  void* block = nullptr;
  std::int64_t sizes[8] = {};  // shape, then strides

  ~Held() { release_memory(block); }

  static void let_go(Managed* self) { delete static_cast<Held*>(self->manager_ctx); }
};

template <typename Managed>
std::unique_ptr<Held<Managed>> hold(const py::tuple& shape, const py::tuple& strides, int code) {
  constexpr DLDataType types[] = {{kDLFloat, 32, 1}, {kDLFloat, 64, 1}, {kDLBfloat, 16, 1}, {kDLFloat, 16, 1}};
  const std::size_t dimensions = shape.size();
  if (code < 0 || code > static_cast<int>(Type::f16) || dimensions < 1 || dimensions > 4 ||
      strides.size() != dimensions)
    refuse("recycled: bad type code or number of dimensions");
  auto held = std::make_unique<Held<Managed>>();
  std::int64_t elements = 1, last = 0;
  for (std::size_t i = 0; i < dimensions; ++i) {
    held->sizes[i] = shape[i].cast<std::int64_t>();
    held->sizes[dimensions + i] = strides[i].cast<std::int64_t>();
    if (held->sizes[i] < 1 || held->sizes[dimensions + i] < 0) refuse("recycled: bad size or stride");
    elements *= held->sizes[i];
    last += (held->sizes[i] - 1) * held->sizes[dimensions + i];
  }
  if (last >= elements) refuse("recycled: strides leave gaps");
  held->block = acquire_memory(static_cast<std::size_t>(elements) * types[code].bits / 8);
  held->managed.manager_ctx = held.get();
  held->managed.deleter = &Held<Managed>::let_go;
  held->managed.dl_tensor = {held->block, {kDLCPU, 0}, static_cast<std::int32_t>(dimensions), types[code],
                             held->sizes, held->sizes + dimensions, 0};
  return held;
}

void destroy_capsule(PyObject* capsule) {
  // Whoever took the tensor has renamed the capsule, and lets go of it itself.
  if (!PyCapsule_IsValid(capsule, "dltensor")) return;
  auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor"));
  managed->deleter(managed);
}

py::object recycled(const py::tuple& shape, const py::tuple& strides, int code) {
  if (can_make_tensors()) {
    auto held = hold<DLManagedTensorVersioned>(shape, strides, code);
    held->managed.version = {kDLPackMajor, 0};
    return py::reinterpret_steal<py::object>(tensor_over(&held.release()->managed));
  }
  auto held = hold<DLManagedTensor>(shape, strides, code);
  PyObject* const capsule = PyCapsule_New(&held->managed, "dltensor", destroy_capsule);
  if (capsule == nullptr) throw py::error_already_set();
  held.release();
  return py::reinterpret_steal<py::object>(capsule);
}

}  // namespace

void bind_recycled(py::module_& module) {
  module.def("recycled", &recycled, py::arg("shape"), py::arg("strides"), py::arg("code"),
             "An uncleared tensor in memory that is used again once the tensor is gone; a DLPack capsule of it where "
             "no tensor type is registered.");
  module.def(
      "recycled_bytes", [] { return std::make_pair(memory_use().used, memory_use().idle); },
      "Bytes of recycled memory in use, and idle.");
}
