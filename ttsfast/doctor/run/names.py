"""What other trainers call the figures that ours log: a table, and how a tag is looked up in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

HELD_OUT = "held out"
_SAID_HELD_OUT = ("val", "valid", "validation", "eval", "dev", "test", "evalstats", "val_ema")
_SAID_TRAINING = ("train", "training", "trainiterstats", "trainepochstats", "step", "g", "t")
_OF_ADVERSARIES = ("d", "d_r", "d_g", "disc", "discriminator")
"""Whose losses say nothing of speech."""

NAMES: dict[str, tuple[str, ...]] = {
    # Of ours, Tacotron 2 (NVIDIA), Coqui, ESPnet, FastPitch, ForwardTacotron, VITS and Piper.
    "total": (
        "total", "loss", "total_loss", "loss/g/total", "loss_gen_all", "loss_g", "loss_1", "generator_loss",
    ),
    "mel": (
        "mel", "mel_loss", "loss_mel", "loss/g/mel", "decoder_loss", "l1_loss", "generator_mel_loss",
        "postnet_loss", "loss_spec", "spec_loss",
    ),
    "kl": ("kl", "kl_loss", "loss_kl", "loss/g/kl", "generator_kl_loss"),
    "stop": ("stop", "stop_loss", "stopnet_loss", "gate_loss", "bce_loss"),
    "attention": (
        "attention", "guided_attention_loss", "ga_loss", "decoder_ga_loss", "attn_loss",
    ),
    "alignment": (
        "alignment", "loss_aligner", "aligner_loss", "align_loss", "forward_sum_loss",
        "generator_align_forwardsum_loss", "ctc_loss",
    ),
    "binarization": ("binarization",),
    "duration": (
        "duration_loss", "loss_duration", "loss/g/dur", "dur_loss", "generator_dur_loss",
        "duration_predictor_loss", "loss_dur", "generator_var_dur_loss",
    ),
    "mel_l1": ("mel_l1",),
    "excess_mel": ("excess_mel",),
    "spikes": ("spikes",),
    "skipped_updates": ("skipped_updates",),
    "diagonal_mass": ("diagonal_mass",),
    "coverage": ("coverage",),
    "duration_error": ("duration_error",),
    "stop_rate": ("stop_rate",),
    "learning_rate": (
        "learning_rate", "lr", "lrate", "current_lr", "current_lr_1", "current_lr_0", "optim0_lr0", "lr-adam",
        "lr-adamw", "lr-adamw/pg1", "lr-radam", "optimizer_lr", "learning.rate",
    ),
    "gradient_norm": (
        "gradient_norm", "grad_norm", "grad_norm_g", "grad_norm/g", "grad_norm_1", "grad.norm",
        "grad_norm_total", "grad_2.0_norm_total",
    ),
    "loss_scale": ("loss_scale", "amp_scaler", "scale"),
    "frames_per_second": ("frames_per_second", "frames/s"),
    "percent_data": ("percent_data", "loader_wait_percent"),
    "loader_seconds": ("loader_time", "iter_time", "data_time"),
    "step_seconds": ("step_time", "train_time"),
}  # fmt: skip
"""By our name, theirs: of several in one log, the first."""

_OURS = {theirs: ours for ours, all_theirs in NAMES.items() for theirs in all_theirs}
STEPS = ("step", "global_step", "steps", "iteration", "iter", "num_updates", "update", "trainer/global_step")
"""Columns that hold steps, the first that is there."""


@dataclass(frozen=True)
class Mapped:
    """Where the figures of a log went."""

    names: Mapping[str, tuple[str, bool]]
    """By the tag in the log: our name, and whether it is of held-out speech."""
    left: Sequence[str]
    """Tags that stand for nothing here, or for what another one of the log stands for."""

    def __str__(self) -> str:
        """For a person: what was taken for what, and what was not taken."""
        taken = ", ".join(
            f"{tag} as {HELD_OUT + ' ' if held_out else ''}{ours}"
            for tag, (ours, held_out) in self.names.items()
        )
        left = f"; left aside: {', '.join(self.left)}" if self.left else ""
        return f"read {taken}{left}"


def mapped(tags: Iterable[str], own: Mapping[str, str]) -> Mapped:
    """Find our names for the tags of a log.

    Args:
        tags: of TensorBoard, with their folder before them, or the columns of a table.
        own: what a user says of tags; nothing else is guessed of these.
    """
    tags = list(tags)
    found: dict[tuple[str, bool], tuple[int, str]] = {}
    for tag in tags:
        name, held_out = _plain(tag)
        if tag in own:
            held_out = held_out or own[tag].startswith("validation/")
            place, ours = -1, own[tag].removeprefix("validation/").removeprefix("train/")
        elif (ours := _OURS.get(name, "")) in NAMES:
            place = NAMES[ours].index(name)
        else:
            continue
        # Of a figure by step and its mean by epoch, the former.
        rank = 2 * place + ("epoch" in tag.lower())
        if (ours, held_out) not in found or rank < found[ours, held_out][0]:
            found[ours, held_out] = rank, tag
    names = {tag: key for key, (_, tag) in found.items()}
    return Mapped(
        {tag: names[tag] for tag in tags if tag in names}, [tag for tag in tags if tag not in names]
    )


def _plain(tag: str) -> tuple[str, bool]:
    """A tag without what says where it was measured, and whether that was on held-out speech."""
    name, held_out = re.sub(r"_(step|epoch)$", "", tag.lower().strip()), False
    figure, _, where = name.rpartition("/")
    if figure and where in (*_SAID_HELD_OUT, *_SAID_TRAINING):
        name = f"{where}/{figure}"
    while name not in _OURS:
        head, cut, rest = _first_word(name)
        if not cut or head in _OF_ADVERSARIES:
            break
        if head in _SAID_HELD_OUT or head.endswith("evalstats"):
            held_out = True
        # Before a slash stands a folder of events, whatever it is called.
        elif cut != "/" and head not in (*_SAID_TRAINING, "avg"):
            break
        name = rest
    return name, held_out


def _first_word(name: str) -> tuple[str, str, str]:
    """Up to the first ``/``, or, where there is none, the first of ``.`` and ``_``; that sign, and what
    follows."""
    found = re.search("/", name) or re.search("[._]", name)
    return (name, "", "") if found is None else (name[: found.start()], found[0], name[found.end() :])
