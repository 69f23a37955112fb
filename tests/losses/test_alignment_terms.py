"""The terms of a learned alignment: what they are, on every backend, and that they share out as others do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from alignment_cases import BACKENDS, backends
from interpreter import INTERPRETED
from loss_checks import assert_close, gradients, leaves, make_batch, make_loss
from torch import Tensor
from torch.nn import functional as F

from ttsfast.functional import beta_binomial_prior, forward_sum_loss, monotonic_alignment
from ttsfast.losses.module import TTSLoss
from ttsfast.terms.counts import sum_counts

LENGTHS, TEXT = [10, 5, 0, 13, 6], [4, 3, 0, 2, 4]
"""In frames; in steps the last but one is long, and the last has fewer than symbols."""
fused_or_not = pytest.mark.parametrize("backend", [] if INTERPRETED else BACKENDS)
compiled_only = pytest.mark.skipif(INTERPRETED, reason="takes the interpreter long")
WEIGHTS = {"alignment_weight": 0.75, "binarization_weight": 0.5}


def aligned(reduction: int = 2, dtype: torch.dtype = torch.float64, **shape: Any) -> dict[str, Any]:
    """A batch with an alignment; what lies in the padding is NaN."""
    batch = make_batch(LENGTHS, TEXT, frames=24, symbols=5, reduction=reduction, dtype=dtype, **shape)
    steps = batch.setdefault("step_lengths", batch["mel_lengths"])
    text = batch["text_lengths"]
    draw = torch.Generator().manual_seed(7)
    scores = torch.randn(len(TEXT), 24 // reduction, 5, generator=draw, dtype=torch.float64).to(dtype)
    path = monotonic_alignment(scores, text, steps, backend="torch")
    valid = torch.arange(scores.shape[1])[:, None] < steps[:, None, None]
    valid = valid & (torch.arange(5) < text[:, None, None])
    prior = beta_binomial_prior(text, steps, frames=scores.shape[1], symbols=5)
    batch |= {
        "alignment_log_probs": torch.where(valid, scores, torch.nan).requires_grad_(),
        "alignment_prior": torch.where(valid, prior, torch.nan).to(dtype),
        "alignment_path": path,
    }
    return batch


def by_hand(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Both terms utterance by utterance: CTC as RAD-TTS calls it, and FastPitch's BinLoss."""
    ctc, nats, steps = [], [], 0
    for row, prior, durations, long, wide in zip(
        batch["alignment_log_probs"],
        batch["alignment_prior"],
        batch["alignment_path"],
        batch["step_lengths"].tolist(),
        batch["text_lengths"].tolist(),
        strict=True,
    ):
        if long == 0:
            continue
        scores = row[:long, :wide] + prior[:long, :wide]
        rows = F.pad(scores, (1, 0), value=-1.0).log_softmax(1).unsqueeze(1)
        given = torch.arange(1, wide + 1)[None], torch.tensor([long]), torch.tensor([wide])
        ctc.append(F.ctc_loss(rows, *given, zero_infinity=True))
        spoken = torch.arange(5).repeat_interleave(durations)
        nats.append(-scores.softmax(1)[torch.arange(len(spoken)), spoken].log().sum())
        steps += long
    return torch.stack(ctc).mean(), torch.stack(nats).sum() / steps


@compiled_only
def test_they_are_those_of_the_papers() -> None:
    batch = aligned()
    out = make_loss(**WEIGHTS, backend="torch")(**batch)
    alignment, binarization = by_hand(batch)
    assert_close(out.alignment, alignment)
    assert_close(out.binarization, binarization)
    assert out.unalignable == 1
    assert out.weights["alignment"] == 0.75
    assert out.floors["binarization"] == 0
    leaf = batch["alignment_log_probs"]
    expected = torch.autograd.grad(0.75 * alignment + 0.5 * binarization, leaf)[0].nan_to_num(0.0)
    assert_close(gradients(make_loss(**WEIGHTS), batch)["alignment_log_probs.0"], expected)
    alone = {**batch, "alignment_log_probs": batch["alignment_log_probs"] + batch["alignment_prior"]}
    assert_close(make_loss(**WEIGHTS)(**{**alone, "alignment_prior": None}).values, out.values)


