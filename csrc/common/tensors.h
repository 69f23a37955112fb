// Tensors and numbers that Python code hands over, checked as they are read.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "common/view.h"

struct DLManagedTensorVersioned;

namespace ttsfast {

// Codes of types that are not computed with, after those of Type.
enum IntegerCode { kU8 = 4, kI8, kI16, kI32, kI64, kBool, kCodes };

// ValueError in Python.
[[noreturn]] void refuse(const std::string& message);

struct Tensor {
  void* data = nullptr;
  int code = 0;
  int dimensions = 0;
  std::int64_t shape[4] = {}, stride[4] = {};  // in elements
};

// Objects of exactly `type` are read through the table in its DLPack exchange capsule from now on: several times
// faster than asking for address, type, shape and strides one by one. False: a table of another version.
bool read_tensors_of(const pybind11::type& type, const pybind11::capsule& exchange);

// A tensor of a registered type on the CPU, or (address, type code, shape, strides). The caller keeps it alive.
Tensor tensor(PyObject* object, const char* name);

// Whether a type is registered, and then a new tensor over `managed`, which it owns from now on.
bool can_make_tensors();
PyObject* tensor_over(DLManagedTensorVersioned* managed);

// Whether `object` is of a registered type, and so read without asking Python.
bool is_registered(PyObject* object);

void expect_shape(const Tensor& tensor, std::initializer_list<std::int64_t> shape, const char* name);
void expect_same_shape(const Tensor& tensor, const Tensor& like, const char* name);

// A view of real numbers, or an absent one for None.
View view(PyObject* object, std::initializer_list<std::int64_t> shape, const char* name);

// Adjacent numbers of the type with this code.
void* numbers(PyObject* object, std::initializer_list<std::int64_t> shape, int code, const char* name);

// (B,) integers of any type; what lies beyond [0, most] is clamped or refused.
enum class Beyond { clamp, refuse };
std::vector<std::int64_t> lengths(PyObject* object, std::int64_t batch, std::int64_t most, const char* name, Beyond beyond);

// (B,) booleans.
std::vector<std::uint8_t> flags(PyObject* object, std::int64_t batch, const char* name);

std::int64_t integer(PyObject* object);
double real(PyObject* object);
PyObject* item(PyObject* tuple, Py_ssize_t index, Py_ssize_t size, const char* what);

}  // namespace ttsfast
