"""Monotonic alignment search: the best of all paths, the same one on every backend."""

from __future__ import annotations

import itertools

import pytest
import torch
from alignment_cases import BACKENDS, CASES, LAYOUTS, MIXED, Batch, backends, cases, make_batch, needs_cpp
from torch import Tensor

from ttsfast import native
from ttsfast.functional import monotonic_alignment


def durations_of(batch: Batch, backend: str, scores: Tensor | None = None) -> Tensor:
    found = monotonic_alignment(batch.scores if scores is None else scores, *batch.lengths(), backend=backend)
    assert isinstance(found, Tensor)
    return found


@backends
def test_no_path_is_better(backend: str) -> None:
    batch = make_batch([7, 6], [3, 3], seed=3)
    for row, frames, found in zip(batch.scores, (7, 6), durations_of(batch, backend).tolist(), strict=True):
        every = [d for d in itertools.product(range(1, frames), repeat=3) if sum(d) == frames]

        def total(durations: tuple[int, ...], row: Tensor = row) -> float:
            symbols = torch.arange(3).repeat_interleave(torch.tensor(durations))
            return float(row[torch.arange(len(symbols)), symbols].sum())

        assert tuple(found) == max(every, key=total)


@backends
@cases
@pytest.mark.parametrize("layout", LAYOUTS)
def test_as_the_reference_in_any_layout(name: str, layout: str, backend: str) -> None:
    batch = CASES[name]
    for dtype in (torch.float32, torch.float64):
        scores = batch.scores.to(dtype)
        expected = durations_of(batch, "torch", scores)
        assert torch.equal(durations_of(batch, backend, LAYOUTS[layout](scores)), expected)
        assert expected.sum(1).tolist() == [
            t if n and t >= n else 0 for n, t in zip(*(x.tolist() for x in batch.lengths()), strict=True)
        ]


@backends
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_added_up_in_single(dtype: torch.dtype, backend: str) -> None:
    scores = CASES["wide"].scores.to(dtype)
    expected = durations_of(CASES["wide"], "torch", scores.float())
    assert torch.equal(durations_of(CASES["wide"], backend, LAYOUTS["transposed"](scores)), expected)


@backends
def test_ties_are_broken_alike(backend: str) -> None:
    for seed in range(4):
        batch = make_batch([20, 17, 9], [6, 17, 4], seed=seed, ties=True)
        assert torch.equal(durations_of(batch, backend), durations_of(batch, "torch"))
    # Where all is equal the path stays, seen from the end.
    flat = Batch(torch.zeros(1, 6, 3), torch.tensor([3]), torch.tensor([6]))
    assert durations_of(flat, backend).tolist() == [[1, 1, 4]]


@backends
@pytest.mark.parametrize("value", [float("-inf"), float("inf"), float("nan")])
def test_whatever_valid_scores_hold(value: float, backend: str) -> None:
    batch = make_batch([20, 17, 9, 19], [6, 17, 4, 18], seed=7)
    holes = torch.rand(batch.scores.shape, generator=torch.Generator().manual_seed(8)) < 0.3
    scores = torch.where(holes & batch.valid(), value, batch.scores)
    found = durations_of(batch, backend, scores)
    assert torch.equal(found, durations_of(batch, "torch", scores))
    assert found.sum(1).tolist() == [20, 17, 9, 19]
    assert (found > 0).sum(1).tolist() == [6, 17, 4, 18]


@backends
def test_the_path(backend: str) -> None:
    found = monotonic_alignment(MIXED.scores, *MIXED.lengths(), return_path=True, backend=backend)
    durations, path = found
    assert path.dtype == torch.bool
    assert torch.equal(path.sum(1), durations)
    reached = (MIXED.mel_lengths >= MIXED.text_lengths) & (MIXED.text_lengths > 0)
    frames = torch.where(reached, MIXED.mel_lengths, 0)
    assert torch.equal(path.sum(2), (torch.arange(13) < frames[:, None]).long())
    at = path.long().argmax(2)[0, :12]
    assert at.tolist() == sorted(at.tolist())


@backends
@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3), (2, 4, 0)])
def test_nothing_to_align(shape: tuple[int, int, int], backend: str) -> None:
    none = torch.zeros(shape[0], dtype=torch.int64)
    found = monotonic_alignment(torch.randn(shape), none, none, backend=backend)
    assert isinstance(found, Tensor)
    assert found.shape == (shape[0], shape[2])
    assert not found.any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_lengths_of_any_integer_type(dtype: torch.dtype) -> None:
    lengths = [length.to(dtype) for length in MIXED.lengths()]
    found = monotonic_alignment(MIXED.scores, *lengths, backend=BACKENDS[0])
    assert isinstance(found, Tensor)
    assert torch.equal(found, durations_of(MIXED, "torch"))


def test_scores_may_require_a_gradient() -> None:
    scores = MIXED.scores.clone().requires_grad_()
    assert not durations_of(MIXED, BACKENDS[0], scores).requires_grad


@needs_cpp
def test_any_threads_and_instructions_find_the_same() -> None:
    core = native.with_torch()
    for name, batch in CASES.items():
        for scores in (batch.scores, batch.scores.float()):
            expected = durations_of(batch, "torch", scores)
            for isa, supported in (("baseline", 1), ("avx2", 2), ("avx512", 3)):
                if not core.loss_supports(supported):
                    continue
                found = torch.full_like(expected, -1)
                core.monotonic_alignment(scores, *batch.lengths(), found, 2, isa)
                assert torch.equal(found, expected), (name, isa)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scores": torch.zeros(8, 13)}, ValueError, r"scores must have shape \(B, T, N\)"),
        ({"scores": torch.zeros(8, 13, 10).long()}, TypeError, "scores must hold float16"),
        ({"mel_lengths": torch.full((8,), 14)}, ValueError, r"mel_lengths\[0\] is 14, outside 0\.\.13"),
        ({"text_lengths": torch.full((8,), -1)}, ValueError, r"text_lengths\[0\] is -1, outside 0\.\.10"),
        ({"text_lengths": torch.ones(8)}, TypeError, "text_lengths must be an integer tensor"),
        ({"backend": "fast"}, ValueError, "backend must be one of auto, torch, cpp, triton"),
    ],
)
def test_bad_arguments(change: dict[str, object], error: type[Exception], message: str) -> None:
    given = {"scores": MIXED.scores, "text_lengths": MIXED.text_lengths, "mel_lengths": MIXED.mel_lengths}
    with pytest.raises(error, match=message):
        monotonic_alignment(**{**given, **change})  # type: ignore[arg-type]


def test_a_backend_by_name_never_falls_back() -> None:
    meta = torch.zeros(1, 2, 2, device="meta")
    lengths = torch.ones(1, dtype=torch.int64, device="meta")
    with pytest.raises(RuntimeError, match="alignment backend 'cpp' cannot serve this call"):
        monotonic_alignment(meta, lengths, lengths, backend="cpp")
