#include "loss/objects.h"

#include <algorithm>

namespace ttsfast {
namespace {

enum Axis { kMel, kKl, kStop, kAttention };  // by term, as everywhere

// Strides where the sweep looks for them: (B, Z) as (B, T, Z) with T = 1, (B, S, N) as (B, H, S, N) with H = 1.
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

// One vector of the arithmetic's own type, elements adjacent.
View bins_vector(PyObject* object, const Call& call, const char* name) {
  const View result = view(object, {call.bins}, name);
  if (result.data != nullptr && (result.type != (call.wide ? Type::f64 : Type::f32) || (result.stride[0] != 1 && call.bins > 1)))
    refuse(std::string(name) + ": expected adjacent elements of the computed type");
  return result;
}

void expect_dimensions(const Tensor& found, int least, int most, const char* message) {
  if (found.dimensions < least || found.dimensions > most) refuse(message);
}

}  // namespace

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
  if (objects.mel[0] == Py_None) refuse("mel_pred: missing");
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
  call.mean = bins_vector(objects.mean, call, "mel_mean");
  call.deviation = bins_vector(objects.deviation, call, "mel_std");
  return reals;
}

void read_vectors(const LossObjects& objects, Beyond beyond, LossTensors& tensors) {
  const Call& call = tensors.call;
  std::int64_t most_steps = INT64_MAX;
  if (tensors.present[kStop]) most_steps = call.steps;
  if (tensors.present[kAttention]) most_steps = std::min(most_steps, call.attention_steps);
  tensors.mel_lengths = lengths(objects.mel_lengths, call.batch, call.frames, "mel_lengths", beyond);
  tensors.step_lengths = lengths(objects.step_lengths, call.batch, most_steps, "step_lengths", beyond);
  if (tensors.present[kAttention])
    tensors.text_lengths = lengths(objects.text_lengths, call.batch, call.symbols, "text_lengths", beyond);
  if (objects.truncated != Py_None) {
    tensors.truncated = flags(objects.truncated, call.batch, "truncated");
  } else {
    tensors.truncated.assign(static_cast<std::size_t>(call.batch), 0);
  }
}

double State::weight(int term, double base, bool wide) const {
  const float factor = adaptive.factors[term] * schedule[term];
  return wide ? static_cast<double>(factor) * base : static_cast<double>(factor * static_cast<float>(base));
}

void State::move_on(const LossOptions& options, const LossValues& result, bool wide) const {
  float values[kTerms], excess[kTerms];
  for (int i = 0; i < kTerms; ++i) {
    values[i] = static_cast<float>(result.values[i]);
    const auto floor = static_cast<float>(result.floors[i]);
    // Written so that a NaN stays one.
    const float above = wide ? static_cast<float>(result.values[i] - result.floors[i]) : values[i] - floor;
    excess[i] = above < 0 ? 0.0f : above;
  }
  observe(adaptive, options.active, values, excess);
  if (advance) ++*noise_step;
}

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

Normalizer read_normalizer(PyObject* object) {
  Normalizer normalizer;
  if (object == Py_None) return normalizer;
  const Py_ssize_t size = PyTuple_Check(object) ? PyTuple_GET_SIZE(object) : 0;
  if (size != 1 && size != kTerms) refuse("normalizer: expected 1 or 4 numbers");
  normalizer.kind = size == 1 ? Normalizer::scalar : Normalizer::counts;
  for (Py_ssize_t i = 0; i < size; ++i) normalizer.values[i] = real(PyTuple_GET_ITEM(object, i));
  return normalizer;
}

}  // namespace ttsfast
