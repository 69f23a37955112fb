"""The kernel that gathers batches: every element against a loop, and nothing else written.

Mutants that these tests were seen to kill: an utterance's start not multiplied by its bins; silence from the
neighbouring bin; one frame too many; text not padded; a stop target for a truncated clip, or one frame late;
the first row of the corpus for the first of the batch; energy for pitch, or either not padded.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from interpreter import INTERPRETED
from kernel_cases import DEVICE
from sparse_memory import sparse
from torch import Tensor

from ttsfast.data.loading import device_corpus
from ttsfast.kernels import gather

Expected = dict[str, Tensor]


def make_corpus(lengths: list[int], bins: int, seed: int = 0, tracks: tuple[str, ...] = ()) -> gather.Corpus:
    draw = np.random.default_rng(seed)
    symbols = [1 + 7 * length % 11 for length in lengths]

    def starts(counts: list[int]) -> Tensor:
        return torch.tensor(np.concatenate([[0], np.cumsum(counts)]), dtype=torch.int64, device=DEVICE)

    # Every finite bit pattern: subnormals and both zeros too.
    bits = draw.integers(0, 1 << 16, (sum(lengths), bins), dtype=np.uint16)
    bits[(bits & 0x7C00) == 0x7C00] &= 0xBFFF
    return gather.Corpus(
        mel=torch.from_numpy(bits.view(np.float16)).to(DEVICE),
        mel_starts=starts(lengths),
        text=torch.from_numpy(draw.integers(1, 90, sum(symbols), dtype=np.int32)).to(DEVICE),
        text_starts=starts(symbols),
        speaker=torch.from_numpy(draw.integers(0, 9, len(lengths))).to(DEVICE),
        truncated=torch.from_numpy(draw.integers(0, 2, len(lengths)).astype(bool)).to(DEVICE),
        silence=torch.from_numpy(draw.standard_normal(bins).astype(np.float32)).to(DEVICE),
        **{
            name: torch.from_numpy(draw.standard_normal(sum(lengths), dtype=np.float32)).to(DEVICE)
            for name in tracks
        },
    )


def rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    if INTERPRETED and dtype == torch.bfloat16:
        # The interpreter cuts bits off; that compiled code rounds is checked in test_gather_budget.py.
        values = (values.view(torch.int32) & -(1 << 16)).view(torch.float32)
    return values.to(dtype)


def expected(
    corpus: gather.Corpus, rows: list[int], frames: int, symbols: int, dtype: torch.dtype
) -> Expected:
    """In loops."""
    mels, texts, masks, stops = [], [], [], []
    tracks: dict[str, list[Tensor]] = {
        name: [] for name in ("pitch", "energy") if getattr(corpus, name) is not None
    }
    for row in rows:
        begin, end = corpus.mel_starts[row : row + 2].tolist()
        valid = end - begin
        padding = corpus.silence.expand(frames - valid, -1)
        mels.append(rounded(torch.cat([corpus.mel[begin:end].float(), padding]), dtype))
        ids = corpus.text[slice(*corpus.text_starts[row : row + 2].tolist())].tolist()
        texts.append(ids + [0] * (symbols - len(ids)))
        masks.append([t < valid for t in range(frames)])
        ends = not bool(corpus.truncated[row])
        stops.append([float(ends and t >= valid - 1) for t in range(frames)])
        for name, padded in tracks.items():
            track = getattr(corpus, name)[begin:end]
            padded.append(torch.cat([track, track.new_zeros(frames - valid)]))
    return {
        **{name: torch.stack(padded) for name, padded in tracks.items()},
        "mel": torch.stack(mels),
        "text": torch.tensor(texts),
        "mel_lengths": corpus.mel_starts.diff()[rows],
        "text_lengths": corpus.text_starts.diff()[rows],
        "speaker": corpus.speaker[rows],
        "truncated": corpus.truncated[rows],
        "frame_mask": torch.tensor(masks),
        "stop_targets": torch.tensor(stops),
    }


CANARY = 64


def fenced(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A tensor of sevens, and the memory it lies in with some more of them on both sides."""
    size = int(np.prod(shape))
    room = torch.full((size + 2 * CANARY,), 7, device=DEVICE).to(dtype)
    return room[CANARY : CANARY + size].view(shape), room


