"""Sentences of the user's own: heard at each validation, and no part of what is learnt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ttsfast.config import Config
from ttsfast.errors import InputError
from ttsfast.training.telemetry.log import RunTelemetry
from ttsfast.training.trainer import Trainer

MakeConfig = Callable[..., Config]
MakeModel = Callable[[], torch.nn.Module]


def test_they_are_heard_at_each_validation_and_change_no_bit(
    make_config: MakeConfig, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, int]] = []

    def audio(_: RunTelemetry, name: str, wave: np.ndarray, sample_rate: int, step: int) -> None:
        assert (wave.ndim, sample_rate) == (1, 22050)
        heard.append((name, step))

    monkeypatch.setattr(RunTelemetry, "audio", audio)
    texts = tmp_path / "own.txt"
    texts.write_text("ab cd\nlast|e ab\n")
    weights: list[Any] = []
    training: list[bool] = []
    for number, path in enumerate((str(texts), "none")):
        config = make_config(training__val_texts=path, training__run_folder=str(tmp_path / f"run-{number}"))
        model = make_model()
        speak: Any = model.synthesize

        def synthesize(*given: Any, model: Any = model, speak: Any = speak, **named: Any) -> Any:
            training.append(model.training)
            return speak(*given, **named)

        monkeypatch.setattr(model, "synthesize", synthesize)
        with Trainer(config, model=model) as trainer:
            trainer.fit()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert training
    assert not any(training)
    assert heard == [("own/0001", 3), ("own/last", 3), ("own/0001", 6), ("own/last", 6)]
    assert weights[0].abs().sum() > 0
    assert torch.equal(*weights)


def test_one_that_cannot_be_read_is_named_before_the_first_step(
    make_config: MakeConfig, make_model: MakeModel, tmp_path: Path
) -> None:
    (tmp_path / "own.txt").write_text("ab cd\nab xyz\n")
    config = make_config(training__val_texts=str(tmp_path / "own.txt"))
    with pytest.raises(InputError, match=r"own\.txt:2: unknown symbol 'x'"):
        Trainer(config, model=make_model())
    assert not Path(config.training.run_folder).exists()
