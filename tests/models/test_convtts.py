from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from model_checks import BINS, SYMBOLS, assert_same, random_mels, random_texts, small_model
from torch import Tensor

from ttsfast.errors import InputError
from ttsfast.models.convtts import ConvTTS
from ttsfast.models.convtts_config import SIZES, ConvTTSConfig
from ttsfast.models.interface import AcousticOutput

TEXTS, MELS = [1, 9, 4], [30, 17, 5]


def outputs(out: AcousticOutput) -> dict[str, Tensor]:
    assert out.posterior is not None
    assert out.stop_logits is not None
    assert out.attention is not None
    return {
        "mel": out.final_mel,
        "stop": out.stop_logits,
        "attention": out.attention,
        "mu": out.posterior[0],
        "logvar": out.posterior[1],
    }


@pytest.mark.parametrize("r", [1, 3, 4])
@pytest.mark.parametrize("frames", [30, 31, 32, 40])
def test_shapes_are_those_of_the_interface(r: int, frames: int) -> None:
    model = small_model(reduction_factor=r)
    out = model(*random_texts(TEXTS), *random_mels(MELS, frames))
    steps = -(-frames // r)
    assert out.mel.shape == (3, frames, BINS)
    assert out.stop_logits.shape == (3, steps)
    assert out.attention.shape == (3, steps, 9)
    assert model.reduction_factor == r
    assert out.step_lengths.tolist() == [-(-length // r) for length in MELS]
    assert out.posterior[0].shape == out.posterior[1].shape == (3, 4)


@pytest.mark.parametrize("r", [1, 3, 4])
@pytest.mark.parametrize("n_speakers", [1, 3])
def test_a_batch_gives_what_each_utterance_gives_alone(r: int, n_speakers: int) -> None:
    model = small_model(n_speakers, reduction_factor=r)
    text, text_lengths = random_texts(TEXTS, longest=12)
    mel, mel_lengths = random_mels(MELS, 40)
    speaker = torch.tensor([2, 0, 1]) if n_speakers > 1 else None
    together = outputs(model(text, text_lengths, mel, mel_lengths, speaker=speaker))
    for row, (n, t) in enumerate(zip(TEXTS, MELS, strict=True)):
        one = slice(row, row + 1)
        alone = outputs(
            model(
                text[one, :n],
                text_lengths[one],
                mel[one, :t],
                mel_lengths[one],
                speaker=None if speaker is None else speaker[one],
            )
        )
        s = -(-t // r)
        valid = {"mel": (one, slice(t)), "stop": (one, slice(s)), "attention": (one, slice(s), slice(n))}
        for name, expected in alone.items():
            assert_same(together[name][valid.get(name, one)], expected)


def test_what_the_padding_holds_does_not_matter() -> None:
    model = small_model()
    text, text_lengths = random_texts(TEXTS)
    mel, mel_lengths = random_mels(MELS, 40)
    clean = outputs(model(text, text_lengths, mel, mel_lengths))
    text[torch.arange(9)[None] >= text_lengths[:, None]] = 10**9
    mel[torch.arange(40)[None] >= mel_lengths[:, None]] = torch.nan
    dirty = outputs(model(text, text_lengths, mel, mel_lengths))
    for name, expected in clean.items():
        assert_same(dirty[name], expected, 0.0)


def test_garbage_in_the_padding_reaches_no_gradient() -> None:
    model = small_model().train()
    mel, mel_lengths = random_mels(MELS, 40)
    mel[torch.arange(40)[None] >= mel_lengths[:, None]] = torch.nan
    out = model(*random_texts(TEXTS), mel, mel_lengths)
    sum(value.square().sum() for value in outputs(out).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_padding_of_the_text_gets_no_attention() -> None:
    text, text_lengths = random_texts(TEXTS)
    attention = small_model()(text, text_lengths, *random_mels(MELS, 32)).attention
    assert not attention[
        torch.arange(9)[None, None].expand_as(attention) >= text_lengths[:, None, None]
    ].any()
    assert_same(attention.sum(-1), torch.ones(3, 8))


@pytest.mark.parametrize("r", [1, 3])
@pytest.mark.parametrize("changed", [4, 14, 20])
def test_a_frame_changes_nothing_before_it(r: int, changed: int) -> None:
    # Without the posterior, which sees the whole recording by design.
    model = small_model(reduction_factor=r, latent_dim=0)
    text, text_lengths = random_texts([7])
    mel, mel_lengths = random_mels([24], 24)
    before = model(text, text_lengths, mel, mel_lengths)
    other = mel.clone()
    other[:, changed] += 1.0
    after = model(text, text_lengths, other, mel_lengths)
    step = changed // r
    assert_same(after.mel[:, : (step + 1) * r], before.mel[:, : (step + 1) * r], 0.0)
    assert_same(after.stop_logits[:, : step + 1], before.stop_logits[:, : step + 1], 0.0)
    assert_same(after.attention[:, : step + 1], before.attention[:, : step + 1], 0.0)
    if changed % r == r - 1:
        assert not torch.equal(after.mel[:, (step + 1) * r], before.mel[:, (step + 1) * r])
    else:
        assert torch.equal(after.mel, before.mel)


def test_the_length_of_the_recording_changes_nothing_before_its_end() -> None:
    model = small_model(latent_dim=0)
    text, text_lengths = random_texts([7])
    mel, _ = random_mels([32], 32)
    long = model(text, text_lengths, mel, torch.tensor([32]))
    short = model(text, text_lengths, mel, torch.tensor([16]))
    assert_same(short.mel[:, :16], long.mel[:, :16], 0.0)
    assert not torch.equal(short.mel[:, 20:], long.mel[:, 20:])


def test_speech_starts_from_silence() -> None:
    model = small_model(latent_dim=0)
    heard: list[Tensor] = []
    model.prenet.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    mel, mel_lengths = random_mels([16, 7], 16)
    model(*random_texts([3, 3]), mel, mel_lengths)
    silence = torch.linspace(-2.0, -1.0, BINS)
    assert_same(heard[0][:, 0], silence.expand(2, -1), 0.0)
    assert_same(heard[0][0, 1:], mel[0, 3:12:4], 0.0)
    assert_same(heard[0][1, 1], mel[1, 3], 0.0)
    assert_same(heard[0][1, 2:], silence.expand(2, -1), 0.0)


def test_the_latent_is_sampled_in_training_alone() -> None:
    model = small_model(dropout=0.0, prenet_dropout=0.0)
    inputs = (*random_texts([5, 6]), *random_mels([12, 16], 16))
    assert_same(model(*inputs).mel, model(*inputs).mel, 0.0)
    model.train()
    assert (model(*inputs).mel - model(*inputs).mel).abs().max() > 1e-3


def test_the_latent_and_the_speaker_are_heard() -> None:
    model = small_model(n_speakers=2)
    inputs = (*random_texts([5]), *random_mels([16], 16))
    one, two = (model(*inputs, speaker=torch.tensor([k])).mel for k in range(2))
    assert (one - two).abs().max() > 1e-3
    keys, values = model.encode_text(*inputs[:2], torch.tensor([0]))
    assert keys.shape == values.shape
    zero = model.condition(None, torch.tensor([0]))
    assert_same(zero, model.condition(torch.zeros(1, 4), torch.tensor([0])), 0.0)
    assert (zero - model.condition(torch.ones(1, 4), torch.tensor([0]))).abs().max() > 1e-3


def test_without_a_latent_there_is_no_posterior() -> None:
    model = small_model(latent_dim=0)
    assert model(*random_texts([5]), *random_mels([16], 16)).posterior is None
    assert not any("posterior" in name for name, _ in model.named_parameters())


def test_a_model_of_several_speakers_asks_which() -> None:
    model = small_model(n_speakers=2)
    with pytest.raises(ValueError, match="2 speakers: give speaker ids"):
        model(*random_texts([5]), *random_mels([16], 16))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_trains_under_autocast(dtype: torch.dtype) -> None:
    model = small_model().train()
    inputs = (*random_texts(TEXTS), *random_mels(MELS, 32))
    with torch.autocast("cpu", dtype=dtype):
        out = model(*inputs)
    assert out.attention.dtype == torch.float32
    assert out.posterior[0].dtype == torch.float32
    sum(value.float().square().sum() for value in outputs(out).values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    model.eval()
    with torch.autocast("cpu", dtype=dtype):
        low = outputs(model(*inputs))
    for name, expected in outputs(model(*inputs)).items():
        assert_same(low[name].float(), expected, 0.1)


def test_double_precision_agrees() -> None:
    model = small_model()
    inputs = (*random_texts(TEXTS), *random_mels(MELS, 32))
    single = outputs(model(*inputs))
    model.double()
    double = outputs(model(*inputs[:2], inputs[2].double(), inputs[3]))
    for name, expected in double.items():
        assert expected.dtype == torch.float64
        assert_same(single[name].double(), expected)


def test_it_learns_one_batch() -> None:
    torch.manual_seed(0)
    model = small_model(channels=32, dropout=0.0, prenet_dropout=0.0).train()
    inputs = (*random_texts([8, 6]), *random_mels([24, 17], 24))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    errors = []
    for _ in range(60):
        error = (model(*inputs).mel - inputs[2])[0].square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    assert errors[-1] < 0.2 * errors[0]


def test_sizes() -> None:
    assert set(SIZES) == {"nano", "small", "base"}
    model = ConvTTS.from_size(
        "nano", n_symbols=40, n_mels=80, n_speakers=1, silence=np.zeros(80, np.float32), reduction_factor=2
    )
    assert (model.config.channels, model.config.reduction_factor) == (128, 2)
    assert 1.5e6 < sum(p.numel() for p in ConvTTS.from_size("nano", 40, 80).parameters()) < 2.5e6
    assert ConvTTS.from_size("small", 40, 80).config.channels == 256
    assert not [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 7}, "channels is 7; use an even number"),
        ({"reduction_factor": 0}, "reduction_factor is 0; use 1 or more"),
        ({"latent_dim": -1}, "latent_dim is -1; use 0 or more"),
        ({"dropout": 1.0}, "dropout is 1.0; use a share"),
        ({"prenet_dropout": -0.1}, "prenet_dropout is -0.1; use a share"),
        ({"text_dilations": ()}, r"text_dilations is \(\); use one or more"),
        ({"decoder_dilations": [1, 0]}, r"decoder_dilations is \(1, 0\); use one or more"),
        ({"symbols_per_frame": float("nan")}, "symbols_per_frame is nan; use a positive number"),
        ({"window_ahead": 0}, "window_ahead is 0; use 1 or more"),
        ({"window_back": -1}, "window_back is -1; use 0 or more"),
        ({"hidden": 3}, "no hidden; see its fields"),
    ],
)
def test_a_bad_config_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ConvTTS.from_size("nano", 10, 80, **changes)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InputError, match="'tiny'; use one of nano, small, base"):
        ConvTTS.from_size("tiny", 10, 80)
    with pytest.raises(InputError, match="n_symbols is 0"):
        ConvTTS(ConvTTSConfig(), 0, 80)
    with pytest.raises(InputError, match=r"silence has shape \(3,\); give one value per mel bin, \(80,\)"):
        ConvTTS(ConvTTSConfig(), SYMBOLS, 80, silence=torch.zeros(3))


def test_a_config_survives_json() -> None:
    config = ConvTTSConfig(text_dilations=[1, 3])  # type: ignore[arg-type]
    assert config.text_dilations == (1, 3)
    assert config == ConvTTSConfig(text_dilations=(1, 3))


def test_weights_move_to_another_model() -> None:
    model, other = small_model(), ConvTTS(small_model().config, SYMBOLS, BINS)
    other.load_state_dict(model.state_dict())
    inputs = (*random_texts([5]), *random_mels([16], 16))
    assert_same(other.eval()(*inputs).mel, model(*inputs).mel, 0.0)
