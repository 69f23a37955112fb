from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from model_checks import (
    BINS,
    STATISTICS,
    SYMBOLS,
    assert_same,
    random_mels,
    random_texts,
    random_tracks,
    small_parallel,
)
from torch import Tensor

from ttsfast.errors import InputError
from ttsfast.models.interface import AcousticOutput
from ttsfast.models.paralleltts import ParallelTTS
from ttsfast.models.paralleltts_config import SIZES, ParallelTTSConfig

TEXTS, MELS = [1, 9, 4], [30, 21, 9]


def inputs(texts: list[int], mels: list[int], frames: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    return (*random_texts(texts), *random_mels(mels, frames)), random_tracks(mels, frames)


def outputs(out: AcousticOutput) -> dict[str, Tensor]:
    found = {
        "mel": out.final_mel,
        "attention": out.attention,
        "log_probs": out.alignment_log_probs,
        "prior": out.alignment_prior,
        "auxiliary": out.auxiliary,
    }
    assert all(isinstance(value, Tensor) for value in found.values())
    return found  # type: ignore[return-value]


def readable(out: AcousticOutput, text_lengths: Tensor) -> Tensor:
    """(B, S, N) bool: steps and symbols that are not padding."""
    assert out.attention is not None
    assert out.step_lengths is not None
    s, n = (torch.arange(size) for size in out.attention.shape[1:])
    return (s[:, None] < out.step_lengths[:, None, None]) & (n < text_lengths[:, None, None])


@pytest.mark.parametrize("r", [1, 2, 3])
@pytest.mark.parametrize("frames", [30, 31])
def test_shapes_are_those_of_the_interface(r: int, frames: int) -> None:
    model = small_parallel(reduction_factor=r)
    given, tracks = inputs(TEXTS, MELS, frames)
    out = model(*given, **tracks)
    steps = -(-frames // r)
    assert out.mel.shape == (3, frames, BINS)
    assert out.attention.shape == out.alignment_log_probs.shape == (3, steps, 9)
    assert out.alignment_prior.shape == out.alignment_path.shape == (3, steps, 9)
    assert out.stop_logits is None
    assert out.posterior is None
    assert model.reduction_factor == r
    assert out.step_lengths.tolist() == [-(-length // r) for length in MELS]


def test_a_batch_gives_what_each_utterance_gives_alone() -> None:
    model = small_parallel(3, reduction_factor=2, refiner_dilations=(1,))
    text, text_lengths = random_texts(TEXTS, longest=12)
    mel, mel_lengths = random_mels(MELS, 40)
    tracks, speaker = random_tracks(MELS, 40), torch.tensor([2, 0, 1])
    together = outputs(model(text, text_lengths, mel, mel_lengths, speaker, **tracks))
    auxiliary = torch.zeros(())
    for row, (n, t) in enumerate(zip(TEXTS, MELS, strict=True)):
        one = slice(row, row + 1)
        own = {name: track[one, :t] for name, track in tracks.items()}
        alone = outputs(
            model(text[one, :n], text_lengths[one], mel[one, :t], mel_lengths[one], speaker[one], **own)
        )
        assert_same(together["mel"][one, :t], alone["mel"])
        s = -(-t // 2)
        for name in ("attention", "log_probs", "prior"):
            assert_same(together[name][one, :s, :n] + 1, alone[name] + 1)
        auxiliary = auxiliary + alone["auxiliary"]
    assert_same(together["auxiliary"], auxiliary, 1e-3)


def test_what_the_padding_holds_does_not_matter() -> None:
    model = small_parallel(refiner_dilations=(1,))
    (text, text_lengths, mel, mel_lengths), tracks = inputs(TEXTS, MELS, 40)
    clean = model(text, text_lengths, mel, mel_lengths, **tracks)
    text[torch.arange(9)[None] >= text_lengths[:, None]] = 10**9
    beyond = torch.arange(40)[None] >= mel_lengths[:, None]
    for padded in (mel, *tracks.values()):
        padded[beyond] = torch.nan
    dirty = model(text, text_lengths, mel, mel_lengths, **tracks)
    assert_same(dirty.final_mel, clean.final_mel, 0.0)
    assert_same(dirty.auxiliary, clean.auxiliary, 0.0)
    assert torch.equal(dirty.alignment_log_probs, clean.alignment_log_probs)
    assert torch.equal(dirty.attention, clean.attention)


def test_garbage_in_the_padding_reaches_no_gradient_and_every_parameter_has_one() -> None:
    model = small_parallel(2, refiner_dilations=(1,)).train()
    (text, text_lengths, mel, mel_lengths), tracks = inputs(TEXTS, MELS, 40)
    mel[torch.arange(40)[None] >= mel_lengths[:, None]] = torch.nan
    out = model(text, text_lengths, mel, mel_lengths, torch.tensor([0, 1, 1]), **tracks)
    known = torch.where(readable(out, text_lengths), out.alignment_log_probs, 0.0)
    (out.final_mel.square().sum() + known.square().sum() + out.auxiliary).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_attention_is_the_best_path_and_durations_add_up() -> None:
    (text, text_lengths, *rest), tracks = inputs(TEXTS, MELS, 32)
    out = small_parallel()(text, text_lengths, *rest, **tracks)
    attention = out.attention
    assert set(attention.unique().tolist()) == {0.0, 1.0}
    assert not attention[~readable(out, text_lengths)].any()
    assert attention.sum((1, 2)).tolist() == out.step_lengths.tolist()
    for row, (n, s) in enumerate(zip(TEXTS, out.step_lengths.tolist(), strict=True)):
        moves = attention[row, :s].argmax(-1).diff()
        assert set(moves.tolist()) <= {0, 1}
        assert attention[row, :, :n].any(0).all()
    assert_same(out.alignment_log_probs.exp().sum(-1), torch.ones(3, 16))


def test_an_utterance_of_fewer_steps_than_symbols_is_read_at_an_even_pace_and_teaches_no_durations() -> None:
    model = small_parallel()
    given, tracks = inputs([9], [10], 10)
    out = model(*given, **tracks)
    assert out.attention[0].argmax(-1).tolist() == [1, 3, 5, 7, 8]
    assert out.attention.sum(-1).tolist() == [[1.0] * 5]
    assert out.auxiliary.item() == 0.0
    assert torch.isfinite(out.mel).all()


def test_pitch_energy_and_speaker_are_heard() -> None:
    model = small_parallel(2)
    given, tracks = inputs([5], [16], 16)
    mel = model(*given, torch.tensor([0]), **tracks).mel
    assert (mel - model(*given, torch.tensor([1]), **tracks).mel).abs().max() > 1e-3
    for name in tracks:
        other = {**tracks, name: tracks[name] * 1.5}
        assert (mel - model(*given, torch.tensor([0]), **other).mel).abs().max() > 1e-3
        with pytest.raises(ValueError, match=f"this model learns {name}: give {name}"):
            model(*given, torch.tensor([0]), **{k: v for k, v in tracks.items() if k != name})


def test_a_symbol_has_the_mean_of_its_own_frames() -> None:
    """Of voiced ones in pitch: what a symbol is told is told by no other symbol's frames."""
    model = small_parallel(energy=False)
    heard: list[Tensor] = []
    model.variances["pitch"].embed.register_forward_pre_hook(lambda _, given: heard.append(given[0][..., 0]))
    given, tracks = inputs([5], [17], 17)
    path = model(*given, pitch=tracks["pitch"]).alignment_path[0]
    mean, std = STATISTICS["pitch"]
    for symbol in range(5):
        own = tracks["pitch"][0][path[:, symbol].repeat_interleave(2)[:17]]
        voiced = own[own > 0]
        expected = (voiced.mean() - mean) / std if len(voiced) else torch.zeros(())
        assert float(heard[0][0, symbol]) == pytest.approx(float(expected), abs=1e-4)


def test_a_model_of_several_speakers_asks_which() -> None:
    given, tracks = inputs([5], [16], 16)
    with pytest.raises(ValueError, match="2 speakers: give speaker ids"):
        small_parallel(2)(*given, **tracks)


def test_it_trains_under_autocast() -> None:
    model = small_parallel().train()
    given, tracks = inputs(TEXTS, MELS, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(*given, **tracks)
    assert out.alignment_log_probs.dtype == out.auxiliary.dtype == torch.float32
    known = torch.where(readable(out, given[1]), out.alignment_log_probs, 0.0)
    (out.mel.float().square().sum() + known.sum() + out.auxiliary).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_double_precision_agrees() -> None:
    model = small_parallel()
    (text, text_lengths, mel, mel_lengths), tracks = inputs(TEXTS, MELS, 32)
    single = outputs(model(text, text_lengths, mel, mel_lengths, **tracks))
    model.double()
    wide = {name: track.double() for name, track in tracks.items()}
    double = outputs(model(text, text_lengths, mel.double(), mel_lengths, **wide))
    assert double["mel"].dtype == torch.float64
    for name in ("mel", "attention", "auxiliary"):
        assert_same(single[name].double(), double[name].double(), 1e-4)


def test_a_batch_speaks_as_each_text_alone() -> None:
    model = small_parallel(2, refiner_dilations=(1,))
    text, lengths = random_texts(TEXTS, longest=11)
    speaker = torch.tensor([0, 1, 1])
    together = model.synthesize(text, lengths, speaker, max_frames=200)
    assert together.stopped.all()
    assert len(set(together.mel_lengths.tolist())) == 3
    for row, n in enumerate(TEXTS):
        one = slice(row, row + 1)
        alone = model.synthesize(text[one, :n], lengths[one], speaker[one], max_frames=200)
        t = int(alone.mel_lengths[0])
        assert t == int(together.mel_lengths[row])
        assert_same(together.mel[one, :t], alone.mel)
        attention = together.attention_of(row, n)
        assert attention is not None
        # Every symbol is spoken, for a step at least.
        assert attention.any(0).all()
        assert attention.sum() == -(-t // 2)


def test_speech_is_that_of_the_recording_where_durations_and_tracks_are() -> None:
    """What is spoken and what is trained are one computation."""
    model = small_parallel(pitch=False, energy=False)
    text, lengths = random_texts([6])
    spoken = model.synthesize(text, lengths, max_frames=300)
    path = spoken.attention.bool()
    _, encoded = model.encode_text(text, lengths, torch.zeros(1, dtype=torch.int64))
    durations = path.sum(1)
    assert_same(model.spoken(encoded, durations, path, spoken.mel_lengths), spoken.mel)


def test_where_it_is_too_long_it_is_cut_and_says_so() -> None:
    model = small_parallel()
    text, lengths = random_texts([9, 1])
    whole = model.synthesize(text, lengths, max_frames=400)
    cut = model.synthesize(text, lengths, max_frames=7)
    assert cut.stopped.tolist() == [False, bool(whole.mel_lengths[1] <= 7)]
    assert int(cut.mel_lengths[0]) == cut.mel.shape[1] == 7
    with pytest.raises(ValueError, match="max_frames is 0"):
        model.synthesize(text, lengths, max_frames=0)


@pytest.mark.parametrize("speed", [2.0, 0.5])
def test_speed_divides_the_length(speed: float) -> None:
    model = small_parallel()
    text, lengths = random_texts([9, 6])
    usual = model.synthesize(text, lengths, max_frames=900)
    other = model.synthesize(text, lengths, max_frames=900, speed=speed)
    for frames, found in zip(usual.mel_lengths.tolist(), other.mel_lengths.tolist(), strict=True):
        # Ends are rounded to whole steps of two frames.
        assert abs(found - frames / speed) <= 2 + 1 / speed


def test_pitch_is_raised_in_semitones() -> None:
    model = small_parallel()
    variance = model.variances["pitch"]
    mean, std = STATISTICS["pitch"]
    hertz = torch.tensor([150.0, 220.0])
    raised = variance.shifted(variance.normalised(hertz), 12.0) * std + mean
    assert_same(raised, 2 * hertz, 1e-3)
    text, lengths = random_texts([5])
    usual, higher = (model.synthesize(text, lengths, max_frames=200, pitch=p) for p in (0.0, 4.0))
    assert usual.mel.shape == higher.mel.shape
    assert (usual.mel - higher.mel).abs().max() > 1e-3
    assert model.controls == ("speed", "pitch")
    without = small_parallel(pitch=False)
    assert without.controls == ("speed",)
    with pytest.raises(ValueError, match="has learnt no pitch"):
        without.synthesize(text, lengths, max_frames=200, pitch=1.0)


def test_speaking_leaves_training_as_it_was_and_is_without_dropout() -> None:
    model = small_parallel(dropout=0.5).train()
    text, lengths = random_texts([5])
    first = model.synthesize(text, lengths, max_frames=100)
    assert model.training
    assert_same(model.eval().synthesize(text, lengths, max_frames=100).mel, first.mel, 0.0)


def test_it_learns_the_durations_of_one_batch() -> None:
    torch.manual_seed(0)
    model = small_parallel(dropout=0.0, pitch=False, energy=False).train()
    given, _ = inputs([8, 6], [40, 27], 40)
    optimizer = torch.optim.AdamW(model.durations.parameters(), lr=5e-2)
    for _ in range(25):
        out = model(*given)
        optimizer.zero_grad()
        out.auxiliary.backward()
        optimizer.step()
    spoken = model.synthesize(given[0], given[1], max_frames=100)
    for found, frames in zip(spoken.mel_lengths.tolist(), (40, 27), strict=True):
        assert abs(found - frames) <= 3


def test_sizes() -> None:
    assert set(SIZES) == {"nano", "small", "base"}
    silence = np.zeros(80, np.float32)
    model = ParallelTTS.from_size("nano", 40, 80, silence=silence, reduction_factor=3)
    assert (model.config.channels, model.config.reduction_factor) == (128, 3)
    assert 1.0e6 < sum(p.numel() for p in model.parameters()) < 2.5e6
    assert ParallelTTS.from_size("small", 40, 80).config.channels == 256
    assert not [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("size", ["small", "base"])
def test_a_larger_size_hears_and_speaks(size: str) -> None:
    torch.manual_seed(0)
    model = ParallelTTS.from_size(size, 40, 80, pitch=True, energy=True, statistics=STATISTICS).eval()
    text, lengths = random_texts([3, 2])
    mel, tracks = torch.randn(2, 8, 80), random_tracks([8, 6], 8)
    out = model(text, lengths, mel, torch.tensor([8, 6]), **tracks)
    assert out.final_mel.shape == mel.shape
    assert out.attention.shape == (2, 4, 3)
    spoken = model.synthesize(text, lengths, max_frames=20)
    assert spoken.mel.shape == (2, int(spoken.mel_lengths.max()), 80)
    assert torch.isfinite(spoken.mel).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 0}, "channels is 0; use 1 or more"),
        ({"reduction_factor": 0}, "reduction_factor is 0; use 1 or more"),
        ({"dropout": 1.0}, "dropout is 1.0; use a share"),
        ({"text_dilations": ()}, r"text_dilations is \(\); use one or more"),
        ({"decoder_dilations": [1, 0]}, r"decoder_dilations is \(1, 0\); use one or more"),
        ({"hidden": 3}, "no hidden; see its fields"),
        (
            {"pitch": True},
            "the model learns pitch, and the store has no track of it: `ttsfast prepare --pitch`",
        ),
    ],
)
def test_a_bad_config_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ParallelTTS.from_size("nano", 10, 80, **changes)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InputError, match="'tiny'; use one of nano, small, base"):
        ParallelTTS.from_size("tiny", 10, 80)
    with pytest.raises(InputError, match="n_symbols is 0"):
        ParallelTTS(ParallelTTSConfig(), 0, 80)
    with pytest.raises(InputError, match=r"silence has shape \(3,\); give one value per mel bin, \(80,\)"):
        ParallelTTS(ParallelTTSConfig(), SYMBOLS, 80, silence=torch.zeros(3))
