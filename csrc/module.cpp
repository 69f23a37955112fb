// The module ttsfast._C. A new part is a pair of files in its room (x.cpp without Python, and a binding with
// it) and one line below; ttsfast/native.py is the one place that imports the module.
#include "bindings.h"

PYBIND11_MODULE(_C, module) {
  module.doc() = "C++ core of ttsfast; built without torch, optional.";
  // Raised together with INTERFACE in ttsfast/native.py whenever a function here is added or changes.
  module.attr("INTERFACE") = 11;
  bind_alignment(module);
  bind_batcher(module);
  bind_common(module);
  bind_crc32c(module);
  bind_gather(module);
  bind_losses(module);
  bind_mel(module);
  bind_norm(module);
}
