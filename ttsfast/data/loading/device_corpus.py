"""A corpus that lies on the device, and batches gathered from it there.

The float16 features of 24 hours are 1.1 GiB: where they fit beside the model, nothing is read, converted or
copied to the device any more. One kernel writes a whole batch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ttsfast.data.loading.batch import TEXT_MULTIPLE, Batch, frame_targets, padded_length
from ttsfast.data.store.shard import REMEDY, offsets
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError

FREE_SHARE = 0.25
"""Of the memory that is free on the device before the first step: what a corpus may take unasked. The model's
activations, gradients and optimiser state have yet to come."""

_CHUNK = 1 << 25
"""Bytes read and copied at a time."""


class DeviceCorpus:
    """Utterances of a store, in the memory of a device."""

    def __init__(self, store: Store, indices: np.ndarray, device: torch.device | str) -> None:
        """Copy utterances ``indices``, distinct and ascending, to ``device``; each is checked as it is read.

        Raises:
            InputError: an utterance is damaged, or they do not fit into the memory that is free; with what to
                do.
        """
        self.store = store
        self.indices = np.asarray(indices, dtype=np.int64)
        if len(self.indices) == 0 or (np.diff(self.indices) <= 0).any() or self.indices[0] < 0:
            raise ValueError("indices must be distinct, ascending and at least one")
        self.device = torch.device(device)
        needed, free = needed_bytes(store, self.indices), free_bytes(self.device)
        if free is not None and needed > free:
            raise InputError(
                f"{store.path}: its features need {needed / 2**30:.2f} GiB on {self.device}, where "
                f"{free / 2**30:.2f} are free; set data.corpus_on_device=never"
            )
        self.mel_lengths, self.text_lengths = store.frames[self.indices], store.text_lengths[self.indices]
        mel_starts, text_starts = offsets(self.mel_lengths), offsets(self.text_lengths)
        bins = store.contract.n_mels
        if int(self.mel_lengths.max() + 2**16) * bins >= 2**31:
            raise InputError(f"{store.path}: an utterance has {self.mel_lengths.max()} frames; cut it up")
        entries = store.entries
        self.mel = torch.empty(int(mel_starts[-1]), bins, dtype=torch.float16, device=self.device)
        self.text = torch.empty(int(text_starts[-1]), dtype=torch.int32, device=self.device)
        self.tracks = {
            name: torch.empty(int(mel_starts[-1]), dtype=torch.float32, device=self.device)
            for name in store.tracks
        }
        """Of "pitch" and "energy", (F,) float32 each, what the store holds."""
        self._fill(mel_starts, text_starts)
        self.mel_starts = torch.from_numpy(mel_starts).to(self.device)
        self.text_starts = torch.from_numpy(text_starts).to(self.device)
        speaker, truncated = np.asarray(entries.speaker), np.asarray(entries.truncated, dtype=bool)
        self.speaker = torch.from_numpy(speaker[self.indices].astype(np.int64)).to(self.device)
        self.truncated = torch.from_numpy(truncated[self.indices]).to(self.device)
        self.silence = torch.from_numpy(store.silence).to(self.device)

    def _fill(self, mel_starts: np.ndarray, text_starts: np.ndarray) -> None:
        symbols = len(self.store.symbols)
        per_chunk = max(1, _CHUNK // (2 * self.mel.shape[1]))
        begin = 0
        while begin < len(self.indices):
            end = max(begin + 1, int(np.searchsorted(mel_starts, mel_starts[begin] + per_chunk, "right")) - 1)
            utterances = [self.store[int(index)] for index in self.indices[begin:end]]
            for utterance, frames, length in zip(
                utterances, self.mel_lengths[begin:end], self.text_lengths[begin:end], strict=True
            ):
                text = utterance.text
                if utterance.mel.shape != (frames, self.mel.shape[1]) or text.shape != (length,):
                    raise InputError(
                        f"utterance {utterance.id!r}: other lengths than the manifest says; {REMEDY}"
                    )
                if any(getattr(utterance, name).shape != (frames,) for name in self.tracks):
                    raise InputError(
                        f"utterance {utterance.id!r}: tracks of other lengths than the mel; {REMEDY}"
                    )
                # On the device a wrong one would be read by the model without any check.
                if text.min() < 1 or text.max() >= symbols:
                    raise InputError(
                        f"utterance {utterance.id!r}: a symbol id is not from 1 to {symbols - 1}; {REMEDY}"
                    )
            frames_here = slice(mel_starts[begin], mel_starts[end])
            mel = np.concatenate([utterance.mel for utterance in utterances])
            self.mel[frames_here] = torch.from_numpy(mel).to(self.device)
            for name, track in self.tracks.items():
                values = np.concatenate([getattr(utterance, name) for utterance in utterances])
                track[frames_here] = torch.from_numpy(values).to(self.device)
            text = np.concatenate([utterance.text for utterance in utterances]).astype(np.int32)
            self.text[text_starts[begin] : text_starts[end]] = torch.from_numpy(text).to(self.device)
            begin = end

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Where utterances of the store lie in this corpus. Raises ValueError for one that does not."""
        rows = np.minimum(np.searchsorted(self.indices, indices), len(self.indices) - 1)
        if (self.indices[rows] != indices).any():
            raise ValueError("an utterance is not in the corpus")
        return rows

    def gather(
        self,
        rows: np.ndarray,
        order: Tensor,
        first: int,
        *,
        tail_frames: int = 8,
        pad_to_multiple: int = 8,
        dtype: torch.dtype = torch.float32,
        targets: bool = False,
    ) -> Batch:
        """The batch of ``rows``, byte for byte what :func:`ttsfast.data.loading.batch.collate` makes of them.

        Without a synchronisation: the host knows the lengths, and the device has the rows already.

        Args:
            rows: (B,) as :meth:`rows` gives them.
            order: int64 on the device; ``order[first : first + B]`` are the same rows.
            first: see ``order``.
            tail_frames: see :func:`ttsfast.data.loading.batch.padded_length`.
            pad_to_multiple: the same.
            dtype: of ``Batch.mel``.
            targets: also ``frame_mask`` and ``stop_targets``.
        """
        lengths, text_lengths = self.mel_lengths[rows], self.text_lengths[rows]
        frames = int(padded_length(int(lengths.max()), tail_frames, pad_to_multiple))
        symbols = int(padded_length(int(text_lengths.max()), 0, TEXT_MULTIPLE))
        gather = _gather_by_kernel if self.device.type == "cuda" else _gather_by_torch
        made = gather(self, order, first, (len(rows), frames, symbols), dtype, targets)
        ids, indices = self.store.entries.id, self.indices[rows]
        return Batch(ids=tuple(ids[i] for i in indices), frames=int(lengths.sum()), **made)


