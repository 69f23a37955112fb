"""What a checkpoint keeps is kept by name: components, terms of the loss, parameters."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from run_state import same_bits, state_of
from safetensors.torch import load_file
from torch import nn

from ttsfast.config import Config
from ttsfast.errors import InputError
from ttsfast.losses.module import TTSLoss
from ttsfast.models.checkpoint import FORMAT, checkpoints, seal_of
from ttsfast.terms.spec import TERMS
from ttsfast.training.resume import LossState
from ttsfast.training.trainer import Trainer

MakeConfig = Callable[..., Config]
MakeModel = Callable[[], nn.Module]
COMPONENTS = {
    *("optimizers", "average", "scaler", "loss", "spike_guard", "monitor", "early_stopping", "plateau"),
    *("loader", "random"),
}


def moved_loss() -> TTSLoss:
    loss = TTSLoss(update_in_forward=False)
    for scale in (1.0, 0.5, 0.3):
        loss.update_weights(torch.tensor([1.0, 2.0, 3.0, 4.0]) * scale, torch.zeros(4))
    return loss


def test_a_run_is_its_components(make_config: MakeConfig, make_model: MakeModel) -> None:
    config = make_config(training__ema_decay=0.9, training__max_steps=4)
    with Trainer(config, model=make_model()) as trainer:
        trainer.fit()
        folder = checkpoints(trainer.run_folder)[-1]
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "training.safetensors")
    assert state["format"] == FORMAT == 3
    assert set(state["components"]) == COMPONENTS
    assert {name.partition(".")[0] for name in tensors} <= COMPONENTS
    assert {f"loss.adaptive.factors.{term}" for term in TERMS} <= tensors.keys()
    assert {"optimizers.adam.read.weight.exp_avg", "average.trained.read.weight"} <= tensors.keys()


def test_a_resumed_run_holds_what_the_run_before_held(make_config: MakeConfig, make_model: MakeModel) -> None:
    config = make_config(
        training__ema_decay=0.9, training__max_steps=4, training__early_stopping_restore_best_weights=False
    )
    with Trainer(config, model=make_model()) as trainer:
        trainer.train_step([next(iter(trainer.loader))])
        trainer.save()
        before = state_of(trainer)
    with Trainer(config, model=make_model(), resume=True) as again:
        assert same_bits(before, state_of(again))


def test_terms_are_kept_by_name_and_one_that_is_new_begins_as_ever() -> None:
    """As when a fifth comes: its figures are not in the checkpoint, and no other's move."""
    state = LossState(moved_loss()).state_dict()
    other = TTSLoss()
    LossState(other).load_state_dict(dict(reversed(state.items())))
    for name, value in moved_loss().state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    fewer = TTSLoss()
    LossState(fewer).load_state_dict({k: v for k, v in state.items() if not k.endswith(".stop")})
    fresh, kept = TTSLoss().state_dict(), moved_loss().state_dict()
    for name, value in fewer.state_dict().items():
        if value.dim():
            expected = kept[name].clone()
            expected[TERMS.index("stop")] = fresh[name][TERMS.index("stop")]
            assert torch.equal(value, expected), name


def test_a_term_that_is_half_there_is_refused() -> None:
    state = LossState(moved_loss()).state_dict()
    del state["adaptive.slow.kl"]
    with pytest.raises(KeyError, match=r"adaptive\.slow\.kl"):
        LossState(TTSLoss()).load_state_dict(state)


def test_an_older_format_is_refused_in_one_line(make_config: MakeConfig, make_model: MakeModel) -> None:
    with Trainer(make_config(training__max_steps=1, training__val_step=2), model=make_model()) as trainer:
        trainer.fit()
        path = checkpoints(trainer.run_folder)[-1] / "state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**state, "format": 2}), encoding="utf-8")
    with pytest.raises(
        InputError, match=r"checkpoint format 2, this version reads 3; .*train anew$"
    ) as caught:
        Trainer(make_config(), model=make_model(), resume=True)
    assert "\n" not in str(caught.value)


def test_a_key_that_is_newer_than_the_checkpoint_had_its_default(
    make_config: MakeConfig, make_model: MakeModel
) -> None:
    with Trainer(make_config(training__max_steps=1, training__val_step=2), model=make_model()) as trainer:
        trainer.fit()
        path = checkpoints(trainer.run_folder)[-1] / "state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    del state["seal"], state["config"]["model"]["dropout"]
    path.write_text(json.dumps({**state, "seal": seal_of(state)}), encoding="utf-8")
    with Trainer(make_config(), model=make_model(), resume=True) as again:
        assert again.step == 1
