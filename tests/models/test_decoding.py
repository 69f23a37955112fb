from __future__ import annotations

from typing import Any

import pytest
import torch
from model_checks import assert_same, random_texts, small_model
from torch import Tensor

from ttsfast.models.convtts import ConvTTS
from ttsfast.models.decoding import DecoderCaches, window


def naive(model: ConvTTS, text: Tensor, speaker: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """One utterance by the definition: the whole past computed anew for every step."""
    r, config = model.config.reduction_factor, model.config
    symbols = text.shape[1]
    keys, values = model.encode_text(text, torch.tensor([symbols]), speaker)
    condition = model.condition(None, speaker)
    mel = torch.empty(1, 0, model.n_mels)
    allowed = torch.zeros(1, 0, symbols, dtype=torch.bool)
    last = 0
    for _ in range(steps):
        row = torch.zeros(1, 1, symbols, dtype=torch.bool)
        row[..., max(0, last - config.window_back) : last + config.window_ahead + 1] = True
        allowed = torch.cat([allowed, row], dim=1)
        heard = torch.cat([model.silence.expand(1, 1, -1), mel[:, r - 1 :: r]], dim=1)
        said, stop, attention = model.decode(heard, keys, values, allowed, condition, speaker)
        mel = torch.cat([mel, said[:, -r:]], dim=1)
        last = int(attention[0, -1].argmax())
    return mel, stop, attention


@pytest.mark.parametrize("r", [1, 3, 4])
@pytest.mark.parametrize("n_speakers", [1, 2])
@torch.no_grad()
def test_cached_speech_equals_the_definition(r: int, n_speakers: int) -> None:
    model = small_model(n_speakers, reduction_factor=r)
    text, text_lengths = random_texts([9])
    speaker = torch.tensor([n_speakers - 1])
    mel, _, attention = naive(model, text, speaker, steps=14)
    spoken = model.synthesize(text, text_lengths, speaker, max_frames=14 * r, stop_threshold=1.0)
    assert_same(spoken.mel, mel)
    assert_same(spoken.attention, attention)
    assert spoken.mel_lengths.tolist() == [14 * r]
    assert spoken.stopped.tolist() == [False]


def make_restless(model: ConvTTS) -> None:
    """Let the stop probability rise and fall, for each text in a phase and to a height of its own."""
    settled = model.decode

    def decode(heard: Tensor, keys: Tensor, values: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
        caches = others[-1] if isinstance(others[-1], DecoderCaches) else None
        steps = torch.arange(heard.shape[1]) + (0 if caches is None else caches.step)
        mel, stop, attention = settled(heard, keys, values, *others)
        phase = values[:, :1, 0]
        return mel, stop + (2.0 + phase) * torch.sin(1.3 * steps + 10.0 * phase), attention

    model.decode = decode  # type: ignore[method-assign]


def telling_threshold(probabilities: Tensor) -> float:
    """A stop threshold (of (B, S) probabilities) at which the utterances end at different steps, one never,
    and one that has ended fires again before the others have."""
    for threshold in probabilities.flatten().sort().values.tolist():
        fires = probabilities >= threshold
        first = torch.where(fires.any(1), fires.int().argmax(1), fires.shape[1])
        if len(set(first.tolist())) >= 3 and int(first.max()) == fires.shape[1] and (fires.sum(1) > 1).any():
            return threshold
    raise AssertionError("no threshold tells the utterances apart; use other texts")


@torch.no_grad()
def test_each_utterance_of_a_batch_ends_by_itself_and_as_if_alone() -> None:
    texts, r, steps = [1, 9, 5, 12], 3, 20
    model = small_model(reduction_factor=r)
    make_restless(model)
    text, lengths = random_texts(texts)
    stops = [
        naive(model, text[k : k + 1, :n], torch.tensor([0]), steps)[1].sigmoid() for k, n in enumerate(texts)
    ]
    # A little below the probability itself, so that rounding does not decide.
    threshold = telling_threshold(torch.cat(stops)) - 1e-5
    together = model.synthesize(text, lengths, max_frames=steps * r, stop_threshold=threshold)
    assert together.stopped.any()
    assert not together.stopped.all()
    for row, n in enumerate(texts):
        one = slice(row, row + 1)
        alone = model.synthesize(text[one, :n], lengths[one], max_frames=steps * r, stop_threshold=threshold)
        frames = int(alone.mel_lengths)
        assert int(together.mel_lengths[row]) == frames
        assert bool(together.stopped[row]) == bool(alone.stopped)
        assert alone.mel.shape[1] == frames
        assert_same(together.mel[one, :frames], alone.mel)
        assert_same(together.attention[one, : frames // r, :n], alone.attention)
        assert not together.attention[one, :, n:].any()
        fired = (stops[row][0] >= threshold).nonzero()
        assert frames == (int(fired[0]) + 1 if len(fired) else steps) * r


@torch.no_grad()
def test_attention_stays_in_the_window_around_the_last_symbol() -> None:
    model = small_model(window_back=1, window_ahead=2)
    text, lengths = random_texts([14, 8])
    attention = model.synthesize(text, lengths, max_frames=80, stop_threshold=1.0).attention
    assert_same(attention.sum(-1), torch.ones(2, 20))
    for row in range(2):
        last = 0
        for weights in attention[row]:
            seen = weights.nonzero().flatten()
            assert int(seen.min()) >= last - 1
            assert int(seen.max()) <= last + 2
            last = int(weights.argmax())


def test_the_window_is_counted_from_the_last_symbol_read() -> None:
    assert window(torch.tensor([0, 3]), 6, back=1, ahead=2).int().tolist() == [
        [1, 1, 1, 0, 0, 0],
        [0, 0, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize(("max_frames", "steps"), [(1, 1), (3, 1), (4, 2), (10, 4)])
def test_the_frame_limit_is_exact(max_frames: int, steps: int) -> None:
    model = small_model(reduction_factor=3)
    spoken = model.synthesize(*random_texts([4, 6]), max_frames=max_frames, stop_threshold=1.0)
    assert spoken.mel.shape[1] == max_frames
    assert spoken.attention.shape[1] == steps
    assert spoken.mel_lengths.tolist() == [max_frames] * 2
    assert not spoken.stopped.any()


def test_an_end_beyond_the_limit_is_cut_to_it() -> None:
    spoken = small_model(reduction_factor=4).synthesize(*random_texts([4]), max_frames=2, stop_threshold=1e-9)
    assert spoken.mel_lengths.tolist() == [2]
    assert spoken.mel.shape[1] == 2
    assert spoken.stopped.all()


def test_speech_is_a_function_of_its_text_and_leaves_the_model_as_it_was() -> None:
    model = small_model(dropout=0.5, prenet_dropout=0.5).train()
    text, lengths = random_texts([6])
    first = model.synthesize(text, lengths, max_frames=20, stop_threshold=1.0)
    assert model.training
    assert model.prenet.training
    assert not first.mel.requires_grad
    second = model.eval().synthesize(text, lengths, max_frames=20, stop_threshold=1.0)
    assert_same(second.mel, first.mel, 0.0)
    assert not model.training


def test_it_speaks_under_autocast() -> None:
    model = small_model()
    text, lengths = random_texts([6, 3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model.synthesize(text, lengths, max_frames=12, stop_threshold=1.0)
    full = model.synthesize(text, lengths, max_frames=12, stop_threshold=1.0)
    assert_same(low.mel[:, :4].float(), full.mel[:, :4], 0.1)
    assert torch.isfinite(low.mel).all()


def test_a_limit_of_no_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="max_frames is 0"):
        small_model().synthesize(*random_texts([4]), max_frames=0)
