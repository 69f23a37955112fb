"""Models of other people: how a factory is found, and what is said of a model that does not fit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_checks import small_model
from torch import Tensor, nn
from typer.testing import CliRunner

from ttsfast.cli import app
from ttsfast.config import Config, ModelConfig, config_from_dict
from ttsfast.data.corpus.text import Symbols, TextFrontend
from ttsfast.data.features.contract import MelContract
from ttsfast.errors import InputError
from ttsfast.models.build import build_model
from ttsfast.models.checkpoint import checkpoint_folder
from ttsfast.models.checks.contract import check_model
from ttsfast.models.interface import AcousticOutput, FreeRunning
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.training.checkpoint import save_checkpoint

BINS = 80
INFO = VoiceInfo(
    contract=MelContract.preset("librosa-22k"),
    frontend=TextFrontend("en"),
    symbols=Symbols.of(["abc"]),
    speakers=("one",),
    mel_mean=np.zeros(BINS, dtype=np.float32),
    mel_std=np.ones(BINS, dtype=np.float32),
    silence=np.full(BINS, -2.0, dtype=np.float32),
    max_frames=40,
)


class Plain(nn.Module):
    """Mels from nothing but the text's mean: the least that trains."""

    reduction_factor = 1

    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(len(INFO.symbols), BINS)
        self.dropout = nn.Dropout(0.5)

    def forward(
        self, text: Tensor, text_lengths: Tensor, mel: Tensor, mel_lengths: Tensor, speaker: Any = None
    ) -> dict[str, Tensor]:
        mean = self.dropout(self.symbols(text)).mean(1, keepdim=True)
        return {"mel": mean.expand(-1, mel.shape[1], -1)}

    def synthesize(
        self, text: Tensor, text_lengths: Tensor, speaker: Any = None, *, max_frames: int, **_: float
    ) -> FreeRunning:
        mel = self.symbols(text).mean(1, keepdim=True).expand(-1, 8, -1)
        full = torch.full_like(text_lengths, 8)
        return FreeRunning(mel=mel, mel_lengths=full, attention=None, stopped=full > 0)


def no_terms(**training: Any) -> Config:
    off = {"stop_loss_weight": 0.0, "attention_loss_weight": 0.0, "kl_loss_weight": 0.0}
    return config_from_dict({"training": {**off, **training}})


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Write ``my_voice.py`` into the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(source: str) -> None:
        monkeypatch.delitem(sys.modules, "my_voice", raising=False)
        (tmp_path / "my_voice.py").write_text(source, encoding="utf-8")

    return write


GOOD = """
from torch import nn
def build(voice, options):
    return nn.Linear(len(voice.symbols), options.latent_dim)
"""


def test_a_factory_in_the_current_folder_builds_the_model(write_module: Callable[[str], None]) -> None:
    write_module(GOOD)
    model = build_model(ModelConfig(architecture="my_voice:build", latent_dim=3), INFO)
    assert isinstance(model, nn.Linear)
    assert (model.in_features, model.out_features) == (4, 3)


@pytest.mark.parametrize(
    ("architecture", "source", "message"),
    [
        ("my_voice", GOOD, "write convtts, paralleltts, or package.module:factory"),
        ("my_voice:", GOOD, "write convtts, paralleltts, or package.module:factory"),
        ("my-voice:build", GOOD, "write convtts, paralleltts, or package.module:factory"),
        ("no_such.thing:build", GOOD, r"no module no_such in .* start ttsfast in the folder that holds it"),
        ("my_voice:built", GOOD, r"my_voice has no built; it has build"),
        ("my_voice:build", "import no_such_dependency", "needs the module no_such_dependency; install that"),
        ("my_voice:build", "build = 3", "it is of type int; name a function"),
        (
            "my_voice:build",
            "def build(voice): pass",
            r"called as factory\(voice, options\), and takes \(voice\)",
        ),
        ("my_voice:build", "def build(voice, options, width): pass", r"missing a required argument: 'width'"),
        ("my_voice:build", "def build(voice, options): pass", r"returned NoneType; return a torch.nn.Module"),
    ],
)
def test_a_factory_that_does_not_fit_is_one_clear_line(
    architecture: str, source: str, message: str, write_module: Callable[[str], None]
) -> None:
    write_module(source)
    with pytest.raises(InputError, match=message) as caught:
        build_model(ModelConfig(architecture=architecture), INFO)
    assert str(caught.value).startswith(f"model.architecture={architecture}: ")
    assert "\n" not in str(caught.value)


def test_a_key_that_the_factory_does_not_read_is_refused(write_module: Callable[[str], None]) -> None:
    write_module(GOOD)
    with pytest.raises(InputError, match=r"model.dropout=0.3 is set, and the model does not read it"):
        build_model(ModelConfig(architecture="my_voice:build", dropout=0.3), INFO)


