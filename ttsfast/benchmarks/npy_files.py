"""What recipes have: one ``.npy`` of features per utterance, and tensors of padding copied over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ttsfast.data.loading.batch import Batch, padded_length
from ttsfast.data.store.store import Store


class NpyFiles(Dataset[dict[str, Any]]):
    """The files of some utterances of a store; texts in memory."""

    def __init__(self, folder: Path, store: Store, indices: np.ndarray, dtype: type = np.float32) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.ids, self.texts = [], []
        for place, index in enumerate(indices.tolist()):
            utterance = store[index]
            np.save(folder / f"{place}.npy", utterance.mel.astype(dtype))
            self.ids.append(utterance.id)
            self.texts.append(utterance.text)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        mel = np.load(self.folder / f"{index}.npy")
        return {"id": self.ids[index], "text": self.texts[index], "mel": mel}


def usual_collate(
    items: Sequence[dict[str, Any]],
    *,
    pad_value: np.ndarray,
    frame_multiple: int = 8,
    tail_frames: int = 8,
    text_multiple: int = 1,
) -> Batch:
    """Tensors full of padding, and each utterance copied over it."""
    frames = padded_length(max(len(item["mel"]) for item in items), tail_frames, frame_multiple)
    symbols = padded_length(max(len(item["text"]) for item in items), 0, text_multiple)
    mel = torch.from_numpy(pad_value).repeat(len(items), frames, 1)
    text = torch.zeros(len(items), symbols, dtype=torch.int64)
    for i, item in enumerate(items):
        mel[i, : len(item["mel"])] = torch.from_numpy(item["mel"])
        text[i, : len(item["text"])] = torch.from_numpy(item["text"])
    return Batch(
        ids=tuple(item["id"] for item in items),
        text=text,
        text_lengths=torch.tensor([len(item["text"]) for item in items]),
        mel=mel,
        mel_lengths=torch.tensor([len(item["mel"]) for item in items]),
        speaker=torch.zeros(len(items), dtype=torch.int64),
        truncated=torch.zeros(len(items), dtype=torch.bool),
        frames=sum(len(item["mel"]) for item in items),
    )
