#include "loss/step.h"

#include <stdexcept>
#include <utility>

namespace py = pybind11;

namespace ttsfast {
namespace {

py::object attribute(PyObject* object, PyObject* name) {
  PyObject* const found = PyObject_GetAttr(object, name);
  if (found == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(found);
}

bool requires_gradient(PyObject* object) {
  static PyObject* const name = PyUnicode_InternFromString("requires_grad");
  return attribute(object, name).ptr() == Py_True;
}

// How often it was modified; -1 for what was made in inference mode, which keeps no count.
std::int64_t version(PyObject* object) {
  static PyObject* const name = PyUnicode_InternFromString("_version");
  PyObject* const found = PyObject_GetAttr(object, name);
  if (found == nullptr && PyErr_ExceptionMatches(PyExc_RuntimeError)) {
    PyErr_Clear();
    return -1;
  }
  if (found == nullptr) throw py::error_already_set();
  return integer(py::reinterpret_steal<py::object>(found).ptr());
}

// Of the arithmetic's type.
py::object small_tensor_of(const double* numbers, std::int64_t count, bool scalar, bool wide) {
  if (wide) return small_tensor(numbers, count, scalar, static_cast<int>(Type::f64));
  float narrow[kTerms];
  std::copy(numbers, numbers + count, narrow);
  return small_tensor(narrow, count, scalar, static_cast<int>(Type::f32));
}

}  // namespace

LossStep::LossStep(const LossOptions& options, const py::tuple& inputs, const py::object& state,
                   const StepOptions& given)
    : options_(options), threads_(given.threads), isa_(given.isa), allocate_(given.allocate) {
  if (!supports(isa_)) refuse("this processor does not support that instruction set");
  const LossObjects objects = read_objects(inputs.ptr());
  const std::vector<Real> reals = read_reals(objects, tensors_);
  Call& call = tensors_.call;
  state_ = read_state(state.ptr());
  // Who hands over weights may compute the alignment's terms beside this call.
  const int needed = state_.weights.data == nullptr ? kAllTerms : kTerms;
  for (int term = 0; term < needed; ++term)
    if (options_.active[term] && !(term < kTerms && tensors_.present[term])) refuse("a term's inputs are missing");
  read_vectors(objects, state_.weights.data == nullptr ? Beyond::refuse : Beyond::clamp, tensors_);
  for (int i = 0; i < kTerms; ++i) tensors_.weights[i] = state_.weight(i, options_, call.wide);
  call.step = static_cast<std::uint32_t>(*state_.noise_step);
  tensors_.normalizer = read_normalizer(given.normalizer.ptr());
  tensors_.grad_scale = applied_ = ttsfast::rounded(given.scale, call.wide);
  want(given.wanted, reals);
  remember(reals, objects);
}

void LossStep::want(const py::object& wanted, const std::vector<Real>& reals) {
  const bool listed = py::isinstance<py::list>(wanted);
  if (listed && PyList_GET_SIZE(wanted.ptr()) != static_cast<Py_ssize_t>(reals.size()))
    refuse("wanted: expected a flag for each tensor");
  for (std::size_t i = 0; i < reals.size(); ++i) {
    const Real& real = reals[i];
    const bool chosen = listed ? PyList_GET_ITEM(wanted.ptr(), static_cast<Py_ssize_t>(i)) == Py_True
                               : wanted.ptr() == Py_True && options_.active[real.term] && requires_gradient(real.object);
    if (!chosen) continue;
    leaves_.push_back(real);
    const auto type = static_cast<Type>(real.tensor.code);
    rounded_ = rounded_ || type == Type::bf16 || type == Type::f16;
  }
}

void LossStep::remember(const std::vector<Real>& reals, const LossObjects& objects) {
  const auto keep = [&](PyObject* object) {
    if (object != Py_None) read_.push_back(py::reinterpret_borrow<py::object>(object));
  };
  for (const Real& real : reals) keep(real.object);
  if (leaves_.empty()) return;
  for (PyObject* vector : {objects.mel_lengths, objects.step_lengths, objects.text_lengths, objects.truncated}) keep(vector);
  for (const py::object& object : read_) versions_.push_back(version(object.ptr()));
  for (const Real& real : reals) memory_.push_back(real.tensor.data);
}

// Memory for the gradients, where the next pass writes them.
py::list LossStep::allocate() {
  py::list made(leaves_.size());
  for (std::size_t i = 0; i < leaves_.size(); ++i) {
    made[i] = allocate_(py::handle(leaves_[i].object));
    leaves_[i].receive(PyList_GET_ITEM(made.ptr(), static_cast<Py_ssize_t>(i)));
  }
  return made;
}

py::tuple LossStep::run() {
  py::list made = allocate();
  LossValues values;
  {
    py::gil_scoped_release unlocked;
    values = run_losses(options_, tensors_, threads_, isa_);
  }
  const bool wide = tensors_.call.wide;
  py::tuple present(kTerms), leaves(leaves_.size());
  for (int i = 0; i < kTerms; ++i) present[i] = py::bool_(tensors_.present[i]);
  for (std::size_t i = 0; i < leaves_.size(); ++i) leaves[i] = py::handle(leaves_[i].object);
  py::tuple results = py::make_tuple(
      small_tensor_of(&values.total, 1, true, wide), small_tensor_of(values.values, kTerms, false, wide),
      small_tensor_of(values.floors, kTerms, false, wide), small_tensor_of(tensors_.weights, kTerms, false, wide),
      small_tensor(&values.frames, 1, true, kI64), std::move(present), std::move(leaves));
  gradients = std::move(made);
  // Last, so that a call that fails has moved nothing.
  state_.move_on(options_, values.values, values.floors, kTerms, wide);
  return results;
}

py::list LossStep::again(double scale) {
  for (std::size_t i = 0; i < versions_.size(); ++i)
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

}  // namespace ttsfast
