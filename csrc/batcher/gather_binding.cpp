#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings.h"
#include "batcher/gather.h"

namespace py = pybind11;

namespace {

bool is_float(const py::array& array, py::ssize_t itemsize) {
  return array.dtype().kind() == 'f' && array.itemsize() == itemsize && array.dtype().byteorder() != '>';
}

bool is_contiguous(const py::array& array) { return (array.flags() & py::array::c_style) != 0; }

// Null where the caller does not want it.
void* plane(const py::object& array, const char* name, char kind, py::ssize_t itemsize, const py::array& out) {
  if (array.is_none()) return nullptr;
  if (!py::isinstance<py::array>(array)) throw std::invalid_argument(std::string(name) + ": not a numpy array");
  const auto found = py::reinterpret_borrow<py::array>(array);
  if (found.ndim() != 2 || found.shape(0) != out.shape(0) || found.shape(1) != out.shape(1) ||
      found.dtype().kind() != kind || found.itemsize() != itemsize || found.dtype().byteorder() == '>' ||
      !is_contiguous(found) || !found.writeable())
    throw std::invalid_argument(std::string(name) + " must be a writeable contiguous array (B, T) of its type");
  return const_cast<void*>(found.data());
}

// Everything is checked before the interpreter lock is released; the list keeps the arrays alive.
void gather(const py::list& sources, const py::array& out, const py::array& pad, const py::object& frame_mask,
            const py::object& stop_targets, const std::vector<bool>& truncated) {
  if (out.ndim() != 3 || !is_float(out, 4) || !is_contiguous(out) || !out.writeable())
    throw std::invalid_argument("out must be a writeable contiguous float32 array (B, T, C)");
  const auto padded = static_cast<std::size_t>(out.shape(1)), bins = static_cast<std::size_t>(out.shape(2));
  if (pad.ndim() != 1 || !is_float(pad, 4) || !is_contiguous(pad) || pad.shape(0) != out.shape(2))
    throw std::invalid_argument("pad must be a contiguous float32 array (C,) of out's width");
  if (static_cast<py::ssize_t>(sources.size()) != out.shape(0))
    throw std::invalid_argument("out has " + std::to_string(out.shape(0)) + " rows for " +
                                std::to_string(sources.size()) + " utterances");
  void* const mask = plane(frame_mask, "frame_mask", 'b', 1, out);
  void* const stop = plane(stop_targets, "stop_targets", 'f', 4, out);
  if (stop != nullptr && truncated.size() != sources.size())
    throw std::invalid_argument("stop_targets need truncated, one for each utterance");
  // Own references: another thread may change the list while the lock is released.
  std::vector<py::array> held;
  std::vector<ttsfast::Frames> batch;
  held.reserve(sources.size());
  batch.reserve(sources.size());
  for (const py::handle& source : sources) {
    const std::string where = "utterance " + std::to_string(held.size()) + ": ";
    if (!py::isinstance<py::array>(source)) throw std::invalid_argument(where + "not a numpy array");
    auto array = py::reinterpret_borrow<py::array>(source);
    const bool half = is_float(array, 2);
    if (array.ndim() != 2 || !(half || is_float(array, 4)) || !is_contiguous(array))
      throw std::invalid_argument(where + "must be a contiguous float16 or float32 array (T, C)");
    if (array.shape(1) != out.shape(2) || array.shape(0) > out.shape(1))
      throw std::invalid_argument(where + "(" + std::to_string(array.shape(0)) + ", " +
                                  std::to_string(array.shape(1)) + ") does not fit into (" +
                                  std::to_string(padded) + ", " + std::to_string(bins) + ")");
    batch.push_back({array.data(), static_cast<std::size_t>(array.shape(0)), half});
    held.push_back(std::move(array));
  }
  auto* to = static_cast<float*>(const_cast<void*>(out.data()));
  const auto* silence = static_cast<const float*>(pad.data());
  py::gil_scoped_release unlocked;
  ttsfast::gather_frames(batch, padded, bins, silence, to);
  const bool streaming = ttsfast::streams(batch.size() * padded * bins * sizeof(float));
  if (mask != nullptr) {
    ttsfast::Lines lines(mask, streaming);
    for (const ttsfast::Frames& utterance : batch) ttsfast::write_frame_mask(utterance.frames, padded, lines);
  }
  if (stop != nullptr) {
    ttsfast::Lines lines(stop, streaming);
    for (std::size_t row = 0; row < batch.size(); ++row)
      ttsfast::write_stop_targets(batch[row].frames, truncated[row], padded, lines);
  }
  ttsfast::end_streaming();
}

// float32 (n,), or the bits of the others.
py::array convert(const py::array& half, const std::string& dtype, const std::string& implementation,
                  std::size_t offset, bool streaming) {
  if (half.ndim() != 1 || !is_float(half, 2) || !is_contiguous(half))
    throw std::invalid_argument("half must be a contiguous float16 array (n,)");
  if (offset >= 64) throw std::invalid_argument("offset must be less than 64");
  const ttsfast::Element element = ttsfast::element_named(dtype);
  const auto count = static_cast<std::size_t>(half.shape(0));
  const std::size_t bytes = count * ttsfast::element_bytes(element);
  std::vector<unsigned char> memory(bytes + 128);
  void* to = memory.data();
  std::size_t space = memory.size();
  to = static_cast<unsigned char*>(std::align(64, bytes + 64, to, space)) + offset;
  ttsfast::convert_half_by(implementation, static_cast<const std::uint16_t*>(half.data()), element, to, count,
                           streaming);
  py::array out(py::dtype(element == ttsfast::Element::f32 ? "float32" : "uint16"), half.shape(0));
  std::memcpy(out.mutable_data(), to, bytes);
  return out;
}

}  // namespace

void bind_gather(py::module_& module) {
  module.def("gather_frames", &gather, py::arg("sources"), py::arg("out").noconvert(), py::arg("pad").noconvert(),
             py::arg("frame_mask") = py::none(), py::arg("stop_targets") = py::none(),
             py::arg("truncated") = std::vector<bool>(),
             "Copy float16 or float32 arrays (T_b, C) into out (B, T, C) float32; frames after T_b become pad (C,). "
             "Also write the frame mask (B, T) bool and the stop targets (B, T) float32, where given.");
  // For the tests: a batch takes the best one alone, and all must give the same bits.
  module.def("convert_half", &convert, py::arg("half"), py::arg("dtype"), py::arg("implementation"),
             py::arg("offset") = 0, py::arg("streaming") = false,
             "float16 (n,) to float32, or to the bits of bfloat16 or float16 as uint16, by one of "
             "half_implementations(), in memory that begins `offset` bytes after a multiple of 64.");
  module.def("half_implementations", &ttsfast::half_implementations,
             "What float16 can be converted with on this processor, what is used first: 'avx512', 'f16c', "
             "'neon', 'scalar'.");
}
