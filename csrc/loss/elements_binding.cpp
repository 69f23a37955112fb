#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>

#include "bindings.h"
#include "loss/elements.h"
#include "loss/losses.h"

namespace py = pybind11;

namespace {

using Address = std::uintptr_t;

template <typename T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

// The caller, ttsfast/losses/elements.py, has checked every shape and keeps the tensors alive.
void run(int term, bool wide, int threads, int isa, const std::array<std::int64_t, 4>& shape,
         const std::array<Address, 3>& bounds, const std::array<Address, 4>& inputs, Address shift, Address incoming,
         const std::array<Address, 4>& outputs, const std::array<double, 4>& numbers) {
  if (term < 0 || term > 3) throw std::invalid_argument("loss_elements: unknown term");
  if (!ttsfast::supports(static_cast<ttsfast::Isa>(isa)))
    throw std::invalid_argument("this processor does not support that instruction set");
  ttsfast::ElementCall call;
  call.term = static_cast<ttsfast::ElementTerm>(term);
  call.wide = wide;
  call.batch = shape[0];
  call.heads = shape[1];
  call.rows = shape[2];
  call.width = shape[3];
  call.valid_rows = pointer<const std::int64_t>(bounds[0]);
  call.valid_columns = pointer<const std::int64_t>(bounds[1]);
  call.positive = pointer<const std::int64_t>(bounds[2]);
  for (std::size_t k = 0; k < 4; ++k) {
    call.input[k] = pointer<const void>(inputs[k]);
    call.output[k] = pointer<void>(outputs[k]);
  }
  call.shift = pointer<const void>(shift);
  call.incoming = pointer<const void>(incoming);
  // Of the one term that runs.
  call.keep = call.free_bits = call.sigma = numbers[0];
  call.delta = numbers[1];
  for (std::size_t k = 0; k < 4; ++k) call.coefficients[k / 2][k % 2] = numbers[k];
  py::gil_scoped_release unlocked;
  ttsfast::run_elements(call, threads, isa);
}

}  // namespace

void bind_loss_elements(py::module_& module) {
  module.def("loss_elements", &run, py::arg("term"), py::arg("wide"), py::arg("threads"), py::arg("isa"),
             py::arg("shape"), py::arg("bounds"), py::arg("inputs"), py::arg("shift"), py::arg("incoming"),
             py::arg("outputs"), py::arg("numbers"),
             "One loss term element by element: values, or gradients where `incoming` is not 0. Addresses of "
             "contiguous tensors, 0 for an absent one; see csrc/loss/elements.h.");
}
