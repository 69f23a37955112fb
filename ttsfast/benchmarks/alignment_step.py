"""What alignment adds to a training step of each model: the prior, the search, and the two terms of the loss,
on the step's own tensors."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from ttsfast.alignment.functional import path_of
from ttsfast.alignment.prior import beta_binomial_prior
from ttsfast.benchmarks import machine
from ttsfast.data.loading.batch import Batch
from ttsfast.functional import forward_sum_loss, monotonic_alignment
from ttsfast.losses.aligned import path_nats
from ttsfast.losses.average import Lengths
from ttsfast.losses.module import TTSLoss
from ttsfast.models.convtts import ConvTTS
from ttsfast.models.criterion import loss_arguments, with_auxiliary
from ttsfast.models.interface import AcousticOutput
from ttsfast.models.paralleltts import ParallelTTS

ARCHITECTURES: dict[str, type[ConvTTS] | type[ParallelTTS]] = {"convtts": ConvTTS, "paralleltts": ParallelTTS}
SIZE = "nano"
BATCH, FRAMES, SYMBOLS = 16, 400, 80
"""Utterances of half as many frames and symbols to so many: sentences of 3 to 5 s."""
_TABLE, _BINS = 100, 80


class Step:
    """A training step of a built-in model that is not trained yet, on one batch again and again; its forward
    pass in bf16 where ``half`` says so."""

    def __init__(
        self, architecture: str, device: torch.device, size: str = SIZE, *, half: bool = False
    ) -> None:
        torch.manual_seed(0)
        self.model = ARCHITECTURES[architecture].from_size(size, _TABLE, _BINS).to(device)
        loss = TTSLoss()
        if isinstance(self.model, ParallelTTS):
            loss = TTSLoss(kl_weight=0.0, stop_weight=0.0, attention_weight=0.0, alignment_weight=1.0)
        self._loss = loss.to(device)
        self._optimizer = torch.optim.AdamW(self.model.parameters())
        self.batch = _batch(device)
        self._precision = partial(torch.autocast, device.type, torch.bfloat16, enabled=half)

    def __call__(self) -> AcousticOutput:
        batch = self.batch
        with self._precision():
            output: AcousticOutput = self.model(batch.text, batch.text_lengths, batch.mel, batch.mel_lengths)
        counts = self._loss.counts(batch.mel_lengths, output.step_lengths, batch.truncated)
        found = self._loss(**loss_arguments(output, batch), normalizer=counts)
        with_auxiliary(found, output, counts).total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return output


def share(architecture: str, device: torch.device, rounds: int) -> dict[str, Any]:
    """Median milliseconds of a step, of each part of alignment, and what share of the step these are.

    ParallelTTS aligns in every step. ConvTTS does not: its figure is what an alignment of its attention, at
    four frames to a step, would add.
    """
    step = Step(architecture, device)
    aligns = isinstance(step.model, ParallelTTS)
    turns: dict[str, Callable[[], object]] = {"step": step, **_parts(step(), step.batch)}
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            machine.synchronize(device)
            begin = time.perf_counter()
            turn()
            machine.synchronize(device)
            taken[name].append((time.perf_counter() - begin) * 1e3)
    parts = {name: median(found) for name, found in taken.items()}
    whole, added = parts.pop("step"), sum(parts.values())
    with_ms = whole if aligns else whole + added
    return {
        "size": SIZE,
        "batch": BATCH,
        "frames": FRAMES,
        "symbols": SYMBOLS,
        "with_ms": with_ms,
        "without_ms": with_ms - added,
        "parts_ms": parts,
        "share": added / with_ms,
    }


def _batch(device: torch.device) -> Batch:
    draw = torch.Generator().manual_seed(0)
    part = 0.5 + 0.5 * torch.rand(BATCH, generator=draw)
    part[0] = 1.0
    text_lengths, mel_lengths = ((part * size).ceil().long() for size in (SYMBOLS, FRAMES))
    return Batch(
        ids=tuple(map(str, range(BATCH))),
        text=torch.randint(1, _TABLE, (BATCH, SYMBOLS), generator=draw),
        text_lengths=text_lengths,
        mel=torch.randn(BATCH, FRAMES, _BINS, generator=draw),
        mel_lengths=mel_lengths,
        speaker=torch.zeros(BATCH, dtype=torch.int64),
        truncated=torch.zeros(BATCH, dtype=torch.bool),
        frames=int(mel_lengths.sum()),
    ).to(device)


def _parts(output: AcousticOutput, batch: Batch) -> dict[str, Callable[[], object]]:
    """What a step does to align, each with its own inputs."""
    text, steps = batch.text_lengths, output.step_lengths
    assert steps is not None
    if output.alignment_log_probs is None:
        assert output.attention is not None
        log_probs = output.attention.detach().clamp(min=1e-8).log()
    else:
        log_probs = output.alignment_log_probs.detach()

    def prior() -> Tensor:
        return beta_binomial_prior(text, steps, frames=log_probs.shape[1], symbols=log_probs.shape[2])

    def search() -> Tensor:
        durations = monotonic_alignment(scores, text, steps)
        assert isinstance(durations, Tensor)
        return durations

    def forward_sum() -> Tensor:
        leaf = scores.detach().requires_grad_()
        return torch.autograd.grad(forward_sum_loss(leaf, text, steps), leaf)[0]

    scores = log_probs + prior()
    path = path_of(search(), log_probs.shape[1])

    def binarization() -> Tensor:
        return path_nats(scores, path, lengths)

    lengths = Lengths(mel=batch.mel_lengths, steps=steps, text=text)
    return {"prior": prior, "search": search, "forward_sum": forward_sum, "binarization": binarization}
