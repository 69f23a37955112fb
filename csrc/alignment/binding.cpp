#include <string>

#include "alignment/alignment.h"
#include "bindings.h"
#include "common/tensors.h"

namespace py = pybind11;

namespace {

using namespace ttsfast;

struct Lengths {
  std::vector<std::int64_t> text, mel;
};

AlignmentCall read(const py::object& scores, const py::object& text_lengths, const py::object& mel_lengths, Lengths& kept) {
  const Tensor found = tensor(scores.ptr(), "scores");
  if (found.dimensions != 3) refuse("scores: expected (B, T, N)");
  AlignmentCall call;
  call.batch = found.shape[0];
  call.frames = found.shape[1];
  call.symbols = found.shape[2];
  call.scores = view(scores.ptr(), {call.batch, call.frames, call.symbols}, "scores");
  call.wide = call.scores.type == Type::f64;
  kept.text = lengths(text_lengths.ptr(), call.batch, call.symbols, "text_lengths", Beyond::clamp);
  kept.mel = lengths(mel_lengths.ptr(), call.batch, call.frames, "mel_lengths", Beyond::clamp);
  call.text_lengths = kept.text.data();
  call.mel_lengths = kept.mel.data();
  return call;
}

// Memory for results; none where the shape has none.
void* room(const py::object& object, std::initializer_list<std::int64_t> shape, int code, const char* name) {
  for (const std::int64_t size : shape)
    if (size == 0) return nullptr;
  return numbers(object.ptr(), shape, code, name);
}

void monotonic_alignment(const py::object& scores, const py::object& text_lengths, const py::object& mel_lengths,
                         const py::object& durations, int threads, const std::string& isa) {
  Lengths kept;
  AlignmentCall call = read(scores, text_lengths, mel_lengths, kept);
  call.durations = static_cast<std::int64_t*>(room(durations, {call.batch, call.symbols}, kI64, "durations"));
  const Isa chosen = isa_named(isa);
  py::gil_scoped_release unlocked;
  search(call, threads, chosen);
}

void forward_sum_loss(const py::object& log_probs, const py::object& text_lengths, const py::object& mel_lengths, double blank,
                      const py::object& scale, const py::object& losses, const py::object& gradient, int threads,
                      const std::string& isa) {
  Lengths kept;
  AlignmentCall call = read(log_probs, text_lengths, mel_lengths, kept);
  const int code = static_cast<int>(call.wide ? Type::f64 : Type::f32);
  call.blank = blank;
  call.scale = room(scale, {call.batch}, code, "scale");
  call.losses = room(losses, {call.batch}, code, "losses");
  if (!gradient.is_none()) call.gradient = room(gradient, {call.batch, call.frames, call.symbols}, code, "gradient");
  const Isa chosen = isa_named(isa);
  py::gil_scoped_release unlocked;
  forward_sum(call, threads, chosen);
}

}  // namespace

void bind_alignment(py::module_& module) {
  module.def("monotonic_alignment", &monotonic_alignment, py::arg("scores"), py::arg("text_lengths"), py::arg("mel_lengths"),
             py::arg("durations"), py::arg("threads"), py::arg("isa") = "auto",
             "Write the durations (B, N) int64 of the best monotonic paths through scores (B, T, N).");
  module.def("forward_sum", &forward_sum_loss, py::arg("log_probs"), py::arg("text_lengths"), py::arg("mel_lengths"),
             py::arg("blank"), py::arg("scale"), py::arg("losses"), py::arg("gradient"), py::arg("threads"),
             py::arg("isa") = "auto",
             "Write the forward-sum losses (B,) of log_probs (B, T, N), and unless it is None their gradient (B, T, N), both "
             "times scale (B,) and in its type: float64 for float64, float32 for all else.");
}
