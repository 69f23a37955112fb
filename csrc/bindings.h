// One function per part of the extension; each adds its own functions to the module.
#pragma once

#include <pybind11/pybind11.h>

void bind_alignment(pybind11::module_& module);
void bind_batcher(pybind11::module_& module);
void bind_common(pybind11::module_& module);
void bind_crc32c(pybind11::module_& module);
void bind_gather(pybind11::module_& module);
void bind_losses(pybind11::module_& module);
void bind_mel(pybind11::module_& module);
void bind_norm(pybind11::module_& module);