def needed_bytes(store: Store, indices: np.ndarray) -> int:
    """What the features of some utterances take on a device."""
    per_frame, per_symbol, per_utterance = 2 * store.contract.n_mels + 4 * len(store.tracks), 4, 25
    frames, symbols = store.frames[indices].sum(), store.text_lengths[indices].sum()
    return int(per_frame * frames + per_symbol * symbols + per_utterance * len(indices))


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a CUDA device, also to other processes; None for any other device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def fits_beside_a_model(store: Store, indices: np.ndarray, device: torch.device) -> bool:
    """Whether a corpus takes no more than FREE_SHARE of what is free on a CUDA device; elsewhere False: a
    processor's own memory already holds the maps.
    """
    free = free_bytes(device) if torch.cuda.is_available() else None
    return free is not None and needed_bytes(store, indices) <= FREE_SHARE * free


def _gather_by_kernel(
    corpus: DeviceCorpus,
    order: Tensor,
    first: int,
    size: tuple[int, int, int],
    dtype: torch.dtype,
    targets: bool,
) -> dict[str, Tensor]:
    """The tensors of a batch of ``size`` (B, T, N), by one launch of the Triton kernel."""
    from ttsfast.kernels import gather

    batch, frames, symbols = size

    def empty(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=corpus.device)

    out = gather.Gathered(
        mel=empty(batch, frames, corpus.mel.shape[1], dtype=dtype),
        text=empty(batch, symbols),
        mel_lengths=empty(batch),
        text_lengths=empty(batch),
        speaker=empty(batch),
        truncated=empty(batch, dtype=torch.bool),
        frame_mask=empty(batch, frames, dtype=torch.bool) if targets else None,
        stop_targets=empty(batch, frames, dtype=torch.float32) if targets else None,
        **{name: empty(batch, frames, dtype=torch.float32) for name in corpus.tracks},
    )
    gather.gather(
        gather.Corpus(
            corpus.mel,
            corpus.mel_starts,
            corpus.text,
            corpus.text_starts,
            corpus.speaker,
            corpus.truncated,
            corpus.silence,
            **corpus.tracks,
        ),
        order,
        first,
        out,
    )
    return {name: tensor for name, tensor in out._asdict().items() if tensor is not None}


def _gather_by_torch(
    corpus: DeviceCorpus,
    order: Tensor,
    first: int,
    size: tuple[int, int, int],
    dtype: torch.dtype,
    targets: bool,
) -> dict[str, Tensor]:
    """The same by operations of torch, on any device."""
    batch, frames, symbols = size
    rows = order[first : first + batch]

    def ragged(starts: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
        begin = starts[rows, None]
        lengths = starts[rows + 1, None] - begin
        place = torch.arange(width, device=corpus.device)
        valid = place < lengths
        return lengths[:, 0], valid, torch.where(valid, begin + place, begin)

    mel_lengths, own, places = ragged(corpus.mel_starts, frames)
    text_lengths, written, letters = ragged(corpus.text_starts, symbols)
    made = {
        "mel": torch.where(own[..., None], corpus.mel[places].float(), corpus.silence).to(dtype),
        "text": torch.where(written, corpus.text[letters].long(), 0),
        "mel_lengths": mel_lengths,
        "text_lengths": text_lengths,
        "speaker": corpus.speaker[rows],
        "truncated": corpus.truncated[rows],
        **{name: torch.where(own, track[places], 0.0) for name, track in corpus.tracks.items()},
    }
    return made | (frame_targets(mel_lengths, made["truncated"], frames) if targets else {})
