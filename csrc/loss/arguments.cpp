#include "loss/arguments.h"

#include <algorithm>
#include <cstring>

#include "common/half.h"

namespace ttsfast {
namespace {

enum Axis { kMel, kKl, kStop, kAttention };  // by term, as everywhere

// Strides where the pass looks for them: (B, Z) as (B, T, Z) with T = 1, (B, S, N) as (B, H, S, N) with H = 1.
View arranged(const Tensor& found, int term, const std::string& name) {
  if (found.code > static_cast<int>(Type::f16)) refuse(name + ": expected a floating-point tensor");
  View view;
  view.data = found.data;
  view.type = static_cast<Type>(found.code);
  std::copy(found.stride, found.stride + 4, view.stride);
  const int missing = term == kKl ? 3 - found.dimensions : term == kAttention ? 4 - found.dimensions : 0;
  if (missing > 0) {
    std::copy_backward(found.stride + 1, found.stride + found.dimensions, view.stride + found.dimensions + 1);
    view.stride[1] = 0;
  }
  return view;
}

float widened(std::uint16_t bfloat) {
  const std::uint32_t bits = std::uint32_t(bfloat) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

double number_at(const View& from, std::int64_t index) {
  const std::int64_t offset = index * from.stride[0];
  switch (from.type) {
    case Type::f64: return static_cast<const double*>(from.data)[offset];
    case Type::f32: return static_cast<double>(static_cast<const float*>(from.data)[offset]);
    case Type::bf16: return static_cast<double>(widened(static_cast<const std::uint16_t*>(from.data)[offset]));
    case Type::f16: break;
  }
  float value;
  half_to_float_scalar(static_cast<const std::uint16_t*>(from.data) + offset, &value, 1);
  return static_cast<double>(value);
}

// (C,) corpus statistics, copied in the type computed in: the loss that they belong to may change them, or be gone,
// before a second pass.
View statistic(PyObject* object, const Call& call, const char* name, std::vector<double>& wide,
               std::vector<float>& narrow) {
  const View found = view(object, {call.bins}, name);
  View result;
  if (found.data == nullptr) return result;
  for (std::int64_t c = 0; c < call.bins; ++c) {
    if (call.wide) wide.push_back(number_at(found, c));
    if (!call.wide) narrow.push_back(static_cast<float>(number_at(found, c)));
  }
  result.data = call.wide ? static_cast<void*>(wide.data()) : static_cast<void*>(narrow.data());
  result.type = call.wide ? Type::f64 : Type::f32;
  result.stride[0] = 1;
  return result;
}

// A tensor whose memory is what it says: of no subclass, no lazy negation. What else is lazy, wrapped, sparse or on
// another device has no memory to give, and reading it fails.
PyObject* plain(PyObject* object) {
  if (!is_tensor(object)) refuse("not a plain tensor");
  static PyObject* const is_neg = PyUnicode_InternFromString("is_neg");
  PyObject* const lazy = PyObject_CallMethodNoArgs(object, is_neg);
  if (lazy == nullptr) throw pybind11::error_already_set();
  if (pybind11::reinterpret_steal<pybind11::object>(lazy).ptr() != Py_False) refuse("a lazy view");
  return object;
}

PyObject* plain_or_none(PyObject* object) { return object == Py_None ? object : plain(object); }

bool is_sequence(PyObject* object) { return PyTuple_Check(object) || PyList_CheckExact(object); }

// One tensor or a sequence of them.
std::vector<PyObject*> plain_sequence(PyObject* object) {
  if (object == Py_None) return {};
  if (!is_sequence(object)) return {plain(object)};
  std::vector<PyObject*> found;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(object); ++i)
    found.push_back(plain(PySequence_Fast_GET_ITEM(object, i)));
  if (found.empty()) refuse("an empty sequence");
  return found;
}

void plain_pair(PyObject* object, PyObject* (&into)[2]) {
  if (object == Py_None) return;
  if (!is_sequence(object) || PySequence_Fast_GET_SIZE(object) != 2) refuse("not a pair");
  for (int i = 0; i < 2; ++i) into[i] = plain(PySequence_Fast_GET_ITEM(object, i));
}

void expect_dimensions(const Tensor& found, int least, int most, const char* message) {
  if (found.dimensions < least || found.dimensions > most) refuse(message);
}

}  // namespace

LossObjects read_objects(PyObject* inputs) {
  // In the order of the fields of LossInputs.
  enum Field {
    kPredictions, kTarget, kMelLengths, kStepLengths, kTextLengths, kTruncated, kLogits, kPosterior, kPrior, kLayers,
    kMean, kDeviation, kAlignment, kFields
  };
  if (item(inputs, kAlignment, kFields, "inputs") != Py_None) refuse("alignment: computed beside this call");
  const auto field = [&](Field which) { return PyTuple_GET_ITEM(inputs, which); };
  LossObjects objects;
  const std::vector<PyObject*> predictions = plain_sequence(field(kPredictions));
  if (predictions.empty() || predictions.size() > 2) refuse("mel_pred: expected one prediction or a pair");
  std::copy(predictions.begin(), predictions.end(), objects.mel);
  objects.target = plain(field(kTarget));
  objects.mel_lengths = plain(field(kMelLengths));
  objects.step_lengths = plain_or_none(field(kStepLengths));
  objects.text_lengths = plain_or_none(field(kTextLengths));
  objects.truncated = plain_or_none(field(kTruncated));
  objects.logits = plain_or_none(field(kLogits));
  plain_pair(field(kPosterior), objects.posterior);
  plain_pair(field(kPrior), objects.prior);
  if (objects.prior[0] != Py_None && objects.posterior[0] == Py_None) refuse("a prior without posterior");
  objects.layers = plain_sequence(field(kLayers));
  if ((objects.text_lengths == Py_None) != objects.layers.empty()) refuse("attention or text_lengths alone");
  objects.mean = plain_or_none(field(kMean));
  objects.deviation = plain_or_none(field(kDeviation));
  return objects;
}

void Real::receive(PyObject* into) const {
  const std::string label = std::string(name) + " gradient";
  const Tensor found = ttsfast::tensor(into, label.c_str());
  expect_same_shape(found, tensor, label.c_str());
  *gradient = arranged(found, term, label);
}

std::vector<Real> read_reals(const LossObjects& objects, LossTensors& tensors) {
  Call& call = tensors.call;
  std::vector<Real> reals;
  reals.reserve(8 + objects.layers.size());
  const auto add = [&](PyObject* object, const Tensor& found, int term, const char* name, View& value, View& gradient) {
    value = arranged(found, term, name);
    call.wide = call.wide || value.type == Type::f64;
    reals.push_back({object, found, term, name, &gradient});
  };

  const Tensor target = tensor(objects.target, "mel_target");
  expect_dimensions(target, 3, 3, "mel_target: expected (B, T, C)");
  call.batch = target.shape[0];
  call.frames = target.shape[1];
  call.bins = target.shape[2];
  if (call.bins == 0) refuse("mel_target: no bins");
  for (int p = 0; p < 2 && objects.mel[p] != Py_None; ++p) {
    const Tensor found = tensor(objects.mel[p], "mel_pred");
    expect_same_shape(found, target, "mel_pred");
    add(objects.mel[p], found, kMel, "mel_pred", call.prediction[p], call.prediction_gradient[p]);
    call.predictions = p + 1;
  }
  add(objects.target, target, kMel, "mel_target", call.target, call.target_gradient);
  tensors.present[kMel] = true;

  if (objects.posterior[0] != Py_None) {
    const Tensor mu = tensor(objects.posterior[0], "posterior");
    expect_dimensions(mu, 2, 3, "posterior: expected (B, Z) or (B, T, Z)");
    call.per_frame = mu.dimensions == 3;
    call.latents = mu.shape[mu.dimensions - 1];
    const auto latents = [&](PyObject* object, const char* name, View& value, View& gradient) {
      const Tensor found = tensor(object, name);
      if (call.per_frame) {
        expect_shape(found, {call.batch, call.frames, call.latents}, name);
      } else {
        expect_shape(found, {call.batch, call.latents}, name);
      }
      add(object, found, kKl, name, value, gradient);
    };
    for (int i = 0; i < 2; ++i)
      latents(objects.posterior[i], "posterior", call.posterior[i], call.posterior_gradient[i]);
    for (int i = 0; i < 2 && objects.prior[0] != Py_None; ++i)
      latents(objects.prior[i], "prior", call.prior[i], call.prior_gradient[i]);
    tensors.present[kKl] = true;
  }
  if (objects.logits != Py_None) {
    const Tensor logits = tensor(objects.logits, "stop_logits");
    expect_dimensions(logits, 2, 2, "stop_logits: expected (B, S)");
    call.steps = logits.shape[1];
    expect_shape(logits, {call.batch, call.steps}, "stop_logits");
    add(objects.logits, logits, kStop, "stop_logits", call.logits, call.logits_gradient);
    tensors.present[kStop] = true;
  }
  tensors.layers.resize(objects.layers.size());
  for (std::size_t i = 0; i < objects.layers.size(); ++i) {
    const Tensor found = tensor(objects.layers[i], "attention");
    expect_dimensions(found, 3, 4, "attention: expected (B, S, N) or (B, H, S, N)");
    if (i == 0) {
      call.attention_steps = found.shape[found.dimensions - 2];
      call.symbols = found.shape[found.dimensions - 1];
    }
    Layer& layer = tensors.layers[i];
    if (found.dimensions == 4) {
      layer.heads = found.shape[1];
      expect_shape(found, {call.batch, layer.heads, call.attention_steps, call.symbols}, "attention");
    } else {
      expect_shape(found, {call.batch, call.attention_steps, call.symbols}, "attention");
    }
    add(objects.layers[i], found, kAttention, "attention", layer.value, layer.gradient);
  }
  tensors.present[kAttention] = !tensors.layers.empty();
  call.mean = statistic(objects.mean, call, "mel_mean", tensors.wide[0], tensors.narrow[0]);
  call.deviation = statistic(objects.deviation, call, "mel_std", tensors.wide[1], tensors.narrow[1]);
  return reals;
}

void read_vectors(const LossObjects& objects, Beyond beyond, LossTensors& tensors) {
  const Call& call = tensors.call;
  std::int64_t most_steps = INT64_MAX;
  if (tensors.present[kStop]) most_steps = call.steps;
  if (tensors.present[kAttention]) most_steps = std::min(most_steps, call.attention_steps);
  tensors.mel_lengths = lengths(objects.mel_lengths, call.batch, call.frames, "mel_lengths", beyond);
  const bool own = objects.step_lengths != Py_None;
  if (!own && most_steps < call.frames) refuse("fewer steps than frames");
  tensors.step_lengths = lengths(own ? objects.step_lengths : objects.mel_lengths, call.batch, most_steps, "step_lengths", beyond);
  if (tensors.present[kAttention])
    tensors.text_lengths = lengths(objects.text_lengths, call.batch, call.symbols, "text_lengths", beyond);
  if (objects.truncated != Py_None) {
    tensors.truncated = flags(objects.truncated, call.batch, "truncated");
  } else {
    tensors.truncated.assign(static_cast<std::size_t>(call.batch), 0);
  }
}

double State::weight(int term, const LossOptions& options, bool wide) const {
  if (weights.data != nullptr) return number_at(weights, term);
  const double base = options.base_weights[term];
  const float factor = adaptive.factors[term] * schedule[term];
  return wide ? static_cast<double>(factor) * base : static_cast<double>(factor * static_cast<float>(base));
}

void State::move_on(const LossOptions& options, const double* values, const double* floors, int terms, bool wide) const {
  float excess[kAllTerms];
  for (int i = 0; i < terms; ++i) {
    const auto value = static_cast<float>(values[i]), floor = static_cast<float>(floors[i]);
    // Written so that a NaN stays one.
    const float above = wide ? static_cast<float>(values[i] - floors[i]) : value - floor;
    excess[i] = above < 0 ? 0.0f : above;
  }
  observe(adaptive, options.adaptive, options.active, excess, terms);
  if (advance) ++*noise_step;
}

State read_state(PyObject* object) {
  // In the order of the fields of StepState.
  enum Field { kMethod, kFactors, kFast, kSlow, kLogVariances, kObservations, kSkipped, kSchedule, kStep, kAdvance, kFields };
  State state;
  const auto counter = [](PyObject* from) { return static_cast<std::int64_t*>(numbers(from, {}, kI64, "state")); };
  if (PyTuple_Check(object) && PyTuple_GET_SIZE(object) == 2) {
    state.weights = view(PyTuple_GET_ITEM(object, 0), {kAllTerms}, "weights");
    if (state.weights.data == nullptr) refuse("weights: missing");
    state.noise_step = counter(PyTuple_GET_ITEM(object, 1));
    return state;
  }
  item(object, 0, kFields, "state");
  const auto vector = [&](Field which) {
    return static_cast<float*>(
        numbers(PyTuple_GET_ITEM(object, which), {kAllTerms}, static_cast<int>(Type::f32), "state"));
  };
  PyObject* const method = PyTuple_GET_ITEM(object, kMethod);
  const auto is = [&](const char* name) {
    return PyUnicode_Check(method) && PyUnicode_CompareWithASCIIString(method, name) == 0;
  };
  state.adaptive.method = is("fixed")         ? Weighting::fixed
                          : is("dwa")         ? Weighting::dwa
                          : is("uncertainty") ? Weighting::uncertainty
                                              : (refuse("state: unknown weighting"), Weighting::fixed);
  state.adaptive.factors = vector(kFactors);
  state.adaptive.fast = vector(kFast);
  state.adaptive.slow = vector(kSlow);
  state.adaptive.log_variances = vector(kLogVariances);
  state.adaptive.observations = counter(PyTuple_GET_ITEM(object, kObservations));
  state.adaptive.skipped = counter(PyTuple_GET_ITEM(object, kSkipped));
  state.schedule = vector(kSchedule);
  state.noise_step = counter(PyTuple_GET_ITEM(object, kStep));
  state.advance = PyTuple_GET_ITEM(object, kAdvance) == Py_True;
  return state;
}

Normalizer read_normalizer(PyObject* object) {
  Normalizer normalizer;
  if (object == Py_None) return normalizer;
  if (!PyTuple_Check(object)) {
    normalizer.kind = Normalizer::scalar;
    normalizer.values[0] = real(object);
    return normalizer;
  }
  normalizer.kind = Normalizer::counts;
  for (int i = 0; i < Normalizer::kCounts; ++i)
    normalizer.values[i] = real(item(object, i, Normalizer::kCounts, "normalizer"));
  return normalizer;
}

}  // namespace ttsfast
