// Tensors and numbers that Python code hands over, checked as they are read.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "common/view.h"

namespace ttsfast {

// Codes of types that are not computed with, after those of Type.
enum IntegerCode { kU8 = 4, kI8, kI16, kI32, kI64, kBool };

// ValueError in Python.
[[noreturn]] void refuse(const std::string& message);

struct Tensor {
  void* data = nullptr;
  int code = 0;
  int dimensions = 0;
  std::int64_t shape[4] = {}, stride[4] = {};  // in elements
};

// From now on tensors are objects of exactly these types. They are read and made through the table in torch's DLPack
// exchange capsule (torch 2.10 on); where that is None or of a version unknown here, through to_dlpack and from_dlpack,
// whose capsules hold the same structure: a call of the loss that has next to nothing to compute takes twice as long.
void use_tensors(const pybind11::list& types, const pybind11::object& exchange, const pybind11::object& to_dlpack,
                 const pybind11::object& from_dlpack);

// Whether `object` is of such a type.
bool is_tensor(PyObject* object);

// One on the CPU, of at most 4 axes. The caller keeps it alive.
Tensor tensor(PyObject* object, const char* name);

// A new tensor with a copy of up to 4 numbers of this type: of no axis for a single one where `scalar`, else of one.
pybind11::object small_tensor(const void* numbers, std::int64_t count, bool scalar, int code);

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
