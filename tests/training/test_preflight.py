"""What training looks at before its first step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from ttsfast.config import Config, TrainingConfig
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError
from ttsfast.models.convtts import ConvTTS
from ttsfast.models.convtts_config import ConvTTSConfig
from ttsfast.training import preflight as looked_at
from ttsfast.training.trainer import Trainer


def make_small(config: Config) -> ConvTTS:
    """A model of all parts, for the store's symbols."""
    torch.manual_seed(1)
    shape = ConvTTSConfig(
        channels=16, latent_dim=4, text_dilations=(1,), mel_dilations=(1,), decoder_dilations=(1,)
    )
    return ConvTTS(shape, len(Store.open(config.data.store).symbols), config.data.n_mels)


def test_a_runs_bits_are_the_same_with_and_without_it(
    make_config: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[list[torch.Tensor]] = []
    for wanted in (False, True):
        config = make_config(training__preflight=wanted, training__run_folder=f"unused-{wanted}")
        with Trainer(config, model=make_small(config)) as trainer:
            batches = [next(iter(trainer.loader))]
            trainer.train_step(batches)
            trainer.train_step(batches)
            found.append([value.clone() for value in trainer.model.state_dict().values()])
            found[-1].append(torch.get_rng_state())
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert "model: " not in capsys.readouterr().err


class Deaf(nn.Module):
    """Reads nothing."""

    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        read, weights = self.attention(*arguments)
        return torch.zeros_like(read), weights


def deaf(config: Config) -> ConvTTS:
    """A decoder that ignores the text."""
    model, wrapper = make_small(config), Deaf()
    wrapper.attention = model.attention
    wrapper.read = model.attention.read
    model.attention = wrapper  # type: ignore[assignment]
    return model


def test_what_ruins_a_voice_ends_the_run_unless_told_otherwise(make_config: Callable[..., Config]) -> None:
    config = make_config(training__preflight=TrainingConfig().preflight)
    with pytest.raises(InputError, match=r"the text is not heard.*training\.preflight=false") as caught:
        Trainer(config, model=deaf(config))
    assert "\n" not in str(caught.value)
    allowed = make_config(training__preflight=False)
    Trainer(allowed, model=deaf(allowed)).close()


def test_it_says_what_it_had_no_time_for(
    make_config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(looked_at, "SECONDS", 1e-9)
    config = make_config(training__preflight=True)
    Trainer(config, model=deaf(config)).close()
    assert "model: not looked at, for which `ttsfast doctor --model` is: mask (no time left)" in (
        capsys.readouterr().err
    )
