"""Random shapes, options and lengths: the C++ backend against the reference; bad calls refused in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cpp_checks import MISSING, WHY_MISSING, assert_accurate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loss_checks import make_batch, make_loss

from ttsfast import native
from ttsfast.losses import sweep
from ttsfast.losses.checks import check_inputs

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


def arguments() -> tuple[list[Any], list[torch.Tensor]]:
    """A good packed call, and what keeps its memory alive."""
    batch = make_batch([5, 3], [2, 2], dtype=torch.float32, per_frame=True, heads=2)
    loss = make_loss()
    empty = dict.fromkeys(("step_lengths", "truncated", "mel_mean", "mel_std", "prior"))
    calls: list[tuple[Any, ...]] = []

    class Recorder:
        def run(self, packed: tuple[Any, ...]) -> float:
            calls.append(packed)
            return 1.0

    inputs = check_inputs(**{**empty, **batch})
    weights = loss.current_weights()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "fused", lambda spec: Recorder())
        call = sweep.Sweep(loss.spec, inputs, weights, None, loss.noise_step)
        result = call.run([(("mel", 0), inputs.mel[0])], 1.0)
    return list(calls[0]), [
        *inputs.values(),
        weights,
        result.total,
        result.values,
        result.frames,
        *result.gradients,
    ]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (4, (0, 0, (2, 13, 5), (65, 5, 1)), "mel_target: no memory"),
        (4, (64, 0, (2, 13), (65, 5)), "mel_target: expected"),
        (4, (64, 0, (2, 13, 0), (65, 5, 1)), "no bins"),
        (4, (64, 5, (2, 13, 5), (65, 5, 1)), "floating-point"),
        (4, (64, 99, (2, 13, 5), (65, 5, 1)), "type code"),
        (4, (64, 0, (2, -1, 5), (65, 5, 1)), "negative size"),
        (4, (64, 0, (2, 13, 5), (65, 5)), "strides"),
        (2, (None, None), "mel_pred: missing"),
        (2, ((64, 0, (2, 13, 6), (78, 6, 1)), None), r"mel_pred: expected shape \(2, 13, 5\), found"),
        (3, ((64, 0, (2, 12, 5), (60, 5, 1)), None), "mel_pred gradient: expected shape"),
        (8, ((64, 0, (2, 12, 3), (36, 3, 1)),) * 2, "posterior: expected shape"),
        (8, 3, "posterior: expected a tuple of 2"),
        (12, (64, 0, (3, 13), (13, 1)), "stop_logits: expected shape"),
        (14, (), "as many gradients as layers"),
        (16, (64, 0, (2,), (1,)), "mel_lengths: expected an integer"),
        (16, (64, 8, (3,), (1,)), "mel_lengths: expected shape"),
        (20, (0,) * 9, "state: expected a tuple of 10"),
        (20, (4, *((64, 0, (4,), (1,)),) * 9), "state: unknown weighting"),
        (20, (1, *((64, 0, (4,), (2,)),) * 9), "state: expected adjacent"),
        (21, (64, 2, (4,), (1,)), "weights"),
        (23, (1.0, 2.0), "normalizer"),
        (25, (64, 1, (), ()), "total"),
        (26, (64, 0, (2, 4), (1, 2)), "term values"),
        (26, None, "term values: missing"),
        (27, (64, 7, (), ()), "frames"),
        (4, torch.zeros(1, 1, 1, 1, 1), "mel_target: expected at most 4 axes"),
        (4, torch.zeros(2, 13, 5, dtype=torch.complex64), "mel_target: unknown type"),
        (1, 7, "instruction set"),
    ],
)  # fmt: skip
def test_bad_calls_are_refused_before_memory_is_touched(place: int, value: Any, message: str) -> None:
    assert native.core is not None
    packed, alive = arguments()
    fused = sweep.fused(make_loss().spec)
    assert fused.run(tuple(packed)) == 1.0
    if isinstance(value, torch.Tensor) and not sweep.READS_TENSORS:
        pytest.skip("this torch has no interface for the extension to read tensors by itself")
    packed[place] = value
    with pytest.raises(ValueError, match=message):
        fused.run(tuple(packed))
    with pytest.raises(ValueError, match="arguments: expected a tuple"):
        fused.run(tuple(packed[:-1]))
    assert alive


@pytest.mark.parametrize(
    ("shape", "strides", "code"),
    [((0, 3), (3, 1), 0), ((2, 3), (4, 1), 0), ((2, 3), (3, 1), 4), ((2,), (3, 1), 0), ((2, 3), (-3, 1), 0)],
)
def test_recycled_memory_is_only_for_whole_tensors(shape: Any, strides: Any, code: int) -> None:
    assert native.core is not None
    with pytest.raises(ValueError, match="recycled"):
        native.core.recycled(shape, strides, code)