@backends
@pytest.mark.parametrize("normalization", ["frame"] if INTERPRETED else ["frame", "utterance"])
@pytest.mark.parametrize("weighting", ["dwa"] if INTERPRETED else ["dwa", "uncertainty"])
@pytest.mark.parametrize("dtype", [torch.float32] if INTERPRETED else [torch.float32, torch.float64])
def test_as_the_reference(backend: str, normalization: str, weighting: str, dtype: torch.dtype) -> None:
    """Values, gradients, and the weights that follow: of the call, and of its figures as sums."""
    options = {**WEIGHTS, "normalization": normalization, "weighting": weighting, "mel_smoothing": "noise"}
    ours, truth, summed = (make_loss(**options, backend=name) for name in (backend, "torch", backend))
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    for step in range(1 if INTERPRETED else 3):
        outs, batches = [], []
        for loss in (ours, truth):
            batch = aligned(dtype=dtype, seed=step)
            normalizer = loss.counts(batch["mel_lengths"] * 2) if step else None
            outs.append(loss(**batch, normalizer=normalizer, grad_scale=3.0))
            outs[-1].total.backward()
            batches.append(leaves(batch))
        found, expected = outs
        assert_close(found.values, expected.values, rtol=tolerance, atol=tolerance)
        assert_close(found.total.detach(), expected.total.detach(), rtol=tolerance)
        assert found.present == expected.present == (True,) * 6
        assert found.unalignable == expected.unalignable == 1
        for name, leaf in batches[1].items():
            assert_close(batches[0][name].grad, leaf.grad, rtol=tolerance, atol=tolerance)
        summed.update_weights(expected.values.float(), expected.floor_values.float())
    assert (truth.adaptive.factors[4:] != 1).all() or INTERPRETED
    assert ours.noise_step == truth.noise_step
    for name, expected in truth.adaptive.named_buffers():
        for loss in (ours, summed):
            found = dict(loss.adaptive.named_buffers())[name]
            torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-6)


@compiled_only
@pytest.mark.parametrize("normalization", ["frame", "utterance"])
def test_parts_add_up(normalization: str) -> None:
    batch = aligned()
    loss = make_loss(**WEIGHTS, normalization=normalization, backend=BACKENDS[0])
    whole, expected = loss(**batch), gradients(loss, batch)["alignment_log_probs.0"]
    parts = [{name: cut(value, rows) for name, value in batch.items()} for rows in (slice(0, 2), slice(2, 5))]
    counts = sum_counts(loss.counts(part["mel_lengths"], part["step_lengths"], steps=12) for part in parts)
    outs = [loss(**part, normalizer=counts) for part in parts]
    assert_close(outs[0].values + outs[1].values, whole.values)
    assert_close(outs[0].total.detach() + outs[1].total.detach(), whole.total.detach())
    assert outs[0].unalignable + outs[1].unalignable == whole.unalignable
    pieces = [gradients(loss, part, normalizer=counts)["alignment_log_probs.0"] for part in parts]
    assert_close(torch.cat(pieces), expected)


def cut(value: Any, rows: slice) -> Any:
    if isinstance(value, tuple):
        return tuple(cut(part, rows) for part in value)
    return value[rows].detach().requires_grad_(value.requires_grad)


@fused_or_not
def test_a_path_may_be_given_as_a_path(backend: str) -> None:
    batch = aligned(reduction=1)
    durations, path = monotonic_alignment(
        batch["alignment_log_probs"], batch["text_lengths"], batch["mel_lengths"], return_path=True
    )
    loss = make_loss(**WEIGHTS, backend=backend)
    outs = [loss(**{**batch, "alignment_path": given}).binarization for given in (durations, path)]
    assert_close(outs[0], outs[1])


@fused_or_not
def test_weight_0_reports_and_teaches_nothing(backend: str) -> None:
    batch = aligned()
    for off in WEIGHTS:
        options = {**WEIGHTS, off: 0.0}
        out = make_loss(**options, backend=backend)(**batch)
        full = make_loss(**WEIGHTS, backend=backend)(**batch)
        assert_close(out.values, full.values)
        assert out.total < full.total
    batch["alignment_path"] = None
    out = make_loss(alignment_weight=1.0, backend=backend)(**batch)
    assert out.binarization is None
    assert out.present[4:] == (True, False)
    silent = gradients(make_loss(backend=backend), batch)
    assert not silent["alignment_log_probs.0"].any()


