"""The search and the forward-sum loss in plain torch: the definition that fused backends are checked against.

Both go through the frames one by one, all utterances and symbols at once. What a padded element holds enters
neither values nor gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ttsfast.terms.masks import valid_mask


def search(scores: Tensor, text_lengths: Tensor, mel_lengths: Tensor) -> Tensor:
    """Durations (B, N) int64 of the best monotonic path that visits every symbol (Kim et al., 2020).

    ``best(t, n) = scores(t, n) + max(best(t-1, n), best(t-1, n-1))``, then back from the last symbol at the
    last frame. Where both are equal, or either is NaN, the path stays at its symbol.

    Args:
        scores: (B, T, N), in the dtype to add up in.
        text_lengths, mel_lengths: (B,) int64 within N and T; an utterance with fewer frames than symbols has
            durations of 0.
    """
    batch, frames, symbols = scores.shape
    nowhere = scores.new_full((), -torch.inf)
    n = torch.arange(symbols, device=scores.device)
    durations = torch.zeros(batch, symbols, dtype=torch.int64, device=scores.device)
    if durations.numel() == 0:
        return durations
    # The first frame is reached from before the first symbol, where the sum is 0.
    best, before, came = nowhere.expand(batch, symbols), scores.new_zeros(batch, 1), []
    for t in range(frames):
        shifted = torch.cat([before, best[:, :-1]], 1)
        # Where the symbol cannot have been reached earlier, nothing is compared.
        moved = (shifted > best) | (n == t)
        best = torch.where(n <= t, scores[:, t] + torch.where(moved, shifted, best), nowhere)
        before = nowhere.expand(batch, 1)
        came.append(moved)
    last = torch.where(mel_lengths < text_lengths, 0, mel_lengths)
    at = (text_lengths - 1).clamp(min=0).unsqueeze(1)
    for t in reversed(range(frames)):
        within = ((t < last) & (text_lengths > 0)).long().unsqueeze(1)
        durations.scatter_add_(1, at, within)
        at = (at - within * came[t].gather(1, at)).clamp(min=0)
    return durations


def forward_sum(
    log_probs: Tensor, text_lengths: Tensor, mel_lengths: Tensor, blank_log_prob: float
) -> Tensor:
    """(B,) negative log-probability, summed over all monotonic paths that visit every symbol once, with
    blanks before, between and after them (Shih et al., 2021; Graves et al., 2006).

    Steps and names as in docs/derivation.md: ``label`` is L, ``passed`` is C.

    Args:
        log_probs: (B, T, N), in the dtype to compute in.
        text_lengths, mel_lengths: (B,) int64 within N and T.
        blank_log_prob: of a blank beside each frame's symbols, before they are normalised together.

    Returns:
        0 without gradient for an utterance with fewer frames than symbols; infinity, with a gradient of NaN,
        where every path has probability 0.
    """
    batch, frames, symbols = log_probs.shape
    if frames == 0:
        # Nothing, but differentiable.
        return log_probs.sum((1, 2))
    alignable = mel_lengths >= text_lengths
    rows = valid_mask(torch.where(alignable, mel_lengths, 0), frames)
    valid = rows.unsqueeze(2) & valid_mask(text_lengths, symbols).unsqueeze(1)
    nowhere = log_probs.new_full((), -torch.inf)
    blank = log_probs.new_full((batch, frames, 1), blank_log_prob)
    normal = F.log_softmax(torch.cat([blank, torch.where(valid, log_probs, nowhere)], 2), 2)
    label = nowhere.expand(batch, symbols)
    passed = torch.cat([normal.new_zeros(batch, 1), label], 1)
    for t in range(frames):
        moving = rows[:, t].unsqueeze(1)
        labelled = normal[:, t, 1:] + _add(label, passed[:, :-1])
        waited = normal[:, t, :1] + passed
        label = torch.where(moving, labelled, label)
        following = torch.cat([waited[:, :1], _add(labelled, waited[:, 1:])], 1)
        passed = torch.where(moving, following, passed)
    total = passed.gather(1, text_lengths.unsqueeze(1)).squeeze(1)
    hopeless = alignable & (total == -torch.inf)
    # Infinite, and of no finite slope.
    infinite = torch.where(hopeless, total, -1.0).square().sqrt()
    return torch.where(alignable, torch.where(hopeless, infinite, -total), 0.0)


def _add(a: Tensor, b: Tensor) -> Tensor:
    """log(e^a + e^b), whose derivative at two negative infinities is no NaN."""
    both = (a > -torch.inf) & (b > -torch.inf)
    return torch.where(
        both, torch.logaddexp(torch.where(both, a, 0.0), torch.where(both, b, 0.0)), a.maximum(b)
    )
