// The arguments of one call of the loss: from Python objects to the views that the pass reads and writes.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "common/tensors.h"
#include "loss/adaptive.h"
#include "loss/losses.h"

namespace ttsfast {

// The parts of LossInputs in ttsfast/terms/spec.py, None where absent. Borrowed: the caller keeps the tensors alive.
struct LossObjects {
  PyObject* mel[2] = {Py_None, Py_None};
  PyObject* target = Py_None;
  PyObject* mel_lengths = Py_None;
  PyObject* step_lengths = Py_None;
  PyObject* text_lengths = Py_None;
  PyObject* truncated = Py_None;
  PyObject* logits = Py_None;
  PyObject* posterior[2] = {Py_None, Py_None};
  PyObject* prior[2] = {Py_None, Py_None};
  std::vector<PyObject*> layers;
  PyObject* mean = Py_None;
  PyObject* deviation = Py_None;
};

// Of a LossInputs whose tensors nobody need have checked: one prediction or a pair, one layer of attention or several.
LossObjects read_objects(PyObject* inputs);

// A tensor of real numbers, and where the view of its gradient belongs.
struct Real {
  PyObject* object;
  Tensor tensor;
  int term;
  const char* name;
  View* gradient;

  // Writes the gradient to this tensor, of the same shape.
  void receive(PyObject* into) const;
};

// Sizes and views of every tensor of real numbers that is given, each checked against the others; in the order of
// LossInputs.values(). The results point into `tensors`.
std::vector<Real> read_reals(const LossObjects& objects, LossTensors& tensors);

// Lengths and flags, after the real numbers; those of the steps are the frames' own where they are None. `beyond`: what
// becomes of a length outside its axis.
void read_vectors(const LossObjects& objects, Beyond beyond, LossTensors& tensors);

// What moves on from call to call: see StepState in ttsfast/terms/spec.py, whose order the tuple has. Or a pair of weights
// of all terms and step, from a caller whose state is none of this extension's and whose lengths may lie outside their axes.
struct State {
  AdaptiveState adaptive;
  View weights;  // given as they are, instead of the factors above
  const float* schedule = nullptr;
  std::int64_t* noise_step = nullptr;
  bool advance = false;

  // Weight of a term, rounded as the reference rounds.
  double weight(int term, const LossOptions& options, bool wide) const;

  // The averages, factors and counters of the next call.
  void move_on(const LossOptions& options, const double* values, const double* floors, int terms, bool wide) const;
};

State read_state(PyObject* object);

// None, a number or the four of Counts.
Normalizer read_normalizer(PyObject* object);

// What arrives in backward has the total's type, so what is compared with it must be rounded alike.
inline double rounded(double scale, bool wide) { return wide ? scale : static_cast<double>(static_cast<float>(scale)); }

}  // namespace ttsfast
