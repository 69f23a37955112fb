"""The loop that people write in plain PyTorch, to be measured beside the trainer: one ``.npy`` per utterance,
``DataLoader``, a loss composed of ``torch.nn.functional``, clipping, AdamW."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ttsfast.benchmarks.npy_files import NpyFiles
from ttsfast.data.loading.batch import Batch
from ttsfast.losses.module import TTSLoss
from ttsfast.models.interface import AcousticOutput


def composite(loss: TTSLoss, output: AcousticOutput, batch: Batch) -> Tensor:
    """What ``loss`` computes with fixed weights, term by term from ``torch.nn.functional``; a posterior is
    one of utterances, (B, Z), and its prior N(0, I)."""
    spec = loss.spec
    mel, lengths, texts = batch.mel, batch.mel_lengths, batch.text_lengths
    prediction = output.final_mel
    device = mel.device
    frame = torch.arange(mel.shape[1], device=device)
    valid = (frame < lengths[:, None])[..., None]
    count = lengths.sum() * mel.shape[2]
    target = (1 - spec.mel_label_smoothing) * mel
    if spec.mel_loss == "l1":
        distance = F.l1_loss(prediction, target, reduction="none")
    else:
        distance = F.huber_loss(prediction, target, reduction="none", delta=spec.huber_delta)
    total = spec.base_weights[0] * (distance * valid).sum() / count
    if output.posterior is not None and spec.base_weights[1]:
        mu, logvar = output.posterior
        nats = 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(-1)
        elbo = spec.kl_normalization == "elbo"
        kl = (nats * lengths).sum() / count if elbo else nats.mean()
        total = total + spec.base_weights[1] * kl
    if output.stop_logits is None or output.step_lengths is None or output.attention is None:
        raise TypeError("the benchmark's model must give stop_logits, step_lengths and attention")
    logits, steps = output.stop_logits, output.step_lengths
    step = torch.arange(logits.shape[1], device=device)
    included = step < (steps + spec.stop_tail_frames).clamp(max=logits.shape[1])[:, None]
    labels = (included & (step >= steps[:, None] - 1)).float()
    labels = labels * (1 - spec.stop_label_smoothing) + spec.stop_label_smoothing / 2
    weight = torch.tensor(spec.stop_pos_weight, device=device)
    stop = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight, reduction="none")
    total = total + spec.base_weights[2] * (stop * included).sum() / included.sum()
    if not spec.base_weights[3]:
        return total
    attention = output.attention if output.attention.dim() == 4 else output.attention.unsqueeze(1)
    symbol = torch.arange(attention.shape[-1], device=device)
    along = symbol[None, None, :] / texts[:, None, None] - step[None, :, None] / steps[:, None, None]
    away = 1 - torch.exp(-along.square() / (2 * spec.attention_sigma**2))
    away = away * ((step < steps[:, None])[:, :, None] & (symbol < texts[:, None])[:, None, :])
    guided = (attention * away[:, None]).sum() / (attention.shape[1] * steps.sum())
    return total + spec.base_weights[3] * guided


def forward(model: nn.Module, batch: Batch) -> AcousticOutput:
    """Teacher-forced."""
    return AcousticOutput.of(
        model(batch.text, batch.text_lengths, batch.mel, batch.mel_lengths, speaker=batch.speaker)
    )


class PlainLoop:
    """A model, an optimiser and an endless stream of batches; ``step()`` gives valid frames."""

    def __init__(
        self,
        model: nn.Module,
        loss: TTSLoss,
        batches: Iterator[Batch],
        *,
        clip: float,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self._batches, self._clip = batches, clip

    def step(self) -> int:
        """One update."""
        batch = next(self._batches)
        total = composite(self.loss, forward(self.model, batch), batch)
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return batch.frames


def usual_batches(
    files: NpyFiles, collate: Callable[[list[dict[str, Any]]], Batch], *, batch_size: int, workers: int
) -> Iterator[Batch]:
    """Shuffled ones of a ``DataLoader``, epoch after epoch."""
    loader = DataLoader(
        files,
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
    )
    return itertools.chain.from_iterable(itertools.repeat(loader))
