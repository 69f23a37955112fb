// How this extension reaches torch: its tensors and its threads.
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "bindings.h"
#include "common/pool.h"
#include "common/team.h"
#include "common/tensors.h"

namespace py = pybind11;

void bind_common(py::module_& module) {
  using namespace ttsfast;
  module.def("use_tensors", &use_tensors, py::arg("types"), py::arg("exchange"), py::arg("to_dlpack"),
             py::arg("from_dlpack"),
             "Read objects of exactly these types as tensors: through the DLPack exchange capsule, or where that is None "
             "or of an unknown version through the two functions.");
  module.def(
      "join_team_of", [](const std::optional<std::string>& path) { return path ? join_team_of(path->c_str()) : leave_team(); },
      py::arg("path"),
      "Compute on the threads of the OpenMP runtime that this loaded library uses, or for None on the pool's again; "
      "whether there is such a team now.");
  // For the tests: that results came from several threads, which they do not show.
  module.def("pool_threads", &pool_threads, "Threads that the pool has started in this process.");
}
