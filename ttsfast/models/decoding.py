"""Free-running speech: each step hears only what the steps before it said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ttsfast.models.interface import FreeRunning
from ttsfast.models.layers import ConvCache
from ttsfast.terms.masks import valid_mask


@dataclass
class DecoderCaches:
    """The state of a decoding under way."""

    mel: list[ConvCache]
    decoder: list[ConvCache]
    step: int = 0


def readable(text_lengths: Tensor, longest: int) -> Tensor:
    """(B, longest) bool: the symbols attention may look at, one at least so that a softmax is never empty."""
    return valid_mask(text_lengths.clamp(min=1), longest)


def window(last_read: Tensor, longest: int, back: int, ahead: int) -> Tensor:
    """(B, longest) bool: the symbols within a window around the last one read, ``last_read`` (B,)."""
    ahead_of_last = torch.arange(longest, device=last_read.device) - last_read[:, None]
    return (ahead_of_last >= -back) & (ahead_of_last <= ahead)


DecodeStep = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""From the frame before (B, 1, C) and the symbols it may attend to (B, 1, N) bool to the next step's mel
(B, r, C), stop logit (B, 1) and attention (B, 1, N)."""


def free_run(
    decode: DecodeStep,
    silence: Tensor,
    text_lengths: Tensor,
    longest: int,
    *,
    reduction_factor: int,
    window_back: int,
    window_ahead: int,
    max_frames: int,
    stop_threshold: float,
) -> FreeRunning:
    """Let a decoder speak a batch of texts, each step from the one before.

    Attention moves through the text in a window around the symbol it last read most, so it cannot jump to
    a like-sounding word elsewhere; nothing else steers it. An utterance ends with the first step whose stop
    probability reaches ``stop_threshold``, wherever attention is by then: a model that stops in the middle
    of its text should be seen to do so. Each utterance ends by itself; its result does not depend on the
    others in the batch.

    Args:
        decode: one step of the decoder, which keeps its own state.
        silence: (B, 1, C), what is heard before the first step.
        text_lengths: (B,)
        longest: N, what texts are padded to.
        reduction_factor: r, frames in a step.
        window_back: symbols behind the last one read that may be read again.
        window_ahead: symbols ahead of it that may be read next.
        max_frames: where an utterance that does not stop is cut.
        stop_threshold: a probability.

    Returns:
        ``mel`` (B, T, C), ``mel_lengths`` (B,) in whole steps of r frames or ``max_frames``, ``attention``
        (B, S, N) with ``S = ceil(T / r)``, ``stopped`` (B,).

    Raises:
        ValueError: ``max_frames`` below 1.
    """
    if max_frames < 1:
        raise ValueError(f"max_frames is {max_frames}; allow 1 frame or more")
    valid = readable(text_lengths, longest)
    last_read = torch.zeros_like(text_lengths)
    mel_lengths = torch.full_like(text_lengths, max_frames)
    stopped = torch.zeros_like(text_lengths, dtype=torch.bool)
    heard = silence
    mels, attention = [], []
    for step in range(-(-max_frames // reduction_factor)):
        allowed = valid & window(last_read, longest, window_back, window_ahead)
        mel, stop_logit, weights = decode(heard, allowed[:, None])
        heard = mel[:, -1:]
        last_read = weights[:, 0].argmax(dim=-1)
        mels.append(mel)
        attention.append(weights)
        fires = ~stopped & (torch.sigmoid(stop_logit[:, 0].float()) >= stop_threshold)
        mel_lengths = torch.where(fires, min((step + 1) * reduction_factor, max_frames), mel_lengths)
        stopped = stopped | fires
        if bool(stopped.all()):
            break
    return FreeRunning(
        mel=torch.cat(mels, dim=1)[:, :max_frames],
        mel_lengths=mel_lengths,
        attention=torch.cat(attention, dim=1),
        stopped=stopped,
    )
