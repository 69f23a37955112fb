#include <stdexcept>

#include "bindings.h"
#include "common/norm.h"
#include "common/tensors.h"

namespace py = pybind11;

namespace {

using namespace ttsfast;

// Whether the elements of a tensor of single precision lie side by side; then where.
bool read(PyObject* object, Numbers& numbers) {
  if (!is_tensor(object)) return false;
  Tensor found;
  try {
    found = tensor(object, "norm");
  } catch (const std::invalid_argument&) {  // of more axes, or elsewhere
    return false;
  }
  bool adjacent = true;
  std::int64_t size = 1;
  for (int i = found.dimensions - 1; i >= 0; size *= found.shape[i--])
    adjacent = adjacent && (found.stride[i] == size || found.shape[i] == 1);
  if (!adjacent && size > 0) return false;
  numbers = {static_cast<const float*>(found.data), size};
  return found.code == static_cast<int>(Type::f32);
}

bool norm_of(const py::list& tensors, const py::object& result, int threads) {
  std::vector<Numbers> all(tensors.size());
  for (std::size_t i = 0; i < all.size(); ++i)
    if (!read(PyList_GET_ITEM(tensors.ptr(), static_cast<Py_ssize_t>(i)), all[i])) return false;
  auto* const written = static_cast<float*>(numbers(result.ptr(), {}, static_cast<int>(Type::f32), "norm: result"));
  py::gil_scoped_release unlocked;
  *written = static_cast<float>(norm(all, threads));
  return true;
}

}  // namespace

void bind_norm(py::module_& module) {
  module.def("norm", &norm_of, py::arg("tensors"), py::arg("result"), py::arg("threads"),
             "Write the norm of all tensors together to the () float32 tensor `result`. False, and nothing written, "
             "where one is not contiguous single precision.");
}
