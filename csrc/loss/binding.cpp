// LossPlan, the one way of the losses into this extension; ttsfast/losses/extension.py says what it is given.
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "common/tensors.h"
#include "loss/step.h"

namespace py = pybind11;

namespace {

using namespace ttsfast;

// A call that the extension does not take: unusual, or wrong. A ValueError in Python.
struct Declined : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// The loss options of one LossSpec.
struct LossPlan {
  LossOptions options;
};

LossPlan plan_of(const py::dict& given) {
  LossPlan plan;
  LossOptions& options = plan.options;
  const auto read = [&](const char* key) { return given[key]; };
  const auto active = read("active").cast<std::vector<bool>>();
  if (active.size() != kAllTerms) refuse("active: expected a value for each term");
  std::copy(active.begin(), active.end(), options.active);
  const auto weights = read("base_weights").cast<std::vector<double>>();
  if (weights.size() != kAllTerms) refuse("base_weights: expected a value for each term");
  std::copy(weights.begin(), weights.end(), options.base_weights);
  options.by_utterance = read("by_utterance").cast<bool>();
  options.elbo = read("elbo").cast<bool>();
  options.mel_floor = read("mel_floor").cast<double>();
  std::tie(options.stop_floors[0], options.stop_floors[1]) = read("stop_floors").cast<std::pair<double, double>>();
  options.stop_tail = read("stop_tail").cast<std::int64_t>();
  options.distance = static_cast<Distance>(read("distance").cast<int>());
  options.delta = read("delta").cast<double>();
  options.smoothing = static_cast<Smoothing>(read("smoothing").cast<int>());
  options.amount = read("amount").cast<double>();
  options.free_bits = read("free_bits").cast<double>();
  const auto coefficients = read("coefficients").cast<std::pair<std::pair<double, double>, std::pair<double, double>>>();
  std::tie(options.coefficients[0][0], options.coefficients[0][1]) = coefficients.first;
  std::tie(options.coefficients[1][0], options.coefficients[1][1]) = coefficients.second;
  options.sigma = read("sigma").cast<double>();
  options.seed = static_cast<std::uint32_t>(read("seed").cast<std::uint64_t>());
  AdaptiveConstants& adaptive = options.adaptive;
  adaptive.fast_decay = read("fast_decay").cast<double>();
  adaptive.slow_decay = read("slow_decay").cast<double>();
  adaptive.temperature = read("temperature").cast<double>();
  std::tie(adaptive.low, adaptive.high) = read("factor_bounds").cast<std::pair<double, double>>();
  adaptive.rate = read("rate").cast<double>();
  adaptive.steepest = read("steepest").cast<double>();
  adaptive.log_variance_bound = read("log_variance_bound").cast<double>();
  const int distance = static_cast<int>(options.distance), smoothing = static_cast<int>(options.smoothing);
  if (distance < 0 || distance > 2 || smoothing < 0 || smoothing > 2 || options.stop_tail < 0)
    refuse("distance, smoothing or stop_tail out of range");
  return plan;
}

// What reads and checks; any way in which it fails is for the checks in Python to say better, or nothing at all. An
// interruption is passed on.
template <typename Read>
auto or_declined(Read read) {
  try {
    return read();
  } catch (const std::invalid_argument& error) {
    throw Declined(error.what());
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;
    throw Declined(error.what());
  }
}

py::tuple call(const LossPlan& plan, const py::tuple& inputs, const py::object& state, const py::object& normalizer,
               double scale, const py::object& wanted, const py::object& allocate, int threads, int isa) {
  const StepOptions given{normalizer, scale, wanted, allocate, threads, static_cast<Isa>(isa)};
  auto step = or_declined([&] { return std::make_unique<LossStep>(plan.options, inputs, state, given); });
  py::tuple results = step->run();
  return py::make_tuple(std::move(results), std::move(step));
}

void observe_sums(const LossPlan& plan, const py::object& state, const py::object& values, const py::object& floors) {
  or_declined([&] {
    State read = read_state(state.ptr());
    if (read.weights.data != nullptr) refuse("state: expected the buffers");
    // Sums of calls, each of which has drawn its noise.
    read.advance = false;
    const int terms = tensor(values.ptr(), "values").shape[0] == kTerms ? kTerms : kAllTerms;
    double sums[kAllTerms], least[kAllTerms];
    const auto copy = [&](const py::object& object, const char* name, double* to) {
      std::copy_n(static_cast<const float*>(numbers(object.ptr(), {terms}, static_cast<int>(Type::f32), name)), terms, to);
    };
    copy(values, "values", sums);
    copy(floors, "floors", least);
    read.move_on(plan.options, sums, least, terms, false);
    return 0;
  });
}

}  // namespace

void bind_losses(py::module_& module) {
  py::register_exception<Declined>(module, "Declined", PyExc_ValueError);
  py::class_<LossStep>(module, "LossStep", "A call that was swept; see Written in ttsfast/losses/cpp.py.")
      .def_readonly("gradients", &LossStep::gradients)
      .def_property_readonly("applied", &LossStep::applied)
      .def_property_readonly("rounded", &LossStep::rounded)
      .def("again", &LossStep::again, py::arg("scale"));
  py::class_<LossPlan>(module, "LossPlan", "The loss options of one LossSpec, ready for calls.")
      .def(py::init(&plan_of), py::arg("options"))
      .def("call", &call, py::arg("inputs"), py::arg("state"), py::arg("normalizer"), py::arg("scale"),
           py::arg("wanted"), py::arg("allocate"), py::arg("threads"), py::arg("isa"),
           "Check, compute and write the gradients of one call: what LossStep::run returns, and the LossStep.")
      .def("observe", &observe_sums, py::arg("state"), py::arg("values"), py::arg("floors"),
           "Move a StepState on by sums of values and floors, (4,) or (6,) float32 each.");
  module.def(
      "loss_implementation", [] { return name_of(Isa::best); }, "'avx512', 'avx2' or 'baseline': what the losses use.");
  module.def(
      "loss_supports", [](int isa) { return supports(static_cast<Isa>(isa)); }, py::arg("isa"),
      "Whether this processor runs version 0 (best), 1 (baseline), 2 (AVX2) or 3 (AVX-512).");
}
