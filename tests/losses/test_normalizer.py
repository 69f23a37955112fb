"""Accumulation and ranks: the parts of a batch add up to the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_checks import assert_close, gradients, make_batch, make_loss
from torch import Tensor

from ttsfast.terms.counts import Counts, sum_counts

LENGTHS, TEXT = [9, 2, 0, 7, 5], [4, 3, 2, 4, 1]
CUTS = [slice(0, 2), slice(2, 3), slice(3, 5)]


def cut(batch: dict[str, Any], rows: slice) -> dict[str, Any]:
    def part(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[rows].detach().requires_grad_(value.requires_grad)
        return tuple(part(item) for item in value)

    return {name: part(value) for name, value in batch.items()}


def whole_batch(**shape: Any) -> dict[str, Any]:
    batch = make_batch(LENGTHS, TEXT, frames=24, **shape)
    batch["truncated"] = torch.tensor([False, True, False, False, False])
    return batch


@pytest.mark.parametrize("normalization", ["frame", "utterance"])
@pytest.mark.parametrize("kl_normalization", ["elbo", "vector"])
@pytest.mark.parametrize("shape", [{}, {"per_frame": True, "heads": 2, "pair": True}, {"reduction": 3}])
def test_parts_add_up(normalization: str, kl_normalization: str, shape: dict[str, Any]) -> None:
    batch = whole_batch(**shape)
    loss = make_loss(normalization=normalization, kl_normalization=kl_normalization, kl_free_bits=0.5)
    whole, expected = loss(**batch), gradients(loss, batch)
    parts = [cut(batch, rows) for rows in CUTS]
    counts = sum_counts(
        loss.counts(
            part["mel_lengths"],
            part.get("step_lengths"),
            part["truncated"],
            steps=part["stop_logits"].shape[1],
        )
        for part in parts
    )
    outs = [loss(**part, normalizer=counts) for part in parts]
    assert_close(sum(out.total.detach() for out in outs), whole.total.detach())
    assert_close(sum(out.values for out in outs), whole.values)
    assert_close(sum(out.floor_values for out in outs), whole.floor_values)
    assert sum(out.frames for out in outs) == whole.frames
    pieces = [gradients(loss, part, normalizer=counts) for part in parts]
    for name, grad in expected.items():
        assert_close(torch.cat([piece[name] for piece in pieces]), grad)


def test_plain_means_do_not_add_up() -> None:
    batch = whole_batch()
    loss = make_loss()
    outs = [loss(**cut(batch, rows)) for rows in CUTS]
    assert abs(float(sum(out.mel for out in outs) / 3 - loss(**batch).mel)) > 1e-3


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("normalization", ["frame", "utterance"])
def test_scalar_normalizer(normalization: str, as_tensor: bool) -> None:
    batch = whole_batch()
    loss = make_loss(normalization=normalization, stop_tail_frames=0)
    number = float(sum(LENGTHS)) if normalization == "frame" else 4.0
    normalizer = torch.tensor(number) if as_tensor else number
    outs = [loss(**cut(batch, rows), normalizer=normalizer) for rows in CUTS]
    assert_close(sum(out.values for out in outs), loss(**batch).values)


def test_counts_default_to_room_for_every_tail() -> None:
    loss = make_loss(stop_tail_frames=8)
    lengths = torch.tensor([5, 0, 250], dtype=torch.uint8)
    truncated = torch.tensor([False, False, True])
    assert [int(n) for n in loss.counts(lengths, None, truncated)] == [255, 263, 255, 2]
    assert [int(n) for n in loss.counts(lengths, steps=252)] == [255, 265, 255, 2]
    steps = torch.tensor([3, 0, 125])
    assert [int(n) for n in loss.counts(lengths, steps)] == [255, 144, 128, 2]


def test_counts_are_at_least_one() -> None:
    batch = make_batch([4, 3], [2, 2])
    out = make_loss()(**batch, normalizer=Counts(0, 0, 0, 0))
    assert_close(out.mel, make_loss()(**batch).mel * 7)


@pytest.mark.parametrize(
    ("normalizer", "error"), [((1, 2, 3), ValueError), ("7", TypeError), (torch.ones(2), ValueError)]
)
def test_wrong_normalizer(normalizer: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="normalizer"):
        make_loss()(**make_batch([4, 3], [2, 2]), normalizer=normalizer)
