#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "bindings.h"
#include "loss_adaptive.h"
#include "losses.h"
#include "pool.h"
#include "team.h"
#include "tensors.h"

namespace py = pybind11;

namespace {

using namespace ttsfast;

struct Fused {
  LossOptions options;

  explicit Fused(const py::dict& given) {
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

  // Everything is read and checked before the interpreter lock is released. The caller keeps the tensors alive.
  double run(const py::tuple& arguments) const;
};

// In the order of the tuple that ttsfast/losses/cpp.py makes.
enum Argument {
  kThreads, kIsa, kMel, kMelGradients, kTarget, kTargetGradient, kMean, kDeviation, kPosterior, kPosteriorGradients,
  kPrior, kPriorGradients, kLogits, kLogitsGradient, kLayers, kLayerGradients, kMelLengths, kStepLengths,
  kTextLengths, kTruncated, kState, kWeights, kStep, kNormalizer, kGradScale, kWide, kTotal, kTermValues, kFrames, kArguments
};

void read_layers(PyObject* values, PyObject* gradients, LossTensors& tensors) {
  if (!PyTuple_Check(values) || !PyTuple_Check(gradients) || PyTuple_GET_SIZE(values) != PyTuple_GET_SIZE(gradients))
    refuse("attention: expected as many gradients as layers");
  Call& call = tensors.call;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(values); ++i) {
    Tensor found = tensor(PyTuple_GET_ITEM(values, i), "attention");
    if (found.dimensions != 3 && found.dimensions != 4) refuse("attention: expected (B, S, N) or (B, H, S, N)");
    const std::int64_t symbols = found.shape[found.dimensions - 1], steps = found.shape[found.dimensions - 2];
    if (i == 0) {
      call.symbols = symbols;
      call.attention_steps = steps;
    }
    Layer layer;
    View* const views[2] = {&layer.value, &layer.gradient};
    PyObject* const objects[2] = {PyTuple_GET_ITEM(values, i), PyTuple_GET_ITEM(gradients, i)};
    for (int part = 0; part < 2; ++part) {
      if (found.dimensions == 3) {
        *views[part] = view(objects[part], {call.batch, call.attention_steps, call.symbols}, "attention");
        std::int64_t* stride = views[part]->stride;
        stride[3] = stride[2];
        stride[2] = stride[1];
        stride[1] = 0;
      } else {
        layer.heads = found.shape[1];
        *views[part] = view(objects[part], {call.batch, layer.heads, call.attention_steps, call.symbols}, "attention");
      }
    }
    tensors.layers.push_back(layer);
  }
  tensors.present[3] = !tensors.layers.empty();
}

void read_latents(PyObject* values, PyObject* gradients, bool posterior, LossTensors& tensors) {
  Call& call = tensors.call;
  View* const into = posterior ? call.posterior : call.prior;
  View* const slopes = posterior ? call.posterior_gradient : call.prior_gradient;
  const char* const name = posterior ? "posterior" : "prior";
  if (posterior) {
    const Tensor mu = tensor(item(values, 0, 2, name), name);
    if (mu.dimensions != 2 && mu.dimensions != 3) refuse("posterior: expected (B, Z) or (B, T, Z)");
    call.per_frame = mu.dimensions == 3;
    call.latents = mu.shape[mu.dimensions - 1];
  }
  for (int part = 0; part < 2; ++part) {
    PyObject* const objects[2] = {item(values, part, 2, name), item(gradients, part, 2, name)};
    for (int which = 0; which < 2; ++which) {
      View& to = which == 0 ? into[part] : slopes[part];
      if (call.per_frame) {
        to = view(objects[which], {call.batch, call.frames, call.latents}, name);
      } else {
        to = view(objects[which], {call.batch, call.latents}, name);
        to.stride[2] = to.stride[1];
        to.stride[1] = 0;
      }
    }
  }
}

// One vector of the arithmetic's own type, elements adjacent.
View bins_vector(PyObject* object, const Call& call, const char* name) {
  const View result = view(object, {call.bins}, name);
  if (result.data != nullptr && (result.type != (call.wide ? Type::f64 : Type::f32) || (result.stride[0] != 1 && call.bins > 1)))
    refuse(std::string(name) + ": expected adjacent elements of the computed type");
  return result;
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

// What moves on from call to call: see StepState in ttsfast/losses/spec.py, whose order the tuple has.
struct State {
  bool given = false;
  AdaptiveState adaptive;
  const float* schedule = nullptr;
  std::int64_t* noise_step = nullptr;
  bool advance = false;

  // Rounded as the reference rounds.
  double weight(int term, double base, bool wide) const {
    const float factor = adaptive.factors[term] * schedule[term];
    return wide ? static_cast<double>(factor) * base : static_cast<double>(factor * static_cast<float>(base));
  }
};

State read_state(PyObject* object) {
  State state;
  if (object == Py_None) return state;
  const auto part = [&](int index) { return item(object, index, 10, "state"); };
  const auto four = [&](int index) {
    return static_cast<float*>(numbers(part(index), {kTerms}, static_cast<int>(Type::f32), "state"));
  };
  const auto counter = [&](int index) { return static_cast<std::int64_t*>(numbers(part(index), {}, kI64, "state")); };
  const std::int64_t method = integer(part(0));
  if (method < 0 || method > static_cast<int>(Weighting::origin)) refuse("state: unknown weighting");
  state.given = true;
  state.adaptive = {static_cast<Weighting>(method), four(1), four(2), four(3), four(4), counter(5), counter(6)};
  state.schedule = four(7);
  state.noise_step = counter(8);
  state.advance = integer(part(9)) != 0;
  return state;
}

void move_on(const State& state, const LossOptions& options, const LossValues& result, bool wide) {
  float values[kTerms], excess[kTerms];
  for (int i = 0; i < kTerms; ++i) {
    values[i] = static_cast<float>(result.values[i]);
    const auto floor = static_cast<float>(result.floors[i]);
    // Written so that a NaN stays one.
    const float above = wide ? static_cast<float>(result.values[i] - result.floors[i]) : values[i] - floor;
    excess[i] = above < 0 ? 0.0f : above;
  }
  observe(state.adaptive, options.active, values, excess);
  if (state.advance) ++*state.noise_step;
}

double Fused::run(const py::tuple& arguments) const {
  PyObject* const tuple = arguments.ptr();
  item(tuple, 0, kArguments, "arguments");
  const auto argument = [&](Argument which) { return PyTuple_GET_ITEM(tuple, which); };
  LossTensors tensors;
  Call& call = tensors.call;
  call.wide = integer(argument(kWide)) != 0;

  const Tensor target = tensor(argument(kTarget), "mel_target");
  if (target.dimensions != 3) refuse("mel_target: expected (B, T, C)");
  call.batch = target.shape[0];
  call.frames = target.shape[1];
  call.bins = target.shape[2];
  if (call.bins == 0) refuse("mel_target: no bins");
  call.target = view(argument(kTarget), {call.batch, call.frames, call.bins}, "mel_target");
  call.target_gradient = view(argument(kTargetGradient), {call.batch, call.frames, call.bins}, "mel_target gradient");
  PyObject *mel = argument(kMel), *mel_gradients = argument(kMelGradients);
  for (int p = 0; p < 2; ++p) {
    call.prediction[p] = view(item(mel, p, 2, "mel"), {call.batch, call.frames, call.bins}, "mel_pred");
    call.prediction_gradient[p] =
        view(item(mel_gradients, p, 2, "mel gradients"), {call.batch, call.frames, call.bins}, "mel_pred gradient");
    call.predictions += call.prediction[p].data != nullptr || PyTuple_GET_ITEM(mel, p) != Py_None;
  }
  if (PyTuple_GET_ITEM(mel, 0) == Py_None) refuse("mel_pred: missing");
  tensors.present[0] = true;
  call.mean = bins_vector(argument(kMean), call, "mel_mean");
  call.deviation = bins_vector(argument(kDeviation), call, "mel_std");

  if (argument(kPosterior) != Py_None) {
    tensors.present[1] = true;
    read_latents(argument(kPosterior), argument(kPosteriorGradients), true, tensors);
    if (argument(kPrior) != Py_None) read_latents(argument(kPrior), argument(kPriorGradients), false, tensors);
  }
  std::int64_t most_steps = INT64_MAX;
  if (argument(kLogits) != Py_None) {
    tensors.present[2] = true;
    const Tensor logits = tensor(argument(kLogits), "stop_logits");
    if (logits.dimensions != 2) refuse("stop_logits: expected (B, S)");
    call.steps = most_steps = logits.shape[1];
    call.logits = view(argument(kLogits), {call.batch, call.steps}, "stop_logits");
    call.logits_gradient = view(argument(kLogitsGradient), {call.batch, call.steps}, "stop_logits gradient");
  }
  read_layers(argument(kLayers), argument(kLayerGradients), tensors);

  tensors.mel_lengths = lengths(argument(kMelLengths), call.batch, call.frames, "mel_lengths");
  if (tensors.present[3]) most_steps = std::min(most_steps, call.attention_steps);
  tensors.step_lengths = lengths(argument(kStepLengths), call.batch, most_steps, "step_lengths");
  if (tensors.present[3]) tensors.text_lengths = lengths(argument(kTextLengths), call.batch, call.symbols, "text_lengths");
  tensors.truncated.assign(static_cast<std::size_t>(call.batch), 0);
  if (argument(kTruncated) != Py_None) {
    const auto flags = lengths(argument(kTruncated), call.batch, 1, "truncated");
    std::copy(flags.begin(), flags.end(), tensors.truncated.begin());
  }

  const State state = read_state(argument(kState));
  const View weights = view(argument(kWeights), {kTerms}, "weights");
  if (weights.data == nullptr || (weights.type != Type::f64 && weights.type != Type::f32))
    refuse("weights: expected float32 or float64");
  for (int i = 0; i < kTerms; ++i) {
    if (state.given) put_number(weights, i * weights.stride[0], state.weight(i, options.base_weights[i], call.wide));
    tensors.weights[i] = number_at(weights, i * weights.stride[0]);
  }
  if (options.smoothing == Smoothing::noise) {
    const Tensor step = tensor(argument(kStep), "step");
    expect_shape(step, {}, "step");
    if (step.code != kI64) refuse("step: expected int64");
    call.step = static_cast<std::uint32_t>(*static_cast<const std::int64_t*>(step.data));
  }
  PyObject* const normalizer = argument(kNormalizer);
  if (normalizer != Py_None) {
    const Py_ssize_t size = PyTuple_Check(normalizer) ? PyTuple_GET_SIZE(normalizer) : 0;
    if (size != 1 && size != kTerms) refuse("normalizer: expected 1 or 4 numbers");
    tensors.normalizer.kind = size == 1 ? Normalizer::scalar : Normalizer::counts;
    for (Py_ssize_t i = 0; i < size; ++i) tensors.normalizer.values[i] = real(PyTuple_GET_ITEM(normalizer, i));
  }
  // What arrives in backward has the total's type, so what is compared with it must be rounded alike.
  const double scale = real(argument(kGradScale));
  tensors.grad_scale = call.wide ? scale : static_cast<double>(static_cast<float>(scale));

  const Type computed = call.wide ? Type::f64 : Type::f32;
  const View total = view(argument(kTotal), {}, "total");
  const View terms = view(argument(kTermValues), {2, kTerms}, "term values");
  if (total.data == nullptr || terms.data == nullptr) refuse("total or term values: missing");
  if (total.type != computed || terms.type != computed || terms.stride[0] != kTerms || terms.stride[1] != 1)
    refuse("total and term values must be contiguous and of the computed type");
  const Tensor frames = tensor(argument(kFrames), "frames");
  expect_shape(frames, {}, "frames");
  if (frames.code != kI64) refuse("frames: expected int64");
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
  *static_cast<std::int64_t*>(frames.data) = values.frames;
  if (state.given) move_on(state, options, values, call.wide);
  return tensors.grad_scale;
}

}  // namespace

void bind_losses(py::module_& module) {
  py::class_<Fused>(module, "FusedLosses", "The loss options of one LossSpec, ready for calls.")
      .def(py::init<const py::dict&>(), py::arg("options"))
      .def("run", &Fused::run, py::arg("arguments"),
           "Write values and gradients of one call (ttsfast/losses/cpp.py makes the tuple); the gradient scale used.");
  module.def("read_tensors_of", &read_tensors_of, py::arg("type"), py::arg("exchange"),
             "Read tensors of exactly this type through its DLPack exchange capsule; False where it does not fit.");
  module.def("loss_implementation", &loss_implementation, "'avx512', 'avx2' or 'baseline': what the losses use.");
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
