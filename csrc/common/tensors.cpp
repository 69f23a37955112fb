#include "common/tensors.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "common/dlpack.h"

namespace py = pybind11;

namespace ttsfast {
namespace {

const DLPackExchangeAPI* exchange = nullptr;
std::vector<PyTypeObject*> types;

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

Tensor exchanged(PyObject* object, const char* name) {
  DLTensor found{};
  if (exchange->dltensor_from_py_object_no_sync(object, &found) != 0) throw py::error_already_set();
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

Tensor spelled_out(PyObject* object, const char* name) {
  Tensor result;
  result.data = reinterpret_cast<void*>(static_cast<std::uintptr_t>(integer(item(object, 0, 4, name))));
  result.code = static_cast<int>(integer(PyTuple_GET_ITEM(object, 1)));
  PyObject *shape = PyTuple_GET_ITEM(object, 2), *stride = PyTuple_GET_ITEM(object, 3);
  if (!PyTuple_Check(shape) || !PyTuple_Check(stride) || PyTuple_GET_SIZE(shape) != PyTuple_GET_SIZE(stride) ||
      PyTuple_GET_SIZE(shape) > 4)
    refuse(std::string(name) + ": shape and strides must be tuples of the same length, at most 4");
  if (result.code < 0 || result.code >= kCodes) refuse(std::string(name) + ": unknown type code");
  result.dimensions = static_cast<int>(PyTuple_GET_SIZE(shape));
  bool empty = false;
  for (int i = 0; i < result.dimensions; ++i) {
    result.shape[i] = integer(PyTuple_GET_ITEM(shape, i));
    result.stride[i] = integer(PyTuple_GET_ITEM(stride, i));
    if (result.shape[i] < 0) refuse(std::string(name) + ": negative size");
    empty = empty || result.shape[i] == 0;
  }
  if (result.data == nullptr && !empty) refuse(std::string(name) + ": no memory");
  return result;
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

bool read_tensors_of(const py::type& type, const py::capsule& capsule) {
  const auto* found = static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (found == nullptr) throw py::error_already_set();
  if (found->header.version.major != kDLPackMajor || found->dltensor_from_py_object_no_sync == nullptr ||
      found->managed_tensor_to_py_object_no_sync == nullptr || (exchange != nullptr && exchange != found))
    return false;
  exchange = found;
  types.push_back(reinterpret_cast<PyTypeObject*>(py::object(type).release().ptr()));
  return true;
}

bool is_registered(PyObject* object) {
  for (const PyTypeObject* type : types)
    if (Py_TYPE(object) == type) return true;
  return false;
}

Tensor tensor(PyObject* object, const char* name) {
  return is_registered(object) ? exchanged(object, name) : spelled_out(object, name);
}

bool can_make_tensors() { return exchange != nullptr; }

PyObject* tensor_over(DLManagedTensorVersioned* managed) {
  void* result = nullptr;
  if (exchange->managed_tensor_to_py_object_no_sync(managed, &result) != 0) throw py::error_already_set();
  return static_cast<PyObject*>(result);
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
