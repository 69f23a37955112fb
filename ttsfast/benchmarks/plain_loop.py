"""The loop that people write in plain PyTorch, to be measured beside the trainer: one ``.npy`` per utterance,
``DataLoader``, a loss composed of ``torch.nn.functional``, clipping, AdamW."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from ttsfast.data.store.store import Store
from ttsfast.losses.module import TTSLoss
from ttsfast.models.interface import AcousticOutput

Example = tuple[Tensor, Tensor]
PlainBatch = tuple[Tensor, Tensor, Tensor, Tensor]


def write_npy(store: Store, indices: np.ndarray, folder: Path) -> None:
    """The same features as one file per utterance, and the texts beside them."""
    folder.mkdir(parents=True)
    texts = {}
    for index in indices:
        utterance = store[int(index)]
        np.save(folder / f"{utterance.id}.npy", utterance.mel.astype(np.float32))
        texts[utterance.id] = [int(symbol) for symbol in utterance.text]
    (folder / "texts.json").write_text(json.dumps(texts))


class NpyDataset(Dataset[Example]):
    """(N,) text ids and (T, C) mels."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._texts = list(json.loads((folder / "texts.json").read_text()).items())

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Example:
        name, text = self._texts[index]
        return torch.tensor(text), torch.from_numpy(np.load(self._folder / f"{name}.npy"))


class Padding:
    """Zeros, and each utterance copied over them; frames padded to whole decoder steps and a tail."""

    def __init__(self, silence: Tensor, multiple: int, tail: int) -> None:
        self._silence, self._multiple, self._tail = silence, multiple, tail

    def __call__(self, examples: list[Example]) -> PlainBatch:
        text_lengths = torch.tensor([len(text) for text, _ in examples])
        mel_lengths = torch.tensor([len(mel) for _, mel in examples])
        longest = -(-(int(mel_lengths.max()) + self._tail) // self._multiple) * self._multiple
        text = torch.zeros(len(examples), int(text_lengths.max()), dtype=torch.int64)
        mel = self._silence.repeat(len(examples), longest, 1)
        for i, (ids, frames) in enumerate(examples):
            text[i, : len(ids)] = ids
            mel[i, : len(frames)] = frames
        return text, text_lengths, mel, mel_lengths


def composite(loss: TTSLoss, output: AcousticOutput, mel: Tensor, lengths: Tensor, texts: Tensor) -> Tensor:
    """What ``loss`` computes with fixed weights, term by term from ``torch.nn.functional``."""
    spec = loss.spec
    prediction = output.final_mel
    frame = torch.arange(mel.shape[1])
    valid = (frame < lengths[:, None])[..., None]
    count = lengths.sum() * mel.shape[2]
    target = (1 - spec.mel_label_smoothing) * mel
    huber = F.huber_loss(prediction, target, reduction="none", delta=spec.huber_delta)
    total = spec.base_weights[0] * (huber * valid).sum() / count
    if output.posterior is not None and spec.base_weights[1]:
        mu, logvar = output.posterior
        nats = 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(-1)
        total = total + spec.base_weights[1] * (nats * lengths).sum() / count
    if output.stop_logits is None or output.step_lengths is None or output.attention is None:
        raise TypeError("the benchmark's model must give stop_logits, step_lengths and attention")
    logits, steps = output.stop_logits, output.step_lengths
    step = torch.arange(logits.shape[1])
    included = step < (steps + spec.stop_tail_frames).clamp(max=logits.shape[1])[:, None]
    labels = (included & (step >= steps[:, None] - 1)).float()
    labels = labels * (1 - spec.stop_label_smoothing) + spec.stop_label_smoothing / 2
    weight = torch.tensor(spec.stop_pos_weight)
    stop = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight, reduction="none")
    total = total + spec.base_weights[2] * (stop * included).sum() / included.sum()
    attention = output.attention if output.attention.dim() == 4 else output.attention.unsqueeze(1)
    symbol = torch.arange(attention.shape[-1])
    along = symbol[None, None, :] / texts[:, None, None] - step[None, :, None] / steps[:, None, None]
    away = 1 - torch.exp(-along.square() / (2 * spec.attention_sigma**2))
    away = away * ((step < steps[:, None])[:, :, None] & (symbol < texts[:, None])[:, None, :])
    guided = (attention * away[:, None]).sum() / (attention.shape[1] * steps.sum())
    return total + spec.base_weights[3] * guided


class PlainLoop:
    """A model, an optimiser and an endless ``DataLoader``; ``step()`` gives valid frames."""

    def __init__(
        self,
        model: nn.Module,
        loss: TTSLoss,
        dataset: NpyDataset,
        padding: Padding,
        *,
        batch_size: int,
        workers: int,
        clip: float,
        optimizer: dict[str, Any],
    ) -> None:
        self.model, self.loss, self._clip = model, loss, clip
        self._optimizer = torch.optim.AdamW(model.parameters(), **optimizer)
        self._loader = DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            collate_fn=padding,
            persistent_workers=workers > 0,
        )
        self._batches: Iterator[PlainBatch] = itertools.chain.from_iterable(itertools.repeat(self._loader))

    def step(self) -> int:
        """One update."""
        text, text_lengths, mel, mel_lengths = next(self._batches)
        speaker = torch.zeros(len(text), dtype=torch.int64)
        output = AcousticOutput.of(self.model(text, text_lengths, mel, mel_lengths, speaker=speaker))
        total = composite(self.loss, output, mel, mel_lengths, text_lengths)
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return int(mel_lengths.sum())