@pytest.mark.parametrize("command", ["synth", "evaluate", "export"])
def test_a_voice_from_elsewhere_runs_no_code_unless_it_is_trusted(
    command: str, write_module: Callable[[str], None], tmp_path: Path
) -> None:
    write_module(f"open('imported', 'w').close()\n{GOOD}")
    config = config_from_dict({"model": {"architecture": "my_voice:build"}, "data": {"store": str(tmp_path)}})
    model = build_model(config.model, INFO)
    (tmp_path / "imported").unlink()
    del sys.modules["my_voice"]
    state = {"config": config.to_dict()}
    folder = checkpoint_folder(tmp_path / "run", 1)
    save_checkpoint(folder, 1, weights=model.state_dict(), training={}, voice=INFO.to_dict(), state=state)
    # A store that is there, as far as a voice is loaded.
    (tmp_path / "manifest.json").touch()
    arguments = [command, "run", *(["abc"] if command == "synth" else [])]
    refused = CliRunner().invoke(app, arguments).exception
    assert isinstance(refused, InputError)
    assert "model.architecture=my_voice:build would import the module my_voice from " in str(refused)
    assert "add --trust-code" in str(refused)
    assert not (tmp_path / "imported").exists()
    # What comes next is about the model, which is no voice.
    result = CliRunner().invoke(app, [*arguments, "--trust-code"])
    assert result.exit_code != 0
    assert (tmp_path / "imported").exists()


def test_a_model_of_mels_alone_fits_where_the_other_terms_are_off() -> None:
    model = Plain().train()
    before = torch.get_rng_state()
    check_model(model, INFO, no_terms())
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("stop_loss_weight", "stop_logits"),
        ("attention_loss_weight", "attention"),
        ("kl_loss_weight", "posterior"),
        ("alignment_loss_weight", "alignment_log_probs"),
        ("binarization_loss_weight", "alignment_log_probs"),
    ],
)
def test_an_output_that_a_weight_needs_is_named_with_its_key(key: str, name: str) -> None:
    with pytest.raises(InputError, match=rf"gives no {name}, which training\.{key}=2 needs"):
        check_model(Plain(), INFO, no_terms(**{key: 2.0}))


def answer(**outputs: Any) -> Callable[..., Any]:
    """A forward that gives these outputs; (1, 2) tensors stand for shapes."""

    def forward(text: Tensor, text_lengths: Tensor, mel: Tensor, mel_lengths: Tensor, speaker: Any) -> Any:
        return {"mel": torch.zeros_like(mel), **outputs}

    return forward


WRONG = [
    (answer(mel=torch.zeros(2, BINS, 8)), r"mel has shape \(2, 80, 8\), expected \(2, 8, 80\)"),
    (answer(mel=[torch.zeros(2, 8, BINS)] * 3), r"mel has 3 parts; return one tensor, or \(before, after\)"),
    (answer(mel=3), "mel is of type int; return a tensor"),
    (answer(stop_logits=torch.zeros(2, 4)), r"stop_logits has shape \(2, 4\), expected \(2, 8\).*reduction_"),
    (answer(attention=torch.zeros(2, 5, 8)), r"attention has shape \(2, 5, 8\), expected \(2, 8, 5\) or"),
    (answer(step_lengths=torch.tensor([4, 3])), r"step_lengths are \[4, 3\], expected \[8, 6\]"),
    (answer(posterior=torch.zeros(2, 4)), r"posterior is not a pair; return \(mu, logvar\)"),
    (answer(posterior=(torch.zeros(2, 4), torch.zeros(4, 4))), r"posterior logvar has shape \(4, 4\)"),
    (answer(auxiliary=torch.zeros(2)), r"auxiliary has shape \(2,\), expected \(\), that is one number"),
    (answer(loss=torch.zeros(())), r"returned a dict with the keys mel, loss; return an AcousticOutput"),
    (answer(mel=torch.zeros(2, 8, BINS).long()), "mel holds torch.int64; return floats"),
    (answer(attention=torch.full((2, 8, 5), -1.0)), "attention holds values from -1 .* after the softmax"),
    (lambda *a, speaker: torch.zeros(1), "the model returned Tensor; return an AcousticOutput, or a dict"),
    (lambda text, mel: None, r"forward\(text, mel\) cannot be called as forward\(text, text_lengths"),
]


@pytest.mark.parametrize(("forward", "message"), WRONG)
def test_wrong_outputs_are_named_with_what_is_expected(forward: Callable[..., Any], message: str) -> None:
    model = Plain()
    model.forward = forward  # type: ignore[method-assign]
    with pytest.raises(InputError, match=message) as caught:
        check_model(model, INFO, no_terms())
    assert "\n" not in str(caught.value)


def spoken(**changes: Any) -> Callable[..., Any]:
    values = {"mel": torch.zeros(2, 8, BINS), "mel_lengths": torch.tensor([8, 5]), "attention": None}
    values |= {"stopped": torch.ones(2, dtype=torch.bool), **changes}
    return lambda *args, **named: FreeRunning(**values)


