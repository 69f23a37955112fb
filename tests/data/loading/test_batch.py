"""Batches: padding, lengths, the extension against numpy, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ttsfast
from ttsfast import native
from ttsfast.data.loading.batch import Batch, Utterance, collate, pad_frames, padded_length
from ttsfast.errors import InputError

needs_native = pytest.mark.skipif(native.core is None, reason=native.why_missing or "the extension is there")


def utterance(name: str, frames: int, symbols: int, bins: int = 80, dtype: type = np.float16) -> Utterance:
    generator = np.random.default_rng(frames * 1000 + symbols)
    return Utterance(
        id=name,
        text=generator.integers(1, 30, symbols),
        mel=generator.standard_normal((frames, bins)).astype(dtype),
        speaker=frames % 3,
        truncated=frames % 2 == 1,
    )


def assert_same_batch(left: Batch, right: Batch) -> None:
    """Bit for bit, types and shapes included, and not the same object."""
    assert left is not right
    assert left.ids == right.ids
    assert left.frames == right.frames
    for name, tensor in left.tensors().items():
        other = right.tensors()[name]
        assert tensor.dtype == other.dtype
        assert tensor.shape == other.shape
        assert tensor.numpy().tobytes() == other.numpy().tobytes(), name


@pytest.mark.parametrize(
    ("longest", "tail", "multiple", "expected"),
    [
        (1, 8, 8, 16),
        (8, 8, 8, 16),
        (9, 8, 8, 24),
        (63, 8, 8, 72),
        (65, 0, 8, 72),
        (64, 0, 8, 64),
        (5, 8, 1, 13),
    ],
)
def test_padded_length(longest: int, tail: int, multiple: int, expected: int) -> None:
    assert padded_length(longest, tail, multiple) == expected


@pytest.mark.parametrize("bins", [1, 7, 80, 100])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_every_element_is_in_its_place(bins: int, dtype: type) -> None:
    items = [utterance(f"u{n}", n, n + 2, bins, dtype) for n in (63, 1, 65, 17)]
    silence = np.linspace(-3, -2, bins).astype(np.float32)
    batch = collate(items, pad_value=silence)
    assert batch.mel.shape == (4, 80, bins)
    # The longest, 67, as a multiple of 8.
    assert batch.text.shape == (4, 72)
    assert batch.mel.dtype == torch.float32
    assert batch.frames == 146
    for row, item in enumerate(items):
        frames = len(item.mel)
        np.testing.assert_array_equal(batch.mel[row, :frames].numpy(), item.mel.astype(np.float32))
        np.testing.assert_array_equal(
            batch.mel[row, frames:].numpy(), np.broadcast_to(silence, (80 - frames, bins))
        )
        assert batch.text[row].tolist() == item.text.tolist() + [0] * (72 - len(item.text))
    assert batch.mel_lengths.tolist() == [63, 1, 65, 17]
    assert batch.text_lengths.tolist() == [65, 3, 67, 19]
    assert batch.speaker.tolist() == [0, 1, 2, 2]
    assert batch.truncated.tolist() == [True, True, True, True]
    assert batch.text.dtype == batch.mel_lengths.dtype == batch.speaker.dtype == torch.int64


def test_empty_utterance_is_all_silence() -> None:
    batch = collate([utterance("a", 0, 1), utterance("b", 3, 2)], pad_value=-2.5)
    assert (batch.mel[0] == -2.5).all()
    assert batch.mel_lengths.tolist() == [0, 3]


def test_works_as_a_collate_fn() -> None:
    items = [utterance(f"u{n}", 10 + n, 5) for n in range(5)]
    loader = torch.utils.data.DataLoader(items, batch_size=2, collate_fn=ttsfast.collate)  # type: ignore[arg-type]
    batches = list(loader)
    assert [b.ids for b in batches] == [("u0", "u1"), ("u2", "u3"), ("u4",)]
    assert_same_batch(batches[0], collate(items[:2]))


def test_other_dtypes_and_strides_are_taken_by_value() -> None:
    item = utterance("a", 12, 4, bins=8, dtype=np.float32)
    expected = collate([item])
    double = Utterance("a", item.text, item.mel.astype(np.float64), item.speaker, item.truncated)
    strided = Utterance("a", item.text, np.repeat(item.mel, 2, axis=1)[:, ::2], item.speaker, item.truncated)
    assert_same_batch(collate([double]), expected)
    assert_same_batch(collate([strided]), expected)
    half = collate([item], dtype=torch.bfloat16)
    assert half.mel.dtype == torch.bfloat16
    torch.testing.assert_close(half.mel, expected.mel.bfloat16(), rtol=0, atol=0)


def test_bad_input_names_the_utterance() -> None:
    with pytest.raises(InputError, match="no utterances"):
        collate([])
    with pytest.raises(InputError, match=r"'b'.*\(5, 79\).*'a'"):
        collate([utterance("a", 5, 3), utterance("b", 5, 3, bins=79)])
    with pytest.raises(InputError, match="'flat'"):
        collate([Utterance("flat", np.arange(3), np.zeros(80, np.float32))])
    with pytest.raises(InputError, match=r"'square'.*\(N,\)"):
        collate([Utterance("square", np.zeros((3, 3), np.int64), np.zeros((4, 80), np.float32))])


@needs_native
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    bins=st.integers(1, 33),
    halves=st.integers(0, 63),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=80, deadline=None)
def test_extension_and_numpy_give_the_same_bytes(
    lengths: list[int], bins: int, halves: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    sources = []
    for row, frames in enumerate(lengths):
        if halves >> row & 1:
            # Every bit pattern but signalling NaNs, whose quieting is the processor's own affair.
            bits = generator.integers(0, 1 << 16, (frames, bins), dtype=np.uint16)
            bits[(bits & 0x7C00) == 0x7C00] &= 0xFC00
            sources.append(bits.view(np.float16))
        else:
            sources.append(generator.standard_normal((frames, bins)).astype(np.float32))
    pad = generator.standard_normal(bins).astype(np.float32)
    # Poisoned, so that an element nobody wrote would differ from its twin.
    ours = np.full((len(lengths), max(lengths) + 3, bins), np.nan, np.float32)
    theirs = np.full_like(ours, 12345.0)
    pad_frames(sources, ours, pad)
    core, native.core = native.core, None
    try:
        pad_frames(sources, theirs, pad)
    finally:
        native.core = core
    assert ours.tobytes() == theirs.tobytes()


@needs_native
def test_the_extension_writes_nothing_outside_its_rows() -> None:
    buffer = np.full((5, 10, 4), 7.0, np.float32)
    native.core.gather_frames([np.zeros((10, 4), np.float16)] * 3, buffer[1:4], np.zeros(4, np.float32))
    assert (buffer[0] == 7).all()
    assert (buffer[4] == 7).all()
    assert (buffer[1:4] == 0).all()


@needs_native
def test_the_extension_refuses_what_does_not_fit() -> None:
    out = np.zeros((2, 5, 3), np.float32)
    pad = np.zeros(3, np.float32)
    good = np.zeros((5, 3), np.float16)
    readonly = out.copy()
    readonly.flags.writeable = False
    bad = [
        ([good], out, pad),
        ([good, np.zeros((6, 3), np.float16)], out, pad),
        ([good, np.zeros((5, 4), np.float16)], out, pad),
        ([good, np.zeros((5, 3), np.float64)], out, pad),
        ([good, np.zeros((5, 3), ">f2")], out, pad),
        ([good, np.zeros((5, 6), np.float16)[:, ::2]], out, pad),
        ([good, np.zeros(15, np.float16)], out, pad),
        ([good, [[0.0] * 3] * 5], out, pad),
        ([good, good], out, np.zeros(2, np.float32)),
        ([good, good], out, np.zeros(3, np.float64)),
        ([good, good], out[:, :, ::-1], pad),
        ([good, good], out.astype(np.float64), pad),
        ([good, good], out[0], pad),
        ([good, good], readonly, pad),
    ]
    for arguments in bad:
        with pytest.raises((ValueError, TypeError)):
            native.core.gather_frames(*arguments)
    assert not out.any()
