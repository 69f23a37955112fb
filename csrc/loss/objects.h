// The tensors of one loss call: from Python objects to the views that the sweep reads and writes.
#pragma once

#include <string>
#include <vector>

#include "loss/adaptive.h"
#include "loss/losses.h"
#include "common/tensors.h"

namespace ttsfast {

// As the caller gave them, None where absent. Borrowed: the caller keeps the tensors alive.
struct LossObjects {
  PyObject* mel[2] = {Py_None, Py_None};
  PyObject* target = Py_None;
  PyObject* mean = Py_None;
  PyObject* deviation = Py_None;
  PyObject* posterior[2] = {Py_None, Py_None};
  PyObject* prior[2] = {Py_None, Py_None};
  PyObject* logits = Py_None;
  std::vector<PyObject*> layers;
  PyObject* mel_lengths = Py_None;
  PyObject* step_lengths = Py_None;
  PyObject* text_lengths = Py_None;
  PyObject* truncated = Py_None;
};

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
// LossInputs.values() in ttsfast/terms/spec.py. The results point into `tensors`.
std::vector<Real> read_reals(const LossObjects& objects, LossTensors& tensors);

// Lengths and flags, after the real numbers.
void read_vectors(const LossObjects& objects, Beyond beyond, LossTensors& tensors);

// What moves on from call to call: see StepState in ttsfast/terms/spec.py, whose order the tuple has.
struct State {
  bool given = false;
  AdaptiveState adaptive;
  const float* schedule = nullptr;
  std::int64_t* noise_step = nullptr;
  bool advance = false;

  // Weight of a term, rounded as the reference rounds.
  double weight(int term, double base, bool wide) const;

  // The averages, factors and counters of the next call.
  void move_on(const LossOptions& options, const LossValues& result, bool wide) const;
};

State read_state(PyObject* object);

// None, one number or four.
Normalizer read_normalizer(PyObject* object);

// What arrives in backward has the total's type, so what is compared with it must be rounded alike.
inline double rounded(double scale, bool wide) { return wide ? scale : static_cast<double>(static_cast<float>(scale)); }

}  // namespace ttsfast
