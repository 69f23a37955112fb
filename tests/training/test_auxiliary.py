"""A model's own loss term takes part in the gradient, and accumulates as the others do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ttsfast.config import Config
from ttsfast.data.loading.batch import collate
from ttsfast.models.interface import AcousticOutput
from ttsfast.training.trainer import Trainer


def with_auxiliary(model: nn.Module, weight: float) -> nn.Module:
    """``model`` with the squared errors of a pace, a parameter that nothing else trains, summed."""
    model.pace = nn.Parameter(torch.zeros(()))
    inner = model.forward

    def forward(text: Tensor, text_lengths: Tensor, mel: Tensor, mel_lengths: Tensor, speaker: Any) -> Any:
        output = AcousticOutput.of(inner(text, text_lengths, mel, mel_lengths, speaker))
        output.auxiliary = weight * (model.pace - mel_lengths / text_lengths).square().sum()
        return output

    model.forward = forward  # type: ignore[method-assign]
    return model


def test_an_auxiliary_loss_accumulates_as_one_batch(
    make_config: Callable[..., Config], make_model: Callable[[], nn.Module], tmp_path: Path
) -> None:
    paces = {}
    for parts, weight in ((1, 5.0), (3, 5.0), (1, 0.0)):
        config = make_config(
            training__run_folder=str(tmp_path / f"{parts}{weight}"),
            training__optimizer="adam",
            training__eps=1.0,
            training__gradient_clip_norm=1e6,
        )
        with Trainer(config, model=with_auxiliary(make_model(), weight)) as trainer:
            trainer.model.dropout.p = 0.0  # type: ignore[union-attr]
            utterances = [trainer.store[int(i)] for i in trainer.store.indices("train")[:6]]
            size = -(-len(utterances) // parts)
            for _ in range(2):
                trainer.train_step(
                    [
                        collate(utterances[s : s + size], pad_value=trainer.store.silence)
                        for s in range(0, len(utterances), size)
                    ]
                )
            paces[parts, weight] = float(trainer.model.pace.detach())  # type: ignore[operator, union-attr]
    assert paces[1, 5.0] > 1e-4
    assert abs(paces[3, 5.0] - paces[1, 5.0]) < 1e-6
    assert paces[1, 0.0] == 0.0