def check(
    corpus: gather.Corpus, rows: list[int], frames: int, symbols: int, dtype: torch.dtype, masks: bool = True
) -> None:
    truth = expected(corpus, rows, frames, symbols, dtype)
    if not masks:
        truth |= {"frame_mask": None, "stop_targets": None}
    pairs = {k: (None, None) if v is None else fenced(tuple(v.shape), v.dtype) for k, v in truth.items()}
    # The batch lies in the middle of an epoch.
    order = torch.tensor([0, 0, 0, *rows, 0], dtype=torch.int64, device=DEVICE)
    gather.gather(corpus, order, 3, gather.Gathered(**{name: inner for name, (inner, _) in pairs.items()}))
    for name, (inner, room) in pairs.items():
        if inner is None or room is None:
            continue
        wanted = truth[name].to(DEVICE)
        assert torch.equal(inner.view(torch.uint8), wanted.contiguous().view(torch.uint8)), name
        outside = torch.cat([room[:CANARY], room[-CANARY:]])
        assert torch.equal(outside, torch.full_like(outside, 7)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bins", [1, 7, 80, 100])
def test_every_element(bins: int, dtype: torch.dtype) -> None:
    corpus = make_corpus([63, 1, 65, 17, 2], bins)
    check(corpus, [3, 0, 2, 2], 80, 11, dtype)


def test_one_frame_and_no_padding() -> None:
    check(make_corpus([1, 5, 1], 8), [0, 2], 1, 8, torch.float32)


@pytest.mark.parametrize("tracks", [("pitch",), ("energy",), ("pitch", "energy")])
@pytest.mark.parametrize("masks", [False, True])
def test_tracks(tracks: tuple[str, ...], masks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "WIDTH", 16)
    corpus = make_corpus([31, 1, 20], 12, tracks=tracks)
    check(corpus, [2, 0, 1, 2], 32, 11, torch.float32, masks)


def test_without_masks() -> None:
    check(make_corpus([9, 5], 12), [1, 0], 16, 9, torch.float32, masks=False)


def test_more_than_one_block_of_text_and_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "WIDTH", 8)
    monkeypatch.setattr(gather, "TILE", 64)
    check(make_corpus([31, 20, 9], 12), [2, 0, 1], 32, 17, torch.float32)


@pytest.mark.parametrize(("dtype", "targets"), [(torch.float32, True), (torch.float16, False)])
def test_is_what_indexing_gives(dtype: torch.dtype, targets: bool) -> None:
    """The device corpus's two ways to the same batch."""
    corpus = make_corpus([20, 31, 9, 4], 12, tracks=("pitch", "energy"))
    tracks = {"pitch": corpus.pitch, "energy": corpus.energy}
    held: Any = SimpleNamespace(**corpus._asdict(), tracks=tracks, device=torch.device(DEVICE))
    order = torch.tensor([1, 3, 0, 2], device=DEVICE)
    arguments = (held, order, 1, (3, 24, 12), dtype, targets)
    ours, theirs = device_corpus._gather_by_kernel(*arguments), device_corpus._gather_by_torch(*arguments)
    assert ours.keys() == theirs.keys()
    assert len(ours) == (10 if targets else 8)
    for name, tensor in theirs.items():
        assert tensor.dtype == ours[name].dtype
        assert torch.equal(tensor.contiguous().view(torch.uint8), ours[name].view(torch.uint8)), name


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE != "cuda", reason="needs a CUDA device and its memory")
def test_offsets_beyond_32_bits() -> None:
    frames = 2**31 // 80 // 1000 + 1
    corpus = make_corpus([3], 80)
    mel = torch.zeros(1001 * frames, 80, dtype=torch.float16, device=DEVICE)
    mel[-3:] = corpus.mel
    starts = torch.tensor([0, *[k * frames for k in range(1, 1001)], 1001 * frames - 3, 1001 * frames])
    n = len(starts) - 1
    text_starts = torch.arange(n + 1, device=DEVICE)
    corpus = corpus._replace(
        mel=mel,
        mel_starts=starts.to(DEVICE),
        text=torch.ones(n, dtype=torch.int32, device=DEVICE),
        text_starts=text_starts,
        speaker=torch.zeros(n, dtype=torch.int64, device=DEVICE),
        truncated=torch.zeros(n, dtype=torch.bool, device=DEVICE),
    )
    check(corpus, [n - 1], 8, 1, torch.float32)


