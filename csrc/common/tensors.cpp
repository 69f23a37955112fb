#include "common/tensors.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>

#include "common/dlpack.h"

namespace py = pybind11;

namespace ttsfast {
namespace {

const DLPackExchangeAPI* exchange = nullptr;
std::vector<PyTypeObject*> types;
// Never given back, as the interpreter may end before statics do.
PyObject *to_dlpack = nullptr, *from_dlpack = nullptr;

constexpr char kCapsule[] = "dltensor";

int code_of(const DLDataType& type, const char* name) {
  if (type.lanes == 1) {
    const int bits = type.bits;
    switch (type.code) {
      case kDLFloat:
        if (bits == 32) return static_cast<int>(Type::f32);
        if (bits == 64) return static_cast<int>(Type::f64);
        if (bits == 16) return static_cast<int>(Type::f16);
        break;
      case kDLBfloat:
        if (bits == 16) return static_cast<int>(Type::bf16);
        break;
      case kDLInt: return bits == 8 ? kI8 : bits == 16 ? kI16 : bits == 32 ? kI32 : kI64;
      case kDLUInt:
        if (bits == 8) return kU8;
        break;
      case kDLBool: return kBool;
    }
  }
  refuse(std::string(name) + ": unknown type");
}

Tensor read(const DLTensor& found, const char* name) {
  if (found.device.device_type != kDLCPU) refuse(std::string(name) + ": expected a tensor on the CPU");
  if (found.ndim < 0 || found.ndim > 4) refuse(std::string(name) + ": expected at most 4 axes");
  Tensor result;
  result.data = static_cast<char*>(found.data) + found.byte_offset;
  result.code = code_of(found.dtype, name);
  result.dimensions = found.ndim;
  std::copy(found.shape, found.shape + found.ndim, result.shape);
  std::copy(found.strides, found.strides + found.ndim, result.stride);
  const bool empty = std::find(result.shape, result.shape + found.ndim, 0) != result.shape + found.ndim;
  if (found.data == nullptr && !empty) refuse(std::string(name) + ": no memory");
  return result;
}

py::object called(PyObject* function, PyObject* argument) {
  PyObject* const result = PyObject_CallOneArg(function, argument);
  if (result == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(result);
}

// Up to four numbers with their tensor's description in one allocation. `Managed` is DLManagedTensorVersioned for the
// exchange table, DLManagedTensor for a capsule.
template <typename Managed>
struct Small {
  Managed managed{};
  std::int64_t size = 0, stride = 1;
  alignas(64) unsigned char memory[4 * sizeof(double)];

  Small(const void* numbers, std::int64_t count, bool scalar, const DLDataType& type) : size(count) {
    std::memcpy(memory, numbers, static_cast<std::size_t>(count * type.bits / 8));
    managed.manager_ctx = this;
    managed.deleter = [](Managed* self) { delete static_cast<Small*>(self->manager_ctx); };
    managed.dl_tensor = {memory, {kDLCPU, 0}, scalar ? 0 : 1, type, &size, &stride, 0};
  }
};

void destroy_capsule(PyObject* capsule) {
  // Whoever took the tensor has renamed the capsule, and lets go of it itself.
  if (!PyCapsule_IsValid(capsule, kCapsule)) return;
  auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, kCapsule));
  managed->deleter(managed);
}

void expect_shape(const Tensor& tensor, const std::int64_t* shape, int dimensions, const char* name) {
  if (tensor.dimensions == dimensions && std::equal(shape, shape + dimensions, tensor.shape)) return;
  const auto listed = [](const std::int64_t* sizes, int count) {
    std::string list;
    for (int i = 0; i < count; ++i) list += (i > 0 ? ", " : "") + std::to_string(sizes[i]);
    return "(" + list + ")";
  };
  refuse(std::string(name) + ": expected shape " + listed(shape, dimensions) + ", found " +
         listed(tensor.shape, tensor.dimensions));
}

template <typename T>
std::int64_t element(const void* data, std::int64_t offset) {
  return static_cast<std::int64_t>(static_cast<const T*>(data)[offset]);
}

}  // namespace

void refuse(const std::string& message) { throw std::invalid_argument(message); }

std::int64_t integer(PyObject* object) {
  const long long value = PyLong_AsLongLong(object);
  if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
  return value;
}

double real(PyObject* object) {
  const double value = PyFloat_AsDouble(object);
  if (value == -1.0 && PyErr_Occurred()) throw py::error_already_set();
  return value;
}

PyObject* item(PyObject* tuple, Py_ssize_t index, Py_ssize_t size, const char* what) {
  if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) != size)
    refuse(std::string(what) + ": expected a tuple of " + std::to_string(size));
  return PyTuple_GET_ITEM(tuple, index);
}

void use_tensors(const py::list& kinds, const py::object& capsule, const py::object& to, const py::object& from) {
  exchange = nullptr;
  if (!capsule.is_none()) {
    const auto* found = static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (found == nullptr) throw py::error_already_set();
    if (found->header.version.major == kDLPackMajor && found->dltensor_from_py_object_no_sync != nullptr &&
        found->managed_tensor_to_py_object_no_sync != nullptr)
      exchange = found;
  }
  types.clear();
  for (const py::handle kind : kinds) types.push_back(reinterpret_cast<PyTypeObject*>(py::reinterpret_borrow<py::object>(kind).release().ptr()));
  to_dlpack = py::object(to).release().ptr();
  from_dlpack = py::object(from).release().ptr();
}

