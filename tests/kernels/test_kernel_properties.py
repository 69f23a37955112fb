"""Any shape with any options: the kernel agrees with float64."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import check, make_inputs, make_spec

SHAPES = st.fixed_dictionaries(
    {
        "lengths": st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple),
        "frames": st.integers(9, 12),
        "bins": st.integers(1, 9),
        "latents": st.integers(1, 9),
        "symbols": st.integers(1, 9),
        "reduction": st.integers(1, 4),
        "predictions": st.integers(1, 2),
        "per_frame": st.booleans(),
        "prior": st.booleans(),
        "heads": st.sampled_from([(0,), (2,), (1, 0)]),
        "statistics": st.booleans(),
    }
)
OPTIONS = st.fixed_dictionaries(
    {
        "mel_loss": st.sampled_from(["huber", "l1", "mse"]),
        "mel_smoothing": st.sampled_from(["none", "mean", "noise"]),
        "normalization": st.sampled_from(["frame", "utterance"]),
        "kl_normalization": st.sampled_from(["elbo", "vector"]),
        "kl_free_bits": st.sampled_from([0.0, 2.0]),
        "stop_label_smoothing": st.sampled_from([0.0, 0.125]),
        "stop_tail_frames": st.integers(0, 3),
        "huber_delta": st.sampled_from([0.25, 4.0]),
    }
)


# Few, and the same ones: each runs every program of the kernel in Python, or compiles it anew on a GPU.
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(shape=SHAPES, options=OPTIONS)
def test_any_shape_and_options(shape: dict[str, Any], options: dict[str, Any]) -> None:
    check(make_spec(**options), make_inputs(**shape))
