// One training or validation step of the losses in one call from Python.
#pragma once

#include <pybind11/pybind11.h>

#include "loss/losses.h"

namespace ttsfast {

// The loss options of one LossSpec.
struct FusedLosses {
  LossOptions options;
  explicit FusedLosses(const pybind11::dict& given);
};

// Adds FusedLosses.step and the class of what it returns for the backward pass.
void bind_loss_step(pybind11::module_& module, pybind11::class_<FusedLosses>& fused);

}  // namespace ttsfast
