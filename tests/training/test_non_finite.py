from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ttsfast.config import Config
from ttsfast.errors import TrainingError
from ttsfast.models.checkpoint import checkpoints, load_checkpoint
from ttsfast.training.non_finite import StepInputs, first_non_finite
from ttsfast.training.setup import collate_again
from ttsfast.training.trainer import Trainer

MakeConfig = Callable[..., Config]
MakeModel = Callable[[], nn.Module]
needs_muon = pytest.mark.skipif(
    not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9"
)


def batch_of(trainer: Trainer) -> StepInputs:
    batch = next(iter(trainer.loader))
    return StepInputs.of(1, [batch], trainer.device)


def first_place(trainer: Trainer, inputs: StepInputs) -> str:
    batches = [collate_again(trainer.config, trainer.store, ids, 2) for ids in inputs.ids]
    return first_non_finite(inputs, batches, trainer.parallel.objective, None)


def spoil(module: nn.Module, value: float, place: tuple[int, ...]) -> None:
    def hook(module: nn.Module, args: object, output: Tensor) -> Tensor:
        output = output.clone()
        output[place] = value
        return output

    module.register_forward_hook(hook)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_output_is_named_with_its_module_and_utterance(
    value: float, make_config: MakeConfig, make_model: MakeModel
) -> None:
    model = make_model()
    with Trainer(make_config(), model=model) as trainer:
        spoil(model.read, value, (2, 0, 0))  # type: ignore[arg-type]
        inputs = batch_of(trainer)
        place = first_place(trainer, inputs)
    # tanh hides an infinity from the loss, and still it is the first tensor that is not finite.
    assert place.startswith("the output of read (Linear), float32 (4, ")
    assert place.endswith(
        f", 1 of {place.split(' of ')[-1].split(' ')[0]} values, in utterance {inputs.ids[0][2]}"
    )


def test_masked_scores_are_not_blamed(make_config: MakeConfig, make_model: MakeModel) -> None:
    model = make_model()
    with Trainer(make_config(), model=model) as trainer:
        # As a mask would write it; what makes a NaN of it is to blame.
        spoil(model.dropout, -math.inf, (0, 0, 0))  # type: ignore[arg-type]
        assert first_place(trainer, batch_of(trainer)).startswith("the output of latent (Linear)")


def test_bad_weights_are_named(make_config: MakeConfig, make_model: MakeModel) -> None:
    with Trainer(make_config(), model=make_model()) as trainer:
        with torch.no_grad():
            trainer.model.stop.bias.fill_(math.nan)  # type: ignore[union-attr, operator]
        assert first_place(trainer, batch_of(trainer)) == "the weights stop.bias, float32 (1,), 1 of 1 values"


def test_a_term_of_finite_outputs_is_named(make_config: MakeConfig, make_model: MakeModel) -> None:
    model = make_model()
    # exp of a log-variance of 200 overflows float32 in the KL, not in the model.
    model.latent.register_forward_hook(lambda m, a, out: out * 0 + 200.0)  # type: ignore[union-attr]
    with Trainer(make_config(), model=model) as trainer:
        assert first_place(trainer, batch_of(trainer)) == "the kl term of the loss, of finite outputs"


def test_a_norm_that_overflows_is_told_from_its_gradients(
    make_config: MakeConfig, make_model: MakeModel
) -> None:
    with Trainer(make_config(training__stop_loss_weight=1e30), model=make_model()) as trainer:
        place = first_place(trainer, batch_of(trainer))
    assert place.startswith("the norm of gradients that are each finite, the largest ")
    assert "stop.bias" in place or "stop.weight" in place


def test_a_gradient_is_named_where_it_breaks_first(make_config: MakeConfig, make_model: MakeModel) -> None:
    class Root(torch.autograd.Function):
        """Finite forward; its backward divides by zero."""

        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient / 0.0

    model = make_model()
    model.dropout.register_forward_hook(lambda m, a, out: Root.apply(out))  # type: ignore[union-attr]
    with Trainer(make_config(), model=model) as trainer:
        place = first_place(trainer, batch_of(trainer))
        assert all(p.grad is None for p in trainer.model.parameters())
    # The backward pass reaches the read layer after the broken one.
    assert place.startswith("the gradient of")
    assert "read" in place or "dropout" in place


def test_looking_disturbs_neither_weights_nor_random_streams(
    make_config: MakeConfig, make_model: MakeModel
) -> None:
    with Trainer(make_config(), model=make_model()) as trainer:
        inputs = batch_of(trainer)
        before = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
        torch.manual_seed(7)
        expected = torch.rand(3)
        torch.manual_seed(7)
        assert first_place(trainer, inputs).startswith("nowhere")
        assert torch.equal(torch.rand(3), expected)
        assert torch.equal(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]), before)


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("muon", marks=needs_muon)])
def test_the_run_ends_with_the_weights_of_the_step_before(
    optimizer: str, make_config: MakeConfig, make_model: MakeModel
) -> None:
    """No log point for ten steps: what the host has not seen yet is not applied either."""
    model = make_model()
    count = 0

    def poison(gradient: Tensor) -> Tensor:
        nonlocal count
        count += 1
        kept.append(model.write.weight.detach().clone())  # type: ignore[union-attr, operator]
        return gradient * math.nan if count == 4 else gradient

    kept: list[Tensor] = []
    model.write.weight.register_hook(poison)  # type: ignore[union-attr]
    changes = {"training__log_step": 10, "training__val_step": 10, "training__save_step": 10}
    config = make_config(training__max_steps=10, training__optimizer=optimizer, **changes)
    with Trainer(config, model=model) as trainer, pytest.raises(TrainingError) as caught:
        trainer.fit()
    assert str(caught.value).startswith("step 4: gradient_norm is not finite, first in nowhere")
    assert count >= 10
    assert not torch.equal(kept[2], kept[3])
    assert torch.equal(model.write.weight, kept[3])  # type: ignore[union-attr, arg-type]
    assert not checkpoints(trainer.run_folder)


def test_utterances_are_named_up_to_eight(make_config: MakeConfig, make_model: MakeModel) -> None:
    inputs = StepInputs(1, [tuple("abcdef"), tuple("ghij")], {})
    assert inputs.names() == "a, b, c, d, e, f, g, h, ... (10 in all)"
    assert StepInputs(1, [("a",)], {}).names() == "a"


def test_no_checkpoint_holds_what_is_not_finite(make_config: MakeConfig, make_model: MakeModel) -> None:
    model = make_model()
    spoiled: list[int] = []

    def hook(module: nn.Module, args: object, output: Tensor) -> Tensor:
        spoiled.append(1)
        return output * math.nan if module.training and len(spoiled) > 3 else output

    model.dropout.register_forward_hook(hook)  # type: ignore[union-attr]
    with Trainer(make_config(training__save_step=1), model=model) as trainer, pytest.raises(TrainingError):
        trainer.fit()
    assert checkpoints(trainer.run_folder)
    for path in checkpoints(trainer.run_folder):
        assert all(value.isfinite().all() for value in load_checkpoint(path).weights.values())
