"""A small recogniser of letters, trained on the corpus itself: how well a text explains a recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS = 200, 450
"""Of training, at least and at most: on 28 minutes of one reader four letters of ten are wrong in the end,
and hardly a text is taken for another of its length."""
EPOCHS = 15
"""At most, where the steps allow: learned by heart, a small corpus makes what is held out sound odd."""
BATCH_FRAMES = 2000
Pair = tuple[Tensor, Sequence[int]]
"""A standardised mel (T, n_mels), and its letters."""
_RATE = 3e-3
_WIDTH = 96


class Recognizer(nn.Module):
    """Log-probabilities of letters at each frame, or at every ``stride``-th one, from log-mels.

    Convolutions that see 0.9 s of sound: little to train, and no memory of whole sentences.
    """

    def __init__(self, n_mels: int, classes: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.first = nn.Sequential(
            nn.Conv1d(n_mels, _WIDTH, 5, stride=stride, padding=2), nn.BatchNorm1d(_WIDTH), nn.ReLU()
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(_WIDTH, _WIDTH, 5, padding=2 * dilation, dilation=dilation),
                nn.BatchNorm1d(_WIDTH),
                nn.ReLU(),
            )
            for dilation in (1, 2, 3)
        )
        self.last = nn.Conv1d(_WIDTH, classes, 1)

    def forward(self, mels: Tensor) -> Tensor:
        """(B, T, n_mels) as :func:`standardized`, 0 in padding, to (B, ceil(T / stride), classes); class 0 is
        the blank."""
        x = self.first(mels.transpose(1, 2))
        for block in self.blocks:
            x = x + block(x)
        return self.last(x).transpose(1, 2).log_softmax(2)

    def steps(self, frames: int) -> int:
        """Frames of the output."""
        return -(-frames // self.stride)

    @torch.no_grad()
    def log_probs(self, mel: Tensor) -> Tensor:
        """(T, n_mels) to (ceil(T / stride), classes), in evaluation."""
        return self.eval()(mel[None])[0]


def standardized(mel: np.ndarray) -> Tensor:
    """Log-mels (T, n_mels) about their mean in each bin: neither level nor microphone is left.

    What is no number counts as 0; another check tells of it.
    """
    mel = np.nan_to_num(mel.astype(np.float32), posinf=0.0, neginf=0.0)
    return torch.from_numpy((mel - mel.mean(axis=0)) / (mel.std() + 1e-3))


def fits(letters: Sequence[int], steps: int) -> bool:
    """Whether a path of so many frames can hold them: equal neighbours need a blank between them."""
    return len(letters) + sum(a == b for a, b in pairwise(letters)) <= steps


def steps_of(pairs: Sequence[Pair]) -> int:
    """How many steps :func:`train` takes."""
    frames = sum(len(mel) for mel, _ in pairs)
    return min(STEPS[1], max(STEPS[0], EPOCHS * frames // BATCH_FRAMES))


def train(net: Recognizer, pairs: Sequence[Pair], seed: int, advance: Callable[[], object]) -> None:
    """Train by connectionist temporal classification (Graves et al., 2006), AdamW and one cycle of the rate.

    Args:
        net: changed in place.
        pairs: what to learn from; each :func:`fits`.
        seed: of the order.
        advance: called after each step.
    """
    random, steps, done = Random(seed), steps_of(pairs), 0
    optimizer = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps, pct_start=0.2)
    net.train()
    while done < steps:
        for batch in _batches(pairs, random)[: steps - done]:
            mels = nn.utils.rnn.pad_sequence([mel for mel, _ in batch], batch_first=True)
            frames = torch.tensor([net.steps(len(mel)) for mel, _ in batch])
            letters = torch.tensor([letter for _, letters in batch for letter in letters])
            lengths = torch.tensor([len(letters) for _, letters in batch])
            loss = F.ctc_loss(net(mels).transpose(0, 1), letters, frames, lengths)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done += 1
            advance()


def _batches(pairs: Sequence[Pair], random: Random) -> list[list[Pair]]:
    """All pairs once, those of about one length together, in any order."""
    order = sorted(pairs, key=lambda pair: len(pair[0]) * random.uniform(0.9, 1.1))
    batches: list[list[Pair]] = [[]]
    for pair in order:
        if batches[-1] and len(pair[0]) * (len(batches[-1]) + 1) > BATCH_FRAMES:
            batches.append([])
        batches[-1].append(pair)
    random.shuffle(batches)
    return batches


def log_likelihoods(log_probs: Tensor, texts: Sequence[Sequence[int]]) -> np.ndarray:
    """Of each text (in nats), summed over all alignments; minus infinity where it does not fit.

    Args:
        log_probs: (T, classes) of one recording.
        texts: their letters.
    """
    count, steps = len(texts), len(log_probs)
    found = -F.ctc_loss(
        log_probs[:, None].expand(-1, count, -1),
        torch.tensor([letter for text in texts for letter in text], dtype=torch.long),
        torch.full((count,), steps),
        torch.tensor([len(text) for text in texts]),
        reduction="none",
    ).numpy()
    return np.where([fits(text, steps) for text in texts], found, -np.inf)