@pytest.mark.parametrize(
    ("synthesize", "message"),
    [
        (None, r"Plain has no synthesize; give it synthesize\(text, text_lengths, speaker"),
        (lambda text, max_frames: None, r"synthesize\(text, max_frames\) cannot be called as synthesize"),
        (lambda *a, **k: {}, "synthesize returned dict; return a ttsfast.models.interface.FreeRunning"),
        (
            spoken(mel=torch.zeros(2, BINS, 8)),
            r"synthesize's mel has shape \(2, 80, 8\), expected \(2, 80, 80\)",
        ),
        (spoken(stopped=torch.ones(1)), r"synthesize's stopped has shape \(1,\), expected \(2,\)"),
        (spoken(attention=torch.ones(1, 2, 3)), r"synthesize's attention is of shape \(1, 2, 3\)"),
        (spoken(attention=5), "synthesize's attention is of type int"),
        (spoken(attention=torch.ones(2, 8, 5)), r"synthesize's attention holds .* rows that sum to 5"),
        (
            spoken(mel_lengths=torch.tensor([0, 8])),
            r"mel_lengths are \[0, 8\] .* from 1 to its mel's 8",
        ),
        (spoken(mel_lengths=torch.tensor([8, 9])), r"mel_lengths are \[8, 9\]"),
        (spoken(mel_lengths=torch.tensor([8.0, 5.0])), r"mel_lengths are .* of torch.float32"),
    ],
)
def test_a_synthesize_that_does_not_fit_is_named(synthesize: Any, message: str) -> None:
    model = Plain()
    model.synthesize = synthesize  # type: ignore[method-assign]
    with pytest.raises(InputError, match=message):
        check_model(model, INFO, no_terms())


def test_what_their_code_raises_is_one_line_with_its_place(write_module: Callable[[str], None]) -> None:
    for source, message in (
        ("def build(", "SyntaxError"),
        ("raise SystemExit(7)", r"SystemExit: 7, at .*my_voice\.py:1"),
        (
            "def build(voice, options):\n    return options.width",
            r"attribute 'width', at .*my_voice\.py:2",
        ),
        ("def build(voice, options):\n    raise OSError('a\\nb')", r"OSError: a b, at .*my_voice\.py:2"),
    ):
        write_module(source)
        with pytest.raises(InputError, match=rf"model.architecture=my_voice:build: .*{message}") as caught:
            build_model(ModelConfig(architecture="my_voice:build"), INFO)
        assert "\n" not in str(caught.value)


class Failing(Plain):
    """Wrong in one way or another."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        if fault == "frozen":
            self.requires_grad_(False)
        if fault == "lazy":
            self.lazy = nn.LazyLinear(3)
        if fault == "sparse":
            self.symbols.sparse = True

    def forward(self, text: Tensor, text_lengths: Tensor, mel: Tensor, *rest: Any, **named: Any) -> Any:
        if self.fault == "raises":
            raise ZeroDivisionError("of mine\nand yours")
        if self.fault == "in place":
            mel[:, 0] = 0
        if self.fault == "text in place":
            text.zero_()
        output = super().forward(text, text_lengths, mel, *rest, **named)
        return {"mel": output["mel"].detach()} if self.fault == "detached" else output


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("frozen", "no parameter to train"),
        ("lazy", r"lazy\.weight has no shape yet"),
        ("sparse", r"symbols \(Embedding\) makes sparse gradients"),
        (
            "raises",
            r"forward failed on a small batch: ZeroDivisionError: of mine and yours, at .*py:",
        ),
        ("in place", r"forward changes its argument mel in place.*mel\.clone\(\)"),
        ("text in place", "forward changes its argument text in place"),
        ("detached", r"mel sends no gradient back, so training\.mel_loss_weight=22"),
    ],
)
def test_what_would_fail_or_learn_nothing_later_is_said_before(fault: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_model(Failing(fault), INFO, no_terms())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("r", [0, 1.5, True])
def test_an_impossible_reduction_factor_is_named(r: Any) -> None:
    model = Plain()
    model.reduction_factor = r  # type: ignore[assignment]
    with pytest.raises(InputError, match="a whole number from 1 up"):
        check_model(model, INFO, no_terms())


def test_step_lengths_are_asked_for_where_a_step_makes_several_frames() -> None:
    model = Plain()
    model.reduction_factor = 2  # type: ignore[assignment]
    model.forward = lambda text, text_lengths, mel, mel_lengths, speaker: AcousticOutput(  # type: ignore
        mel, stop_logits=mel[:, ::2, 0]
    )
    with pytest.raises(InputError, match=r"no step_lengths with a reduction_factor of 2"):
        check_model(model, INFO, no_terms())


@pytest.mark.parametrize("r", [1, 3])
def test_convtts_fits(r: int) -> None:
    model = small_model(reduction_factor=r)
    model.n_mels = BINS
    fitting = type(model)(model.config, len(INFO.symbols), BINS)
    check_model(fitting, INFO, Config())
