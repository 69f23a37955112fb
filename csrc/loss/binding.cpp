#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "bindings.h"
#include "loss/objects.h"
#include "loss/step.h"
#include "loss/losses.h"
#include "common/pool.h"
#include "common/team.h"
#include "common/tensors.h"

namespace py = pybind11;

namespace {

using namespace ttsfast;

// In the order of the tuple that Sweep.run in ttsfast/losses/sweep.py makes.
enum Argument {
  kThreads, kIsa, kMel, kMelGradients, kTarget, kTargetGradient, kMean, kDeviation, kPosterior, kPosteriorGradients,
  kPrior, kPriorGradients, kLogits, kLogitsGradient, kLayers, kLayerGradients, kMelLengths, kStepLengths,
  kTextLengths, kTruncated, kState, kWeights, kStep, kNormalizer, kGradScale, kTotal, kTermValues, kFrames, kArguments
};

// The tensors of a call, and the gradients wanted in the order of read_reals.
struct Arguments {
  LossObjects objects;
  std::vector<PyObject*> gradients;
};

Arguments sorted(const py::tuple& tuple) {
  Arguments found;
  LossObjects& objects = found.objects;
  const auto argument = [&](Argument which) { return PyTuple_GET_ITEM(tuple.ptr(), which); };
  const auto pair = [&](Argument values, Argument gradients, const char* name, PyObject* (&into)[2]) {
    if (argument(values) == Py_None) return;
    for (int i = 0; i < 2; ++i) {
      into[i] = item(argument(values), i, 2, name);
      if (into[i] != Py_None) found.gradients.push_back(item(argument(gradients), i, 2, name));
    }
  };
  pair(kMel, kMelGradients, "mel", objects.mel);
  objects.target = argument(kTarget);
  found.gradients.push_back(argument(kTargetGradient));
  objects.mean = argument(kMean);
  objects.deviation = argument(kDeviation);
  pair(kPosterior, kPosteriorGradients, "posterior", objects.posterior);
  pair(kPrior, kPriorGradients, "prior", objects.prior);
  objects.logits = argument(kLogits);
  if (objects.logits != Py_None) found.gradients.push_back(argument(kLogitsGradient));
  PyObject *layers = argument(kLayers), *gradients = argument(kLayerGradients);
  if (!PyTuple_Check(layers) || !PyTuple_Check(gradients) || PyTuple_GET_SIZE(layers) != PyTuple_GET_SIZE(gradients))
    refuse("attention: expected as many gradients as layers");
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(layers); ++i) {
    objects.layers.push_back(PyTuple_GET_ITEM(layers, i));
    found.gradients.push_back(PyTuple_GET_ITEM(gradients, i));
  }
  objects.mel_lengths = argument(kMelLengths);
  objects.step_lengths = argument(kStepLengths);
  objects.text_lengths = argument(kTextLengths);
  objects.truncated = argument(kTruncated);
  return found;
}

double number_at(const View& from, std::int64_t index) {
  if (from.type == Type::f64) return static_cast<const double*>(from.data)[index];
  return static_cast<double>(static_cast<const float*>(from.data)[index]);
}

void put_number(const View& to, std::int64_t index, double value) {
  if (to.type == Type::f64) {
    static_cast<double*>(to.data)[index] = value;
  } else {
    static_cast<float*>(to.data)[index] = static_cast<float>(value);
  }
}

// Everything is read and checked before the interpreter lock is released. The caller keeps the tensors alive.
double run(const FusedLosses& fused, const py::tuple& tuple) {
  const LossOptions& options = fused.options;
  item(tuple.ptr(), 0, kArguments, "arguments");
  const auto argument = [&](Argument which) { return PyTuple_GET_ITEM(tuple.ptr(), which); };
  const Arguments arguments = sorted(tuple);
  LossTensors tensors;
  Call& call = tensors.call;
  const std::vector<Real> reals = read_reals(arguments.objects, tensors);
  if (reals.size() != arguments.gradients.size()) refuse("arguments: as many gradients as tensors expected");
  for (std::size_t i = 0; i < reals.size(); ++i)
    if (arguments.gradients[i] != Py_None) reals[i].receive(arguments.gradients[i]);
  read_vectors(arguments.objects, Beyond::clamp, tensors);

  const State state = read_state(argument(kState));
  const View weights = view(argument(kWeights), {kTerms}, "weights");
  if (weights.data == nullptr || (weights.type != Type::f64 && weights.type != Type::f32))
    refuse("weights: expected float32 or float64");
  for (int i = 0; i < kTerms; ++i) {
    if (state.given) put_number(weights, i * weights.stride[0], state.weight(i, options.base_weights[i], call.wide));
    tensors.weights[i] = number_at(weights, i * weights.stride[0]);
  }
  if (options.smoothing == Smoothing::noise)
    call.step = static_cast<std::uint32_t>(*static_cast<const std::int64_t*>(numbers(argument(kStep), {}, kI64, "step")));
  tensors.normalizer = read_normalizer(argument(kNormalizer));
  tensors.grad_scale = rounded(real(argument(kGradScale)), call.wide);

  const Type computed = call.wide ? Type::f64 : Type::f32;
  const View total = view(argument(kTotal), {}, "total");
  const View terms = view(argument(kTermValues), {2, kTerms}, "term values");
  if (total.data == nullptr || terms.data == nullptr) refuse("total or term values: missing");
  if (total.type != computed || terms.type != computed || terms.stride[0] != kTerms || terms.stride[1] != 1)
    refuse("total and term values must be contiguous and of the computed type");
  auto* const frames = static_cast<std::int64_t*>(numbers(argument(kFrames), {}, kI64, "frames"));
  const auto threads = static_cast<int>(integer(argument(kThreads)));
  const auto isa = static_cast<Isa>(integer(argument(kIsa)));
  if (!supports(isa)) refuse("this processor does not support that instruction set");

  LossValues values;
  {
    py::gil_scoped_release unlocked;
    values = run_losses(options, tensors, threads, isa);
  }
  put_number(total, 0, values.total);
  for (int i = 0; i < kTerms; ++i) {
    put_number(terms, i, values.values[i]);
    put_number(terms, kTerms + i, values.floors[i]);
  }
  *frames = values.frames;
  if (state.given) state.move_on(options, values, call.wide);
  return tensors.grad_scale;
}

