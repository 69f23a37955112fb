#include <cstdint>

#include "bindings.h"
#include "common/crc32c.h"

namespace py = pybind11;

namespace {

using Checksum = std::uint32_t (*)(std::uint32_t, const void*, std::size_t);

// Any contiguous bytes-like object. The buffer is held while the interpreter lock is released.
template <Checksum checksum>
std::uint32_t of_buffer(const py::buffer& data, std::uint32_t crc) {
  Py_buffer view;
  if (PyObject_GetBuffer(data.ptr(), &view, PyBUF_C_CONTIGUOUS) != 0) throw py::error_already_set();
  {
    py::gil_scoped_release unlocked;
    crc = checksum(crc, view.buf, static_cast<std::size_t>(view.len));
  }
  PyBuffer_Release(&view);
  return crc;
}

}  // namespace

void bind_crc32c(py::module_& module) {
  module.def("crc32c", &of_buffer<ttsfast::crc32c>, py::arg("data"), py::arg("crc") = 0,
             "CRC32C of a contiguous bytes-like object, continuing from crc.");
  // For the tests: where a processor has the instruction, nothing else comes this way.
  module.def("crc32c_table", &of_buffer<ttsfast::crc32c_table>, py::arg("data"), py::arg("crc") = 0,
             "The same without the processor's own instruction.");
  module.def("crc32c_implementation", &ttsfast::crc32c_implementation,
             "What crc32c uses on this processor: 'sse4.2', 'armv8' or 'table'.");
}