bool is_tensor(PyObject* object) {
  for (const PyTypeObject* type : types)
    if (Py_TYPE(object) == type) return true;
  return false;
}

Tensor tensor(PyObject* object, const char* name) {
  if (!is_tensor(object)) refuse(std::string(name) + ": expected a plain tensor");
  if (exchange != nullptr) {
    DLTensor found{};
    if (exchange->dltensor_from_py_object_no_sync(object, &found) != 0) throw py::error_already_set();
    return read(found, name);
  }
  const py::object capsule = called(to_dlpack, object);
  const auto* managed = static_cast<const DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), kCapsule));
  if (managed == nullptr) throw py::error_already_set();
  return read(managed->dl_tensor, name);
}

py::object small_tensor(const void* numbers, std::int64_t count, bool scalar, int code) {
  const DLDataType type = code == kI64                          ? DLDataType{kDLInt, 64, 1}
                          : code == static_cast<int>(Type::f64) ? DLDataType{kDLFloat, 64, 1}
                                                                : DLDataType{kDLFloat, 32, 1};
  if (exchange != nullptr) {
    auto made = std::make_unique<Small<DLManagedTensorVersioned>>(numbers, count, scalar, type);
    made->managed.version = {kDLPackMajor, 0};
    void* result = nullptr;
    if (exchange->managed_tensor_to_py_object_no_sync(&made->managed, &result) != 0) throw py::error_already_set();
    made.release();
    return py::reinterpret_steal<py::object>(static_cast<PyObject*>(result));
  }
  auto made = std::make_unique<Small<DLManagedTensor>>(numbers, count, scalar, type);
  PyObject* const capsule = PyCapsule_New(&made->managed, kCapsule, destroy_capsule);
  if (capsule == nullptr) throw py::error_already_set();
  made.release();
  return called(from_dlpack, py::reinterpret_steal<py::object>(capsule).ptr());
}

void expect_shape(const Tensor& tensor, std::initializer_list<std::int64_t> shape, const char* name) {
  expect_shape(tensor, shape.begin(), static_cast<int>(shape.size()), name);
}

void expect_same_shape(const Tensor& tensor, const Tensor& like, const char* name) {
  expect_shape(tensor, like.shape, like.dimensions, name);
}

View view(PyObject* object, std::initializer_list<std::int64_t> shape, const char* name) {
  if (object == Py_None) return {};
  const Tensor found = tensor(object, name);
  expect_shape(found, shape, name);
  if (found.code > static_cast<int>(Type::f16)) refuse(std::string(name) + ": expected a floating-point tensor");
  View result;
  result.data = found.data;
  result.type = static_cast<Type>(found.code);
  std::memcpy(result.stride, found.stride, sizeof(result.stride));
  return result;
}

std::vector<std::int64_t> lengths(PyObject* object, std::int64_t batch, std::int64_t most, const char* name, Beyond beyond) {
  const Tensor found = tensor(object, name);
  expect_shape(found, {batch}, name);
  std::vector<std::int64_t> result(static_cast<std::size_t>(batch));
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t offset = b * found.stride[0];
    std::int64_t value = 0;
    switch (found.code) {
      case kU8: value = element<std::uint8_t>(found.data, offset); break;
      case kI8: value = element<std::int8_t>(found.data, offset); break;
      case kI16: value = element<std::int16_t>(found.data, offset); break;
      case kI32: value = element<std::int32_t>(found.data, offset); break;
      case kI64: value = element<std::int64_t>(found.data, offset); break;
      default: refuse(std::string(name) + ": expected an integer tensor");
    }
    const std::int64_t within = std::clamp<std::int64_t>(value, 0, most);
    if (within != value && beyond == Beyond::refuse) refuse(std::string(name) + ": out of range");
    result[static_cast<std::size_t>(b)] = within;
  }
  return result;
}

std::vector<std::uint8_t> flags(PyObject* object, std::int64_t batch, const char* name) {
  const Tensor found = tensor(object, name);
  expect_shape(found, {batch}, name);
  if (found.code != kBool) refuse(std::string(name) + ": expected a boolean tensor");
  std::vector<std::uint8_t> result(static_cast<std::size_t>(batch));
  for (std::int64_t b = 0; b < batch; ++b)
    result[static_cast<std::size_t>(b)] = static_cast<const std::uint8_t*>(found.data)[b * found.stride[0]];
  return result;
}

void* numbers(PyObject* object, std::initializer_list<std::int64_t> shape, int code, const char* name) {
  const Tensor found = tensor(object, name);
  expect_shape(found, shape, name);
  bool adjacent = found.code == code;
  std::int64_t stride = 1;
  for (int i = found.dimensions - 1; i >= 0; stride *= found.shape[i--]) adjacent = adjacent && found.stride[i] == stride;
  if (!adjacent || found.data == nullptr) refuse(std::string(name) + ": expected adjacent elements of another type");
  return found.data;
}

}  // namespace ttsfast
