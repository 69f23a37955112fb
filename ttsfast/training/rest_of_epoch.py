"""A run that goes on with other batches, or a grown store, in the midst of an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ttsfast.config import config_from_dict
from ttsfast.data.loading.plan import BatchPlan
from ttsfast.data.loading.plan_loader import select
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError
from ttsfast.models.checkpoint import Checkpoint
from ttsfast.progress import console
from ttsfast.training.setup import padding_of, plan_batches


def resumed_place(
    checkpoint: Checkpoint, store: Store, utterances: int, now: BatchPlan, reduction_factor: int
) -> dict[str, Any]:
    """Where the loader of the plan ``now`` goes on from a checkpoint.

    Args:
        checkpoint: of the run.
        store: that the run goes on with.
        utterances: how many it had, the first ones, when the checkpoint was written.
        now: the training batches that the run goes on with.
        reduction_factor: frames per decoder step.

    Raises:
        InputError: as :func:`rest_of_epoch` does.
    """
    config = config_from_dict(checkpoint.state["config"])
    data, ranks = config.data, checkpoint.state["ranks"]
    indices, _ = select(store, "train", data.max_mel_frames, data.max_text_length)
    padding, balance = padding_of(config, reduction_factor), data.speaker_balance
    before = plan_batches(config, store, indices[indices < utterances], padding, balance, 0, ranks)
    place: dict[str, Any] = checkpoint.state["components"]["loader"]
    found = rest_of_epoch(place, before, now)
    if found != place:
        left = len(found.get("left", []))
        console.print(
            f"the {left} utterances that are left of epoch {place['epoch']} are put into batches anew",
            markup=False,
        )
    return found


def rest_of_epoch(place: Mapping[str, Any], before: BatchPlan, now: BatchPlan) -> dict[str, Any]:
    """Where the loader of the plan ``now`` goes on, so that the epoch holds each utterance once.

    Args:
        place: the state of the loader so far.
        before: its plan.
        now: the plan to go on with.

    Returns:
        ``place``, where both plans have the same batches in that epoch; else the beginning of an epoch of the
        utterances that were not drawn yet, or of the next where there are none.

    Raises:
        InputError: speakers are balanced, so that an epoch does not hold each utterance once.
    """
    epoch, position = place["epoch"], place["position"]
    before.leave(epoch, place.get("left"))
    batches = before.global_epoch(epoch)
    now.leave(epoch, place.get("left"))
    if _same(batches, now.global_epoch(epoch)):
        return dict(place)
    now.leave(epoch, None)
    if position == 0 and "left" not in place:
        return dict(place)
    if before.balanced or now.balanced:
        raise InputError(
            f"it stopped after {position} of the {len(batches)} batches of an epoch; with these settings, or "
            "this store, the rest would be others, and under data.speaker_balance no epoch is taken up "
            "elsewhere: leave the store, the data section and training.seed as they were"
        )
    drawn = np.concatenate([np.zeros(0, np.int64), *batches[:position]])
    if "left" in place:
        # What was drawn before that is not among them.
        drawn = np.concatenate([drawn, np.setdiff1d(before.indices, place["left"])])
    left = np.setdiff1d(now.indices, drawn)
    if not len(left):
        return {"epoch": epoch + 1, "position": 0}
    return {"epoch": epoch, "position": 0, "left": left.tolist()}


def _same(batches: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return len(batches) == len(others) and all(map(np.array_equal, batches, others))