ON_A_CPU = pytest.mark.skipif(DEVICE != "cpu", reason="a GPU's memory holds what it addresses")


def far_corpus(bins: int) -> gather.Corpus:
    """Whose second utterance lies beyond 2^31 values, symbols and frames."""
    near = make_corpus([4], bins, tracks=("pitch", "energy"))
    far, symbols = 2**31 + 5, len(near.text)

    def moved(values: Tensor) -> Tensor:
        width = values[0].numel()
        room = sparse((far + len(values)) * width, values.dtype).view(-1, *values.shape[1:])
        room[far:] = values
        return room

    return gather.Corpus(
        mel=moved(near.mel),
        mel_starts=torch.tensor([0, far, far + 4]),
        text=moved(near.text),
        text_starts=torch.tensor([0, far, far + symbols]),
        speaker=torch.tensor([1, 2]),
        truncated=torch.tensor([True, False]),
        silence=near.silence,
        pitch=moved(near.pitch),
        energy=moved(near.energy),
    )


@ON_A_CPU
def test_a_corpus_beyond_31_bits() -> None:
    check(far_corpus(4), [1, 1], 6, 12, torch.float32)


@ON_A_CPU
def test_a_batch_beyond_31_bits() -> None:
    """Of mels, by rows of 2^30 values; of the rest, by rows of two, the last three of 2^30."""
    corpus, bins, frames = make_corpus([2, 2, 2], 4, tracks=("pitch", "energy")), 4, 2**28 + 5
    order, flags = torch.arange(3), torch.zeros(3, dtype=torch.bool)
    numbers = [torch.zeros(3, dtype=torch.int64) for _ in range(4)]
    mel = sparse(3 * frames * bins, torch.float32).view(3, frames, bins)
    options = {"BINS": bins, "TILE": 16, "WIDTH": 16}
    text, *lengths = numbers
    outs = (mel, text, *lengths, flags, None, None, None, None)
    gather.gather_batch[(3,)](*corpus, order, *outs, 0, 3, 1, frames, 1, **options)
    for row in range(3):
        assert torch.equal(mel[row, :2], corpus.mel[2 * row : 2 * row + 2].float())
        assert torch.equal(mel[row, 2:4], corpus.silence.expand(2, -1))

    first = 2**30
    wide = {
        name: sparse((first + 3) * 2, kind).view(-1, 2)
        for name, kind in {
            "text": torch.int64,
            "mask": torch.bool,
            "stop": torch.float32,
            "pitch": torch.float32,
            "energy": torch.float32,
        }.items()
    }
    rows = [sparse(first + 3, torch.int64) for _ in range(3)]
    outs = (
        mel,
        wide["text"],
        *rows,
        sparse(first + 3, torch.bool),
        wide["mask"],
        wide["stop"],
        wide["pitch"],
        wide["energy"],
    )
    # As if so many rows came before these.
    gather.gather_batch[(3,)](*corpus, order, *outs, -first, -first, 1, 2, 2, **options)
    truth = expected(corpus, [0, 1, 2], 2, 2, torch.float32)
    for name, found in {
        "frame_mask": "mask",
        "stop_targets": "stop",
        "pitch": "pitch",
        "energy": "energy",
    }.items():
        assert torch.equal(wide[found][first:], truth[name].to(wide[found].dtype))
    ends = corpus.text_starts
    assert torch.equal(wide["text"][first:, 0], corpus.text[ends[:3]].long())
    assert torch.equal(rows[0][first:], truth["mel_lengths"])
