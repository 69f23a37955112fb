"""The alignment's functions, with the conventions of ``torch.nn.functional``.

``backend`` is chosen as by the other losses: ``"auto"`` takes the fastest that serves the tensors, and one
asked for by name never falls back. ``"cpp"`` and ``"triton"`` write the loss's gradient in the forward pass
and are differentiable once, ``"torch"`` as often as you like.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ttsfast.alignment import backends, compiled, reference
from ttsfast.alignment.autograd import written
from ttsfast.terms.checks import check_lengths, check_real, in_range, one_of
from ttsfast.terms.spec import compute_dtype

_LARGEST = 1e30


def monotonic_alignment(
    scores: Tensor,
    text_lengths: Tensor,
    mel_lengths: Tensor,
    return_path: bool = False,
    *,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """The best monotonic path that visits every symbol (monotonic alignment search, Kim et al., 2020).

    The path begins at the first symbol, ends at the last, and from frame to frame stays or moves on by one;
    where both are equally good it stays. Scores are added up in float32, or float64 where they are; no
    gradient flows.

    Args:
        scores: (B, T, N) log-likelihood of each symbol at each frame.
        text_lengths, mel_lengths: (B,) valid symbols and frames.
        return_path: whether the path is wanted, too.
        backend: ``"auto"``, ``"torch"``, ``"cpp"`` or ``"triton"``.

    Returns:
        Durations (B, N) int64 in frames, which add up to ``mel_lengths``; all 0 for an utterance of fewer
        frames than symbols. With ``return_path`` also the path (B, T, N), bool.

    Raises:
        TypeError, ValueError: arguments that do not fit.
        RuntimeError: a backend asked for by name that cannot serve them.
    """
    text_lengths, mel_lengths = _checked("scores", scores, text_lengths, mel_lengths)
    scores = scores.detach()
    chosen = backends.choose(backend, scores, text_lengths, mel_lengths)
    if chosen is None:
        _, frames, symbols = scores.shape
        lengths = text_lengths.long().clamp(0, symbols), mel_lengths.long().clamp(0, frames)
        durations = reference.search(scores.to(compute_dtype([scores])), *lengths)
    elif torch.compiler.is_compiling():
        durations = compiled.search(scores, text_lengths, mel_lengths, chosen.name)
    else:
        durations = chosen.search(scores, text_lengths, mel_lengths)
    return (durations, path_of(durations, scores.shape[1])) if return_path else durations


def path_of(durations: Tensor, frames: int) -> Tensor:
    """(B, ``frames``, N) bool, True where a frame is one of the symbol's; durations (B, N)."""
    ends = durations.cumsum(1)
    t = torch.arange(frames, device=durations.device).unsqueeze(1)
    return (t < ends.unsqueeze(1)) & (t >= (ends - durations).unsqueeze(1))


def forward_sum_loss(
    log_probs: Tensor,
    text_lengths: Tensor,
    mel_lengths: Tensor,
    blank_log_prob: float = -1.0,
    reduction: str = "mean",
    *,
    backend: str = "auto",
) -> Tensor:
    """The forward-sum loss (Shih et al., 2021; Badlani et al., 2021): the negative log-probability of the
    text, summed over all monotonic alignments.

    It is ``torch.nn.functional.ctc_loss`` of the targets 1..N with a blank of ``blank_log_prob`` put before
    the symbols of each frame and all of them normalised together, with ``zero_infinity`` for utterances of
    fewer
    frames than symbols: their loss is 0 and they send no gradient. Where every path has probability 0 the
    loss is infinite, which is not hidden.

    Args:
        log_probs: (B, T, N) of the symbols at each frame; they need not be normalised.
        text_lengths, mel_lengths: (B,) valid symbols and frames.
        blank_log_prob: of the blank.
        reduction: ``"none"`` (B,), ``"sum"``, or ``"mean"``: each divided by its symbols, and their mean over
            the batch, as ``ctc_loss`` does.
        backend: ``"auto"``, ``"torch"``, ``"cpp"`` or ``"triton"``.

    Raises:
        TypeError, ValueError: arguments that do not fit.
        RuntimeError: a backend asked for by name that cannot serve them.
    """
    text_lengths, mel_lengths = _checked("log_probs", log_probs, text_lengths, mel_lengths)
    one_of("reduction", reduction, ("none", "sum", "mean"))
    in_range("blank_log_prob", blank_log_prob, -_LARGEST, _LARGEST)
    batch, frames, symbols = log_probs.shape
    dtype = compute_dtype([log_probs])
    chosen = backends.choose(backend, log_probs, text_lengths, mel_lengths)
    lengths = text_lengths.long().clamp(0, symbols)
    scale = torch.ones(batch, dtype=dtype, device=log_probs.device)
    if reduction == "mean":
        scale = scale / (lengths.clamp(min=1) * max(batch, 1))
    if chosen is None:
        kept = mel_lengths.long().clamp(0, frames)
        losses = scale * reference.forward_sum(log_probs.to(dtype), lengths, kept, float(blank_log_prob))
    elif torch.compiler.is_compiling():
        blank = float(blank_log_prob)
        losses = compiled.forward_sum(log_probs, text_lengths, mel_lengths, blank, scale, chosen.name)
    else:
        losses = written(chosen, log_probs, text_lengths, mel_lengths, float(blank_log_prob), scale)
    return losses if reduction == "none" else losses.sum()


def _checked(name: str, tensor: Tensor, text_lengths: Tensor, mel_lengths: Tensor) -> tuple[Tensor, Tensor]:
    check_real(name, tensor, ("B", "T", "N"))
    _, frames, symbols = tensor.shape
    text_lengths = check_lengths("text_lengths", text_lengths, tensor, symbols, f"{name}'s axis N")
    mel_lengths = check_lengths("mel_lengths", mel_lengths, tensor, frames, f"{name}'s axis T")
    return text_lengths, mel_lengths
