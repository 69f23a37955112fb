// One call of the loss: read and checked, swept, and swept again where another gradient arrives than was expected.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "loss/arguments.h"

namespace ttsfast {

// What a call is given besides its tensors and their state.
struct StepOptions {
  pybind11::object normalizer;
  double scale = 1.0;          // the gradient that will arrive at the total, as far as anybody knows
  pybind11::object wanted;     // whether gradients are, or a list of bools, as ttsfast/losses/extension.py says
  pybind11::object allocate;   // memory for the gradient of a tensor
  int threads = 1;
  Isa isa = Isa::best;
};

// A call that was swept, for as long as its gradients may be wanted.
class LossStep {
 public:
  // Reads and checks; nothing is written. Throws std::invalid_argument or a Python error for a call that is no usual one.
  LossStep(const LossOptions& options, const pybind11::tuple& inputs, const pybind11::object& state,
           const StepOptions& given);

  // Runs all tasks, and moves the state on: (total, values, floors, weights, frames, present, leaves).
  pybind11::tuple run();

  // The gradients times another scale.
  pybind11::list again(double scale);

  pybind11::object gradients = pybind11::none();
  double applied() const { return applied_; }
  bool rounded() const { return rounded_; }

 private:
  void want(const pybind11::object& wanted, const std::vector<Real>& reals);
  void remember(const std::vector<Real>& reals, const LossObjects& objects);
  pybind11::list allocate();

  LossOptions options_;
  LossTensors tensors_;
  State state_;
  int threads_;
  Isa isa_;
  double applied_;
  pybind11::object allocate_;
  std::vector<Real> leaves_;
  bool rounded_ = false;
  // Every tensor that is read and, where there are gradients, how often each had been modified.
  std::vector<pybind11::object> read_;
  std::vector<std::int64_t> versions_;
  // Where the first of them, the real ones, lay: assigned to `.data`, a tensor is elsewhere in the same version.
  std::vector<const void*> memory_;
};

}  // namespace ttsfast