void observe_sums(const FusedLosses& fused, const py::object& object, const py::object& values, const py::object& floors) {
  const State state = read_state(object.ptr());
  if (!state.given) refuse("state: missing");
  const auto* const value = static_cast<float*>(numbers(values.ptr(), {kTerms}, static_cast<int>(Type::f32), "values"));
  const auto* const floor = static_cast<float*>(numbers(floors.ptr(), {kTerms}, static_cast<int>(Type::f32), "floors"));
  LossValues sums;
  std::copy_n(value, kTerms, sums.values);
  std::copy_n(floor, kTerms, sums.floors);
  state.move_on(fused.options, sums, false);
}

}  // namespace

ttsfast::FusedLosses::FusedLosses(const py::dict& given) {
  const auto read = [&](const char* key) { return given[key]; };
  const auto active = read("active").cast<std::vector<bool>>();
  if (active.size() != kTerms) refuse("active: expected 4 values");
  std::copy(active.begin(), active.end(), options.active);
  const auto weights = read("base_weights").cast<std::vector<double>>();
  if (weights.size() != kTerms) refuse("base_weights: expected 4 values");
  std::copy(weights.begin(), weights.end(), options.base_weights);
  options.by_utterance = read("by_utterance").cast<bool>();
  options.elbo = read("elbo").cast<bool>();
  options.mel_floor = read("mel_floor").cast<double>();
  const auto floors = read("stop_floors").cast<std::pair<double, double>>();
  options.stop_floors[0] = floors.first;
  options.stop_floors[1] = floors.second;
  options.stop_tail = read("stop_tail").cast<std::int64_t>();
  options.distance = static_cast<Distance>(read("distance").cast<int>());
  options.delta = read("delta").cast<double>();
  options.smoothing = static_cast<Smoothing>(read("smoothing").cast<int>());
  options.amount = read("amount").cast<double>();
  options.free_bits = read("free_bits").cast<double>();
  const auto coefficients = read("coefficients").cast<std::pair<std::pair<double, double>, std::pair<double, double>>>();
  options.coefficients[0][0] = coefficients.first.first;
  options.coefficients[0][1] = coefficients.first.second;
  options.coefficients[1][0] = coefficients.second.first;
  options.coefficients[1][1] = coefficients.second.second;
  options.sigma = read("sigma").cast<double>();
  options.seed = static_cast<std::uint32_t>(read("seed").cast<std::uint64_t>());
  const int distance = static_cast<int>(options.distance), smoothing = static_cast<int>(options.smoothing);
  if (distance < 0 || distance > 2 || smoothing < 0 || smoothing > 2 || options.stop_tail < 0)
    refuse("distance, smoothing or stop_tail out of range");
}

void bind_losses(py::module_& module) {
  py::class_<FusedLosses> fused(module, "FusedLosses", "The loss options of one LossSpec, ready for calls.");
  fused.def(py::init<const py::dict&>(), py::arg("options"))
      .def("run", &run, py::arg("arguments"),
           "Write values and gradients of one call (ttsfast/losses/sweep.py makes the tuple); the gradient scale used.");
  fused.def("observe", &observe_sums, py::arg("state"), py::arg("values"), py::arg("floors"),
            "Move a state (as of run) on by sums of values and floors, each (4,) float32.");
  bind_loss_step(module, fused);
  module.def("read_tensors_of", &read_tensors_of, py::arg("type"), py::arg("exchange"),
             "Read tensors of exactly this type through its DLPack exchange capsule; False where it does not fit.");
  module.def(
      "loss_implementation", [] { return name_of(Isa::best); }, "'avx512', 'avx2' or 'baseline': what the losses use.");
  module.def(
      "loss_supports", [](int isa) { return supports(static_cast<Isa>(isa)); }, py::arg("isa"),
      "Whether this processor runs version 0 (best), 1 (baseline), 2 (AVX2) or 3 (AVX-512).");
  module.def(
      "join_team_of", [](const std::optional<std::string>& path) { return path ? join_team_of(path->c_str()) : leave_team(); },
      py::arg("path"),
      "Compute on the threads of the OpenMP runtime that this loaded library uses, or for None on the pool's again; "
      "whether there is such a team now.");
  module.def("pool_threads", &pool_threads, "Threads that the pool has started in this process.");
}
