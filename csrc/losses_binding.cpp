#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

#include "bindings.h"
#include "dlpack.h"
#include "gradient_memory.h"
#include "losses.h"
#include "pool.h"

namespace py = pybind11;

namespace {

using namespace ttsfast;

// Codes of types that are not computed with, after those of Type.
enum IntegerCode { kU8 = 4, kI8, kI16, kI32, kI64, kBool, kCodes };

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

std::int64_t integer(PyObject* object) {
  const long long value = PyLong_AsLongLong(object);
  if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
  return value;
}

double real(PyObject* object) {
  const double value = PyFloat_AsDouble(object);
  if (value == -1.0 && PyErr_Occurred()) throw py::error_already_set();
  return value;
}

PyObject* item(PyObject* tuple, Py_ssize_t index, Py_ssize_t size, const char* what) {
  if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) != size)
    refuse(std::string(what) + ": expected a tuple of " + std::to_string(size));
  return PyTuple_GET_ITEM(tuple, index);
}

// A tensor as (address, type code, shape, strides in elements).
struct Tensor {
  void* data = nullptr;
  int code = 0;
  int dimensions = 0;
  std::int64_t shape[4] = {}, stride[4] = {};
};

Tensor tensor(PyObject* object, const char* name) {
  Tensor result;
  result.data = reinterpret_cast<void*>(static_cast<std::uintptr_t>(integer(item(object, 0, 4, name))));
  result.code = static_cast<int>(integer(PyTuple_GET_ITEM(object, 1)));
  PyObject *shape = PyTuple_GET_ITEM(object, 2), *stride = PyTuple_GET_ITEM(object, 3);
  if (!PyTuple_Check(shape) || !PyTuple_Check(stride) || PyTuple_GET_SIZE(shape) != PyTuple_GET_SIZE(stride) ||
      PyTuple_GET_SIZE(shape) > 4)
    refuse(std::string(name) + ": shape and strides must be tuples of the same length, at most 4");
  if (result.code < 0 || result.code >= kCodes) refuse(std::string(name) + ": unknown type code");
  result.dimensions = static_cast<int>(PyTuple_GET_SIZE(shape));
  bool empty = false;
  for (int i = 0; i < result.dimensions; ++i) {
    result.shape[i] = integer(PyTuple_GET_ITEM(shape, i));
    result.stride[i] = integer(PyTuple_GET_ITEM(stride, i));
    if (result.shape[i] < 0) refuse(std::string(name) + ": negative size");
    empty = empty || result.shape[i] == 0;
  }
  if (result.data == nullptr && !empty) refuse(std::string(name) + ": no memory");
  return result;
}

void expect_shape(const Tensor& tensor, std::initializer_list<std::int64_t> shape, const char* name) {
  bool same = tensor.dimensions == static_cast<int>(shape.size());
  int i = 0;
  for (std::int64_t size : shape) same = same && tensor.shape[i++] == size;
  if (same) return;
  std::string wanted, found;
  for (std::int64_t size : shape) wanted += (wanted.empty() ? "" : ", ") + std::to_string(size);
  for (i = 0; i < tensor.dimensions; ++i) found += (i > 0 ? ", " : "") + std::to_string(tensor.shape[i]);
  refuse(std::string(name) + ": expected shape (" + wanted + "), found (" + found + ")");
}

// A view of real numbers, or an absent one for None.
View view(PyObject* object, std::initializer_list<std::int64_t> shape, const char* name) {
  if (object == Py_None) return {};
  const Tensor found = tensor(object, name);
  expect_shape(found, shape, name);
  if (found.code > static_cast<int>(Type::f16)) refuse(std::string(name) + ": expected a floating-point tensor");
  View result;
  result.data = found.data;
  result.type = static_cast<Type>(found.code);
  std::memcpy(result.stride, found.stride, sizeof(result.stride));
  return result;
}

template <typename T>
std::int64_t element(const void* data, std::int64_t offset) {
  return static_cast<std::int64_t>(static_cast<const T*>(data)[offset]);
}

// (B,) integers of any type, clamped to [0, most].
std::vector<std::int64_t> lengths(PyObject* object, std::int64_t batch, std::int64_t most, const char* name) {
  const Tensor found = tensor(object, name);
  expect_shape(found, {batch}, name);
  std::vector<std::int64_t> result(static_cast<std::size_t>(batch));
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t offset = b * found.stride[0];
    std::int64_t value = 0;
    switch (found.code) {
      case kU8: case kBool: value = element<std::uint8_t>(found.data, offset); break;
      case kI8: value = element<std::int8_t>(found.data, offset); break;
      case kI16: value = element<std::int16_t>(found.data, offset); break;
      case kI32: value = element<std::int32_t>(found.data, offset); break;
      case kI64: value = element<std::int64_t>(found.data, offset); break;
      default: refuse(std::string(name) + ": expected an integer tensor");
    }
    result[static_cast<std::size_t>(b)] = value < 0 ? 0 : value > most ? most : value;
  }
  return result;
}

