// What check_inputs, why_not_plain and Sweep do one after the other in Python, at once: checks, gradients, sweep,
// results. A call that is unusual in any way is declined before anything is written; Python then says in words
// what is wrong with it, or serves it another way.
#include "loss/step.h"

#include <cstring>
#include <memory>
#include <stdexcept>
#include <utility>

#include "common/dlpack.h"
#include "loss/objects.h"

namespace py = pybind11;

namespace ttsfast {
namespace {

// In the order of the tuple that CppBackend.step in ttsfast/losses/cpp.py makes; from kMel on as in TTSLoss.forward.
enum Argument {
  kThreads, kIsa, kGradients, kAllocate, kState, kNormalizer, kGradScale, kMean, kDeviation, kMel, kTarget,
  kMelLengths, kStopLogits, kStepLengths, kPosterior, kPrior, kAttention, kTextLengths, kTruncated, kArguments
};

py::object attribute(PyObject* object, PyObject* name) {
  PyObject* const found = PyObject_GetAttr(object, name);
  if (found == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(found);
}

// A tensor whose memory is what it says: of no subclass, no lazy negation. What else is lazy, wrapped, sparse or on
// another device has no memory to give, and reading it fails.
PyObject* plain(PyObject* object) {
  if (!is_registered(object)) refuse("not a plain tensor");
  static PyObject* const is_neg = PyUnicode_InternFromString("is_neg");
  PyObject* const lazy = PyObject_CallMethodNoArgs(object, is_neg);
  if (lazy == nullptr) throw py::error_already_set();
  if (py::reinterpret_steal<py::object>(lazy).ptr() != Py_False) refuse("a lazy view");
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

bool requires_gradient(PyObject* object) {
  static PyObject* const name = PyUnicode_InternFromString("requires_grad");
  return attribute(object, name).ptr() == Py_True;
}

std::int64_t version(PyObject* object) {
  static PyObject* const name = PyUnicode_InternFromString("_version");
  return integer(attribute(object, name).ptr());
}

// A tensor of up to four numbers, its memory in the same allocation.
struct Small {
  DLManagedTensorVersioned managed{};
  std::int64_t size = 0, stride = 1;
  alignas(64) unsigned char memory[kTerms * sizeof(double)];

  static void let_go(DLManagedTensorVersioned* self) { delete static_cast<Small*>(self->manager_ctx); }
};

py::object small_tensor(const void* numbers, std::int64_t count, int dimensions, DLDataType type) {
  auto made = std::make_unique<Small>();
  made->size = count;
  std::memcpy(made->memory, numbers, static_cast<std::size_t>(count * type.bits / 8));
  made->managed.version = {kDLPackMajor, 0};
  made->managed.manager_ctx = made.get();
  made->managed.deleter = &Small::let_go;
  made->managed.dl_tensor = {made->memory, {kDLCPU, 0}, dimensions, type, &made->size, &made->stride, 0};
  return py::reinterpret_steal<py::object>(tensor_over(&made.release()->managed));
}

// Of the arithmetic's type.
py::object small_tensor(const double* numbers, std::int64_t count, int dimensions, bool wide) {
  if (wide) return small_tensor(numbers, count, dimensions, {kDLFloat, 64, 1});
  float narrow[kTerms];
  std::copy(numbers, numbers + count, narrow);
  return small_tensor(narrow, count, dimensions, {kDLFloat, 32, 1});
}

// A call that was swept, for as long as its gradients may be wanted.
class LossStep {
 public:
  // Reads and checks. Raises where the call is not a usual one.
  LossStep(const LossOptions& options, const py::tuple& tuple, State& state);

  // Sweeps, and moves the state on: (total, values, floors, weights, frames, present, wanted).
  py::tuple run(const State& state);

  // The gradients times another scale.
  py::list again(double scale);

  py::object gradients = py::none();
  double applied() const { return applied_; }
  bool rounded() const { return rounded_; }

 private:
  py::list allocate();

  LossOptions options_;
  LossTensors tensors_;
  int threads_;
  Isa isa_;
  double applied_;
  py::object allocate_;
  std::vector<Real> wanted_;
  bool rounded_ = false;
  // Every tensor that is read and, where there are gradients, how often each had been modified.
  std::vector<py::object> read_;
  std::vector<std::int64_t> versions_;
  // Where the first of them, the real ones, lay: assigned to `.data`, a tensor is elsewhere in the same version.
  std::vector<const void*> memory_;
};

LossStep::LossStep(const LossOptions& options, const py::tuple& tuple, State& state) : options_(options) {
  const auto argument = [&](Argument which) { return PyTuple_GET_ITEM(tuple.ptr(), which); };
  item(tuple.ptr(), 0, kArguments, "arguments");
  threads_ = static_cast<int>(integer(argument(kThreads)));
  isa_ = static_cast<Isa>(integer(argument(kIsa)));
  if (!supports(isa_)) refuse("this processor does not support that instruction set");
  allocate_ = py::reinterpret_borrow<py::object>(argument(kAllocate));

  LossObjects objects;
  const std::vector<PyObject*> predictions = plain_sequence(argument(kMel));
  if (predictions.empty() || predictions.size() > 2) refuse("not one prediction or a pair");
  std::copy(predictions.begin(), predictions.end(), objects.mel);
  objects.target = plain(argument(kTarget));
  objects.mean = plain_or_none(argument(kMean));
  objects.deviation = plain_or_none(argument(kDeviation));
  plain_pair(argument(kPosterior), objects.posterior);
  plain_pair(argument(kPrior), objects.prior);
  if (objects.prior[0] != Py_None && objects.posterior[0] == Py_None) refuse("a prior without posterior");
  objects.logits = plain_or_none(argument(kStopLogits));
  objects.layers = plain_sequence(argument(kAttention));
  objects.mel_lengths = plain(argument(kMelLengths));
  objects.step_lengths = plain_or_none(argument(kStepLengths));
  objects.text_lengths = plain_or_none(argument(kTextLengths));
  objects.truncated = plain_or_none(argument(kTruncated));

  Call& call = tensors_.call;
  const std::vector<Real> reals = read_reals(objects, tensors_);
  for (int term = 0; term < kTerms; ++term)
    if (options_.active[term] && !tensors_.present[term]) refuse("a term's inputs are missing");
  if (objects.step_lengths == Py_None) {
    if (tensors_.present[2] && call.steps < call.frames) refuse("fewer steps than frames");
    if (tensors_.present[3] && call.attention_steps < call.frames) refuse("fewer steps than frames");
    objects.step_lengths = objects.mel_lengths;
  }
  if ((objects.text_lengths != Py_None) != tensors_.present[3]) refuse("attention or text_lengths alone");
  read_vectors(objects, Beyond::refuse, tensors_);

  state = read_state(argument(kState));
  if (!state.given) refuse("no state");
  for (int i = 0; i < kTerms; ++i) tensors_.weights[i] = state.weight(i, options_.base_weights[i], call.wide);
  call.step = static_cast<std::uint32_t>(*state.noise_step);
  tensors_.normalizer = read_normalizer(argument(kNormalizer));
  tensors_.grad_scale = applied_ = ttsfast::rounded(real(argument(kGradScale)), call.wide);

  for (const Real& real : reals) {
    read_.push_back(py::reinterpret_borrow<py::object>(real.object));
    if (argument(kGradients) != Py_True || !options_.active[real.term] || !requires_gradient(real.object)) continue;
    wanted_.push_back(real);
    rounded_ = rounded_ || real.tensor.code == static_cast<int>(Type::bf16) || real.tensor.code == static_cast<int>(Type::f16);
  }
  // The statistics, too: the loss that they belong to may be gone by the backward pass.
  for (PyObject* vector : {objects.mel_lengths, objects.step_lengths, objects.text_lengths, objects.truncated,
                           objects.mean, objects.deviation})
    if (vector != Py_None) read_.push_back(py::reinterpret_borrow<py::object>(vector));
  // A tensor made in inference mode has no version: the search for it raises.
  if (!wanted_.empty()) {
    for (const py::object& object : read_) versions_.push_back(version(object.ptr()));
    for (const Real& real : reals) memory_.push_back(real.tensor.data);
  }
}

// Memory for the gradients, where the next sweep writes them.
py::list LossStep::allocate() {
  py::list made(wanted_.size());
  for (std::size_t i = 0; i < wanted_.size(); ++i) {
    made[i] = allocate_(py::handle(wanted_[i].object));
    wanted_[i].receive(PyList_GET_ITEM(made.ptr(), static_cast<Py_ssize_t>(i)));
  }
  return made;
}

py::tuple LossStep::run(const State& state) {
  py::list made = allocate();
  LossValues values;
  {
    py::gil_scoped_release unlocked;
    values = run_losses(options_, tensors_, threads_, isa_);
  }
  const bool wide = tensors_.call.wide;
  py::tuple present(kTerms), wanted(wanted_.size());
  for (int i = 0; i < kTerms; ++i) present[i] = py::bool_(tensors_.present[i]);
  for (std::size_t i = 0; i < wanted_.size(); ++i) wanted[i] = py::handle(wanted_[i].object);
  py::tuple results = py::make_tuple(
      small_tensor(&values.total, 1, 0, wide), small_tensor(values.values, kTerms, 1, wide),
      small_tensor(values.floors, kTerms, 1, wide), small_tensor(tensors_.weights, kTerms, 1, wide),
      small_tensor(&values.frames, 1, 0, {kDLInt, 64, 1}), std::move(present), std::move(wanted));
  gradients = std::move(made);
  // Last, so that a call that fails has moved nothing.
  state.move_on(options_, values, wide);
  return results;
}

py::list LossStep::again(double scale) {
  for (std::size_t i = 0; i < read_.size(); ++i)
    if (version(read_[i].ptr()) != versions_[i] ||
        (i < memory_.size() && tensor(read_[i].ptr(), "an input").data != memory_[i]))
      throw std::runtime_error(
          "a tensor that the loss was computed from has been modified by an inplace operation since: "
          "pass a clone of it, or modify it after backward");
  py::list made = allocate();
  tensors_.grad_scale = ttsfast::rounded(scale, tensors_.call.wide);
  // With the interpreter lock held: another thread may be going through the same graph.
  run_losses(options_, tensors_, threads_, isa_);
  return made;
}

py::object step(const FusedLosses& fused, const py::tuple& tuple) {
  std::unique_ptr<LossStep> made;
  State state;
  try {
    made = std::make_unique<LossStep>(fused.options, tuple, state);
  } catch (const std::invalid_argument&) {
    return py::none();
  } catch (const py::error_already_set& error) {
    // Why reading failed is for the checks in Python to say; an interruption is passed on.
    if (!error.matches(PyExc_Exception)) throw;
    return py::none();
  }
  py::tuple results = made->run(state);
  return py::make_tuple(std::move(results), std::move(made));
}

}  // namespace

void bind_loss_step(py::module_& module, py::class_<FusedLosses>& fused) {
  py::class_<LossStep>(module, "LossStep", "A call that was swept; see _Written in ttsfast/losses/cpp.py.")
      .def_readonly("gradients", &LossStep::gradients)
      .def_property_readonly("applied", &LossStep::applied)
      .def_property_readonly("rounded", &LossStep::rounded)
      .def("again", &LossStep::again, py::arg("scale"));
  fused.def("step", &step, py::arg("arguments"),
            "Check and sweep one call of TTSLoss (ttsfast/losses/cpp.py makes the tuple): what LossStep::run returns and "
            "the LossStep, or None for a call that is unusual.");
}

}  // namespace ttsfast
