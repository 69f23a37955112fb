#include <pybind11/numpy.h>

#include <stdexcept>
#include <string>

#include "bindings.h"
#include "features/mel.h"

namespace py = pybind11;

namespace {

template <typename T>
using Contiguous = py::array_t<T, py::array::c_style>;

ttsfast::MelPlan plan(std::int64_t n_fft, std::int64_t hop, const Contiguous<double>& window,
                      const Contiguous<float>& filters, double epsilon, bool root, double floor, bool decimal) {
  if (window.ndim() != 1 || window.shape(0) != n_fft)
    throw std::invalid_argument("window must be float64 (n_fft,)");
  if (filters.ndim() != 2 || filters.shape(1) != n_fft / 2 + 1)
    throw std::invalid_argument("filters must be float32 (n_mels, n_fft / 2 + 1)");
  return ttsfast::plan_mel(n_fft, hop, window.data(), filters.data(), filters.shape(0), epsilon, root, floor,
                           decimal);
}

Contiguous<float> log_mel(const ttsfast::MelPlan& plan, const Contiguous<float>& wave, const std::string& isa) {
  if (wave.ndim() != 1 || wave.shape(0) < plan.n_fft)
    throw std::invalid_argument("wave must be float32 (samples,), of a window or more");
  const std::int64_t frames = 1 + (wave.shape(0) - plan.n_fft) / plan.hop;
  const ttsfast::Isa chosen = ttsfast::isa_named(isa);
  Contiguous<float> out({frames, static_cast<std::int64_t>(plan.filters.size())});
  const float* from = wave.data();
  float* to = out.mutable_data();
  {
    py::gil_scoped_release unlocked;
    ttsfast::log_mel(plan, from, frames, to, chosen);
  }
  return out;
}

}  // namespace

void bind_mel(py::module_& module) {
  py::class_<ttsfast::MelPlan>(module, "MelPlan", "A mel contract's window, transform and filters, made once.")
      .def(py::init(&plan), py::kw_only(), py::arg("n_fft"), py::arg("hop"), py::arg("window").noconvert(),
           py::arg("filters").noconvert(), py::arg("epsilon"), py::arg("root"), py::arg("floor"),
           py::arg("decimal"))
      .def("__call__", &log_mel, py::arg("wave").noconvert(), py::arg("isa") = "auto",
           "Log-mels (T, n_mels) float32 of a padded waveform (samples,) float32; the same bits for every isa.");
  module.def(
      "mel_implementation", [] { return ttsfast::name_of(ttsfast::Isa::best); },
      "What MelPlan computes with on this processor: 'avx512', 'avx2' or 'baseline'.");
}