struct Fused {
  LossOptions options;

  explicit Fused(const py::dict& given) {
    const auto read = [&](const char* key) { return given[key]; };
    const auto active = read("active").cast<std::vector<bool>>();
    if (active.size() != kTerms) refuse("active: expected 4 values");
    std::copy(active.begin(), active.end(), options.active);
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
  kTextLengths, kTruncated, kWeights, kStep, kNormalizer, kGradScale, kWide, kTotal, kTermValues, kFrames, kArguments
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

void put_number(const View& to, std::int64_t index, double value) {
  if (to.type == Type::f64) {
    static_cast<double*>(to.data)[index] = value;
  } else {
    static_cast<float*>(to.data)[index] = static_cast<float>(value);
  }
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

  const View weights = view(argument(kWeights), {kTerms}, "weights");
  for (int i = 0; i < kTerms; ++i) {
    const std::int64_t offset = i * weights.stride[0];
    if (weights.type == Type::f64) {
      tensors.weights[i] = static_cast<const double*>(weights.data)[offset];
    } else if (weights.data != nullptr && weights.type == Type::f32) {
      tensors.weights[i] = static_cast<double>(static_cast<const float*>(weights.data)[offset]);
    } else {
      refuse("weights: expected float32 or float64");
    }
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
  return tensors.grad_scale;
}

// A tensor in recycled memory, for any library that reads DLPack.
struct Held {
  DLManagedTensor tensor;
  void* block;
  std::int64_t sizes[8];  // shape, then strides
};

void let_go(DLManagedTensor* managed) {
  auto* held = static_cast<Held*>(managed->manager_ctx);
  release_memory(held->block);
  delete held;
}

void destroy_capsule(PyObject* capsule) {
  // Whoever took the tensor has renamed the capsule, and lets go of it itself.
  if (!PyCapsule_IsValid(capsule, "dltensor")) return;
  let_go(static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor")));
}

py::object recycled(const py::tuple& shape, const py::tuple& strides, int code) {
  constexpr DLDataType types[] = {{kDLFloat, 32, 1}, {kDLFloat, 64, 1}, {kDLBfloat, 16, 1}, {kDLFloat, 16, 1}};
  const std::size_t dimensions = shape.size();
  if (code < 0 || code > static_cast<int>(Type::f16) || dimensions < 1 || dimensions > 4 ||
      strides.size() != dimensions)
    refuse("recycled: bad type code or number of dimensions");
  auto held = std::make_unique<Held>();
  std::int64_t elements = 1, last = 0;
  for (std::size_t i = 0; i < dimensions; ++i) {
    held->sizes[i] = shape[i].cast<std::int64_t>();
    held->sizes[dimensions + i] = strides[i].cast<std::int64_t>();
    if (held->sizes[i] < 1 || held->sizes[dimensions + i] < 0) refuse("recycled: bad size or stride");
    elements *= held->sizes[i];
    last += (held->sizes[i] - 1) * held->sizes[dimensions + i];
  }
  if (last >= elements) refuse("recycled: strides leave gaps");
  held->block = acquire_memory(static_cast<std::size_t>(elements) * types[code].bits / 8);
  held->tensor = {{held->block, {kDLCPU, 0}, static_cast<std::int32_t>(dimensions), types[code], held->sizes,
                   held->sizes + dimensions, 0},
                  held.get(),
                  let_go};
  PyObject* capsule = PyCapsule_New(&held->tensor, "dltensor", destroy_capsule);
  if (capsule == nullptr) {
    release_memory(held->block);
    throw py::error_already_set();
  }
  held.release();
  return py::reinterpret_steal<py::object>(capsule);
}

}  // namespace

void bind_losses(py::module_& module) {
  py::class_<Fused>(module, "FusedLosses", "The loss options of one LossSpec, ready for calls.")
      .def(py::init<const py::dict&>(), py::arg("options"))
      .def("run", &Fused::run, py::arg("arguments"),
           "Write values and gradients of one call (ttsfast/losses/cpp.py makes the tuple); the gradient scale used.");
  module.def("recycled", &recycled, py::arg("shape"), py::arg("strides"), py::arg("code"),
             "A DLPack capsule of an uncleared tensor in memory that is used again once the tensor is gone.");
  module.def(
      "recycled_bytes", [] { return std::make_pair(memory_use().used, memory_use().idle); },
      "Bytes of recycled memory in use, and idle.");
  module.def("loss_implementation", &loss_implementation, "'avx512', 'avx2' or 'baseline': what the losses use.");
  module.def(
      "loss_supports", [](int isa) { return supports(static_cast<Isa>(isa)); }, py::arg("isa"),
      "Whether this processor runs version 0 (best), 1 (baseline), 2 (AVX2) or 3 (AVX-512).");
  module.def("pool_threads", &pool_threads, "Threads that the pool has started in this process.");
}
