"""Where the corpus lies changes nothing of a run: the same weights, to the last bit, and either may go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ttsfast.config import Config
from ttsfast.data.loading.device_loader import DeviceLoader
from ttsfast.training.trainer import Trainer


def weights(config: Config, model: torch.nn.Module, resume: bool = False) -> list[torch.Tensor]:
    with Trainer(config, model=model, resume=resume) as trainer:
        kept = config.data.corpus_on_device == "always"
        assert isinstance(trainer.loader, DeviceLoader) == kept
        assert isinstance(trainer.validation_loader, DeviceLoader) == kept
        trainer.fit()
    return [parameter.detach() for parameter in trainer.model.parameters()]


@pytest.mark.parametrize("second", ["always", "never"])
def test_a_run_is_the_same_wherever_the_corpus_lies(
    second: str, make_config: Callable[..., Config], make_model: Callable[[], Any], tmp_path: Any
) -> None:
    first = {"always": "never", "never": "always"}[second]
    whole = weights(make_config(data__corpus_on_device=first), make_model())
    folder = str(tmp_path / "parts")
    weights(
        make_config(data__corpus_on_device=first, training__run_folder=folder, training__max_steps=4),
        make_model(),
    )
    rest = make_config(data__corpus_on_device=second, training__run_folder=folder)
    for one, other in zip(whole, weights(rest, make_model(), resume=True), strict=True):
        assert torch.equal(one, other)
