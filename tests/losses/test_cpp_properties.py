"""Random shapes, options and lengths: the C++ backend against the reference; bad calls refused in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cpp_checks import MISSING, WHY_MISSING, assert_accurate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loss_checks import make_batch, make_loss

from ttsfast.losses.extension import plan_of
from ttsfast.terms.spec import LossInputs
from ttsfast.terms.state import StepState

pytestmark = pytest.mark.skipif(MISSING, reason=WHY_MISSING)

SHAPES = st.fixed_dictionaries(
    {
        "lengths": st.lists(st.integers(0, 40), min_size=1, max_size=4),
        "bins": st.integers(1, 130),
        "latents": st.integers(1, 70),
        "heads": st.sampled_from([None, 1, 2]),
        "per_frame": st.booleans(),
        "pair": st.booleans(),
        "prior": st.booleans(),
        "reduction": st.integers(1, 3),
        "tail": st.integers(0, 9),
        "seed": st.integers(0, 1000),
    }
)
OPTIONS = st.fixed_dictionaries(
    {
        "mel_loss": st.sampled_from(["huber", "l1", "mse"]),
        "huber_delta": st.floats(0.01, 10),
        "mel_smoothing": st.sampled_from(["none", "mean", "noise"]),
        "mel_label_smoothing": st.floats(0, 1),
        "normalization": st.sampled_from(["frame", "utterance"]),
        "kl_normalization": st.sampled_from(["elbo", "vector"]),
        "kl_free_bits": st.sampled_from([0.0, 0.5, 20.0]),
        "stop_label_smoothing": st.sampled_from([0.0, 0.06, 1.0]),
        "stop_pos_weight": st.floats(0.1, 10),
        "stop_tail_frames": st.integers(0, 12),
        "attention_sigma": st.floats(0.05, 2),
        "kl_weight": st.sampled_from([0.0, 1.8]),
        "seed": st.integers(-5, 2**40),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shape=SHAPES, options=OPTIONS, dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_any_call(shape: dict[str, Any], options: dict[str, Any], dtype: torch.dtype) -> None:
    lengths = shape.pop("lengths")
    text = [1 + (7 * n) % 6 for n in lengths]
    batch = make_batch(lengths, text, dtype=dtype, frames=max(lengths) + shape["tail"], **shape)
    batch["mel_target"].requires_grad_(shape["seed"] % 2 == 0)
    if shape["seed"] % 3 == 0:
        batch["truncated"] = torch.arange(len(lengths)) % 2 == 0
    assert_accurate(batch, **options)


def arguments() -> dict[str, Any]:
    """A good call of the extension: the parts of its inputs, its state and its other arguments."""
    batch = make_batch([5, 3], [2, 2], dtype=torch.float32, per_frame=True, heads=2)
    empty = dict.fromkeys(("step_lengths", "truncated", "mel_mean", "mel_std", "prior", "alignment"))
    parts = {**empty, **batch}
    names = {"mel": "mel_pred", "target": "mel_target"}
    inputs = {field: parts[names.get(field, field)] for field in LossInputs._fields}
    loss = make_loss(weighting="dwa")
    state = {name: getattr(loss.adaptive, name) for name in StepState._fields if hasattr(loss.adaptive, name)}
    state |= {"schedule": loss.schedule, "noise_step": loss.noise_step, "advance": True}
    call = {
        "normalizer": None,
        "scale": 1.0,
        "wanted": True,
        "allocate": torch.empty_like,
        "threads": 1,
        "isa": 0,
    }
    return {**inputs, **state, **call}


def call(given: dict[str, Any]) -> Any:
    arguments = dict(given)
    inputs = LossInputs(**{field: arguments.pop(field) for field in LossInputs._fields})
    state: Any = StepState(**{field: arguments.pop(field) for field in StepState._fields})
    inputs, state = arguments.pop("inputs", inputs), arguments.pop("state", state)
    return plan_of(make_loss().spec).call(inputs, state, **arguments)


def narrow(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(1, *tensor.shape[1:])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("target", torch.zeros(2, 13), r"mel_target: expected \(B, T, C\)"),
        ("target", torch.zeros(2, 13, 0), "no bins"),
        ("target", torch.zeros(2, 13, 5, dtype=torch.int32), "floating-point"),
        ("target", torch.zeros(2, 13, 5, dtype=torch.complex64), "mel_target: unknown type"),
        ("target", torch.zeros(1, 1, 1, 1, 1), "mel_target: expected at most 4 axes"),
        ("target", torch.zeros(2, 13, 5, device="meta"), "meta"),
        ("target", (64, 0, (2, 13, 5), (65, 5, 1)), "not a plain tensor"),
        ("target", None, "not a plain tensor"),
        ("mel", (), "an empty sequence"),
        ("attention", (), "an empty sequence"),
        ("mel", (torch.zeros(2, 13, 5),) * 3, "mel_pred: expected one prediction or a pair"),
        ("mel", torch.zeros(2, 13, 6), r"mel_pred: expected shape \(2, 13, 5\), found \(2, 13, 6\)"),
        ("posterior", (torch.zeros(2, 12, 3),) * 2, "posterior: expected shape"),
        ("posterior", 3, "not a pair"),
        ("prior", (torch.zeros(2, 13, 4),) * 2, "posterior: expected shape|prior: expected shape"),
        ("stop_logits", torch.zeros(3, 13), "stop_logits: expected shape"),
        ("stop_logits", torch.zeros(2, 12), "fewer steps than frames"),
        ("attention", (torch.zeros(2, 2, 13, 2), torch.zeros(2, 2, 13, 3)), "attention: expected shape"),
        ("attention", None, "attention or text_lengths alone"),
        ("text_lengths", None, "attention or text_lengths alone"),
        ("mel_lengths", torch.zeros(2), "mel_lengths: expected an integer"),
        ("mel_lengths", torch.zeros(3, dtype=torch.int64), "mel_lengths: expected shape"),
        ("mel_lengths", torch.tensor([5, 14]), "mel_lengths: out of range"),
        ("mel_lengths", torch.tensor([5, -1]), "mel_lengths: out of range"),
        ("truncated", torch.zeros(2, dtype=torch.int64), "truncated: expected a boolean"),
        ("mel_mean", torch.zeros(4), "mel_mean: expected shape"),
        ("alignment", (torch.zeros(2, 13, 2), None, None), "alignment: computed beside this call"),
        ("inputs", (None,) * 12, "inputs: expected a tuple of 13"),
        ("state", (0,) * 9, "state: expected a tuple of 10"),
        ("state", (torch.ones(3), torch.tensor(0)), "weights: expected shape"),
        ("state", (torch.ones(6).long(), torch.tensor(0)), "weights: expected a floating-point"),
        ("state", (torch.ones(6), torch.tensor(0.0)), "state: expected adjacent"),
        ("method", "origin", "state: unknown weighting"),
        ("method", 1, "state: unknown weighting"),
        ("factors", torch.ones(12)[::2], "state: expected adjacent"),
        ("observations", torch.tensor(0.0), "state: expected adjacent"),
        ("normalizer", (1.0, 2.0), "normalizer: expected a tuple of 4"),
        ("normalizer", "text", "real number"),
        ("wanted", [True], "wanted: expected a flag"),
        ("allocate", narrow, "mel_pred gradient: expected shape"),
        ("isa", 7, "instruction set"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("wide", [False, True])
def test_bad_calls_are_refused_before_memory_is_touched(
    name: str, value: Any, message: str, wide: bool
) -> None:
    good = arguments()
    if wide:
        good["mel"] = good["mel"].detach().double().requires_grad_()
    (total, *_), written = call(good)
    assert total.isfinite()
    assert len(written.gradients) == 5
    assert good["noise_step"] == 1
    state = {field: good[field].clone() for field in StepState._fields[1:-1]}
    with pytest.raises(ValueError, match=message):
        call({**good, name: value})
    assert all(torch.equal(good[field], before) for field, before in state.items())


def test_a_compiled_graph_has_its_lengths_clamped_and_chooses_its_gradients() -> None:
    good = arguments()
    state = torch.tensor(make_loss().spec.base_weights), torch.tensor(0)
    reals = ["mel", "target", "posterior", "posterior", "stop_logits", "attention"]
    wanted = [name == "stop_logits" for name in reals]
    results, written = call({**good, "state": state, "wanted": wanted, "mel_lengths": torch.tensor([5, 99])})
    right, _ = call({**good, "state": state, "wanted": False, "mel_lengths": torch.tensor([5, 13])})
    assert torch.equal(results[0], right[0])
    assert [gradient.shape for gradient in written.gradients] == [good["stop_logits"].shape]
    assert results[-1] == (good["stop_logits"],)
    assert torch.equal(results[3], state[0][:4])