@pytest.mark.slow
@pytest.mark.skipif(BACKENDS[0] != "cpp", reason="of the C++ backend in a compiled graph")
def test_in_a_compiled_graph() -> None:
    batch = aligned(dtype=torch.float32)
    eager, loss = make_loss(**WEIGHTS), make_loss(**WEIGHTS)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    out, expected = compiled(**batch), eager(**batch)
    assert_close(out.values, expected.values, rtol=1e-6)
    found = torch.autograd.grad(out.total, batch["alignment_log_probs"])[0]
    assert_close(found, gradients(eager, batch)["alignment_log_probs.0"], rtol=1e-5, atol=1e-7)


@compiled_only
def test_nothing_is_read_back_from_the_device() -> None:
    """Meta tensors hold no values, so any step that waits for one raises."""
    batch = aligned()
    on_meta = {
        name: tuple(v.detach().to("meta") for v in value)
        if isinstance(value, tuple)
        else value.detach().to("meta").requires_grad_(value.requires_grad)
        for name, value in batch.items()
    }
    loss = make_loss(**WEIGHTS, weighting="dwa").to("meta")
    out = loss(**on_meta)
    out.total.backward()
    assert out.clamped is not None
    assert on_meta["alignment_log_probs"].grad.shape == batch["alignment_log_probs"].shape


def test_no_symbols_and_no_steps() -> None:
    batch = aligned()
    for log_probs in (torch.zeros(5, 12, 0), torch.zeros(5, 0, 5)):
        small = {**batch, "alignment_log_probs": log_probs.requires_grad_(), "alignment_prior": None}
        small |= {"stop_logits": None, "attention": None, "step_lengths": torch.zeros(5).long()}
        small |= {
            "text_lengths": torch.zeros(5).long(),
            "alignment_path": torch.zeros(5, log_probs.shape[2]).long(),
        }
        loss = make_loss(**WEIGHTS, stop_weight=0, attention_weight=0)
        out = loss(**small)
        assert out.alignment == out.binarization == 0
        out.total.backward()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"alignment_log_probs": None}, ValueError, "alignment_prior is given without alignment_log_probs"),
        (
            {"alignment_log_probs": None, "alignment_prior": None},
            ValueError,
            "alignment_path is given without alignment_log_probs",
        ),
        (
            {"alignment_log_probs": None, "alignment_prior": None, "alignment_path": None},
            ValueError,
            "alignment_log_probs is missing while alignment_weight is 0.75: pass it, or",
        ),
        ({"alignment_path": None}, ValueError, "alignment_path is missing while binarization_weight is 0.5"),
        ({"alignment_log_probs": torch.ones(5, 12)}, ValueError, r"must have shape \(5, S, N\)"),
        ({"alignment_prior": torch.ones(5, 12, 4)}, ValueError, r"shape \(5, 12, 5\), got \(5, 12, 4\)"),
        ({"alignment_path": torch.ones(5, 12, 5)}, TypeError, r"integer durations \(5, 5\) or a"),
        ({"alignment_path": torch.ones(5, 12).long()}, ValueError, r"have shape \(5, 5\), got \(5, 12\)"),
        ({"alignment_path": torch.ones(5, 5).bool()}, ValueError, r"must have shape \(5, 12, 5\)"),
        ({"text_lengths": None, "attention": None}, ValueError, "alignment_log_probs needs text_lengths"),
        (
            {"step_lengths": None, "attention": None, "stop_logits": None},
            ValueError,
            "alignment_log_probs has 12 steps for 24 mel frames: pass step_lengths",
        ),
        (
            {"text_lengths": torch.tensor([4, 3, 0, 2, 6]), "attention": None},
            ValueError,
            r"text_lengths\[4\] is 6, outside 0..5, the size of alignment_log_probs's axis N",
        ),
    ],
)  # fmt: skip
def test_bad_calls(change: dict[str, Any], error: type[Exception], message: str) -> None:
    off = {f"{term}_weight": 0.0 for term in ("stop", "attention")}
    loss = make_loss(**WEIGHTS, **off, weighting="dwa")
    with pytest.raises(error, match=message) as caught:
        loss(**{**aligned(), **change})
    assert "\n" not in str(caught.value)
    assert loss.noise_step == 0, "a rejected call changes no state"


def test_without_them_no_state_moves_for_them() -> None:
    loss = TTSLoss(weighting="dwa")
    batch = make_batch([6, 3], [3, 2])
    out = loss(**batch)
    assert out.values.shape == (4,)
    assert out.alignment is out.unalignable is None
    assert loss.adaptive.fast.count_nonzero() == 4
    assert set(leaves(batch)) == set(gradients(loss, batch))
    assert forward_sum_loss(torch.ones(1, 3, 2), torch.tensor([2]), torch.tensor([3])) > 0
