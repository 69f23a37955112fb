"""What the trainer asks of an acoustic model, and what a model answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from ttsfast.errors import InputError

if TYPE_CHECKING:
    from ttsfast.data.loading.batch import Batch

SYMBOLS, SPEAKERS, STORE = "symbols", "speakers", "store"
"""What a model may say of its tensors, by name, in an attribute ``tensors_of_data``: there is a row for each
symbol or speaker, or the store decides the values. A voice that starts from another takes rows by name."""


def tracks_for(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """What ``model`` wants of a batch beside text and mel: the tracks that its attribute ``tracks`` names, by
    the names of its ``forward``'s arguments; none for a model without it.

    Raises:
        InputError: the batch's store has no such track.
    """
    found = {name: getattr(batch, name) for name in getattr(model, "tracks", ())}
    for name, track in found.items():
        if track is None:
            raise no_track(name)
    return found


def no_track(name: str) -> InputError:
    """What to say where a model learns what the store does not hold."""
    return InputError(
        f"the model learns {name}, and the store has no track of it: `ttsfast prepare --{name}`, or set "
        f"model.{name}=false"
    )


@dataclass
class AcousticOutput:
    """The named outputs of a teacher-forced pass; any ``nn.Module`` that returns them can be trained.

    B utterances, T mel frames, C bins, S decoder steps (S = T / r), N text symbols.
    """

    mel: Tensor | tuple[Tensor, Tensor]
    """(B, T, C) in normalised units; a pair for a model with a post-net: (before, after)."""
    stop_logits: Tensor | None = None
    """(B, S)"""
    step_lengths: Tensor | None = None
    """(B,) valid decoder steps, ceil(mel_lengths / r); None means r = 1."""
    attention: Tensor | None = None
    """(B, S, N) or (B, H, S, N), rows that sum to 1 over the valid text."""
    posterior: tuple[Tensor, Tensor] | None = None
    """(mu, logvar), each (B, Z) or (B, T, Z)."""
    alignment_log_probs: Tensor | None = None
    """(B, S, N) of the symbols at each step of an aligner, a step being of as many frames as a decoder's."""
    alignment_prior: Tensor | None = None
    """(B, S, N) log-probabilities that the loss adds to them."""
    alignment_path: Tensor | None = None
    """The hard alignment: durations (B, N) in steps, integers, or a path (B, S, N), bool."""
    auxiliary: Tensor | None = None
    """() what else the model wants made small, such as a duration predictor's error: already weighted, and
    *summed* over the batch. The trainer divides it by the valid mel frames of the whole step, so that k
    micro-batches still equal one batch."""

    @classmethod
    def of(cls, output: AcousticOutput | Mapping[str, Any]) -> AcousticOutput:
        """Accept a mapping with the same names; for anything else raise InputError, saying what it was."""
        if isinstance(output, AcousticOutput):
            return output
        names = [field.name for field in fields(cls)]
        if isinstance(output, Mapping):
            unknown = [str(key) for key in output if key not in names]
            if "mel" in output and not unknown:
                return cls(**output)
            found = "a dict with the keys " + ", ".join(map(str, output))
        else:
            found = type(output).__name__
        raise InputError(
            f"the model returned {found}; return an AcousticOutput, or a dict with mel and any of "
            + ", ".join(names[1:])
        )

    @property
    def final_mel(self) -> Tensor:
        """(B, T, C): the prediction after the post-net, where there is one."""
        return self.mel[1] if isinstance(self.mel, tuple) else self.mel


@dataclass(frozen=True)
class Delivery:
    """How a text is spoken, where not as the model would by itself. A model whose attribute ``controls``
    names some of these takes them as arguments of its ``synthesize``."""

    speed: float = 1.0
    """times as fast"""
    pitch: float = 0.0
    """semitones higher"""

    def asked(self) -> dict[str, float]:
        """What is not left to the voice, by name."""
        return {name: value for name, value in vars(self).items() if value != getattr(AS_LEARNT, name)}


AS_LEARNT = Delivery()
RANGES = {"speed": (0.5, 2.0), "pitch": (-12.0, 12.0)}
"""Of :class:`Delivery`. Beyond twice the speed, symbols that lasted a step would be passed over by more at a
time than :data:`ttsfast.models.reading.PASSED_AT_ONCE`."""


@dataclass
class FreeRunning:
    """What free-running synthesis gives: the model fed with its own frames only."""

    mel: Tensor
    """(B, T, C) in normalised units; frames beyond an utterance's length hold no meaning."""
    mel_lengths: Tensor
    """(B,) frames up to and including the one that stopped."""
    attention: Tensor | None
    """(B, S, N) or (B, H, S, N); None for a model that has none."""
    stopped: Tensor
    """(B,) bool: whether the stop token fired before the frame limit."""

    def attention_of(self, row: int, symbols: int) -> np.ndarray | None:
        """(S', N') float32: the valid steps of utterance ``row`` on its ``symbols``, the mean over heads."""
        if self.attention is None:
            return None
        weights = self.attention[row].float()
        weights = weights.mean(dim=0) if weights.dim() == 3 else weights
        # The frame limit may cut the last step: only rounded up is the shapes' ratio exact.
        frames_per_step = -(-self.mel.shape[1] // len(weights))
        steps = -(-int(self.mel_lengths[row]) // frames_per_step)
        return weights[:steps, :symbols].cpu().numpy()
