"""``training.start_from``: a new run that begins with the weights of a voice that there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from ttsfast.config import NONE, TrainingConfig, config_from_dict
from ttsfast.errors import InputError
from ttsfast.models.build import require_trust
from ttsfast.models.checkpoint import checkpoints, find_checkpoint, load_checkpoint, read_state
from ttsfast.models.transfer import Transfer, transfer
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.options import Values
from ttsfast.progress import console
from ttsfast.training.distributed.process_group import ProcessGroup

SHOWN = 12
"""Names and symbols that a line lists at most."""


def model_of(place: Path, given: Values, *, trust_code: bool) -> Values:
    """The ``model`` section of the voice at ``place``, whose weights fit no other.

    Args:
        place: a run folder, of which the best checkpoint is meant, or a checkpoint.
        given: what the user set.
        trust_code: let the section name a module to import, which ``given`` does not name.

    Raises:
        InputError: no readable checkpoint, or a model of somebody's that was not said to be trusted.
    """
    path = find_checkpoint(place, prefer_best=True)
    model = config_from_dict(read_state(path).get("config") or {}).model
    if "architecture" not in given.get("model", {}):
        require_trust(model, path, trust_code=trust_code)
    return {"model": dict(vars(model))}


def language_of(place: Path) -> str:
    """That of the voice at ``place``; raises InputError where there is none, or a damaged one."""
    checkpoint = load_checkpoint(find_checkpoint(place, prefer_best=True))
    return VoiceInfo.from_dict(checkpoint.voice, str(checkpoint.path / "voice.json")).frontend.language


def start_from(
    training: TrainingConfig, model: nn.Module, voice: VoiceInfo, *, resume: bool, ranks: ProcessGroup
) -> None:
    """Give a new model the weights that ``training.start_from`` names, and say what was taken and what left.

    Nothing is done where none is named, or where a resumed run has a checkpoint to go on from.

    Raises:
        InputError: there is no voice, its mel contract is another, or none of its weights fit.
    """
    if training.start_from == NONE:
        return
    if resume and ranks.broadcast_object(bool(checkpoints(Path(training.run_folder)))):
        return
    checkpoint = load_checkpoint(find_checkpoint(Path(training.start_from), prefer_best=True))
    origin = VoiceInfo.from_dict(checkpoint.voice, str(checkpoint.path / "voice.json"))
    theirs, ours = origin.contract.to_dict(), voice.contract.to_dict()
    differing = [f"{key} {theirs[key]} there, {ours[key]} here" for key in ours if theirs[key] != ours[key]]
    if differing:
        raise InputError(
            f"{checkpoint.path}: its mels are others than the store's: {'; '.join(differing)}; prepare the "
            "corpus with --like and the store of that voice"
        )
    done = transfer(model, voice, checkpoint.weights, origin)
    if not done.taken:
        raise InputError(
            f"{checkpoint.path}: none of its weights fit this model; leave the model section as that voice "
            "has it"
        )
    said = _said(done, model, origin, voice)
    for line in (f"starting from {checkpoint.path} (step {checkpoint.step}):", *said):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _said(done: Transfer, model: nn.Module, origin: VoiceInfo, voice: VoiceInfo) -> list[str]:
    """What was taken and what left, a line each."""
    sizes = {name: value.numel() for name, value in model.state_dict().items()}
    got = sum(sizes.get(name, 0) for name in done.taken)
    lines = [f"  {got:,} of {sum(sizes.values()):,} numbers taken"]
    if done.new:
        lines.append(f"  begin anew: {_few(done.new)}")
    if done.left:
        lines.append(f"  left there: {_few(done.left)}")
    if done.nearest:
        begun = [f"{new!r} as {shown!r}" for new, near in done.nearest.items() if (shown := near[:SHOWN])]
        lines.append(f"  {len(done.nearest)} new symbols begin as the mean of the nearest: {_few(begun)}")
    if done.dropped:
        lines.append(f"  {len(done.dropped)} symbols are not in this store: {done.dropped[: 4 * SHOWN]!r}")
    if origin.frontend != voice.frontend:
        lines.append(f"  its text was {origin.frontend.to_dict()}, this one's is {voice.frontend.to_dict()}")
    if done.speakers and voice.speakers != ("",):
        lines.append(f"  new speakers begin as the mean of its own: {_few(done.speakers)}")
    if not (
        np.array_equal(origin.mel_mean, voice.mel_mean) and np.array_equal(origin.mel_std, voice.mel_std)
    ):
        apart = float(np.abs((voice.mel_mean - origin.mel_mean) / origin.mel_std).max())
        line = f"  the store has statistics of its own, {apart:.1f} deviations from that voice's at most"
        if origin.frontend.language == voice.frontend.language:
            line += ": what it learnt is in other units; `ttsfast prepare --like` keeps them"
        lines.append(line)
    return lines


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
