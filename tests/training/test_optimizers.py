from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from run_state import tensors_of
from torch import Tensor, nn

from ttsfast.config import Config, config_from_dict
from ttsfast.errors import InputError
from ttsfast.models.convtts import ConvTTS
from ttsfast.training.optimizers import Optimizers, hidden_matrices
from ttsfast.training.trainer import Trainer
from ttsfast.training.weight_average import WeightAverage

MakeConfig = Callable[..., Config]
MakeModel = Callable[[], nn.Module]
KINDS = ("adamw", "adam", "muon", "schedule_free")


class Small(nn.Module):
    """An embedding, a kernel, a matrix, a layer that reads mel, one that writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 6)
        self.kernel = nn.Conv1d(6, 8, 3)
        self.matrix = nn.Linear(8, 6)
        self.read = nn.Linear(80, 6)
        self.write = nn.Linear(6, 161)
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x) + self.read(torch.ones(80))
        h = self.norm(self.matrix(self.kernel(h.mT).mT))
        out: Tensor = self.write(h)
        return out


def make(kind: str, **changes: float) -> tuple[Small, Optimizers]:
    if kind == "schedule_free":
        pytest.importorskip("schedulefree", reason="the extra schedulefree is not installed")
    if kind == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("torch.optim.Muon came with torch 2.9")
    torch.manual_seed(0)
    model = Small()
    values: dict[str, Any] = {"optimizer": kind, "learning_rate": 1e-2, "weight_decay": 0.1, **changes}
    if kind == "schedule_free":
        values["scheduler"] = "constant"
    return model, Optimizers(config_from_dict({"training": values}).training, model, 80)


def take_step(model: Small, optimizers: Optimizers, skip: float = 0.0) -> None:
    optimizers.set_rate(3e-3)
    model(torch.arange(5)[None]).square().sum().backward()
    optimizers.step(torch.tensor(skip), torch.ones(()))
    optimizers.zero_grad()


def bits(model: nn.Module, optimizers: Optimizers) -> list[Tensor]:
    return [
        *(p.detach().clone() for p in model.parameters()),
        *(v.clone() for v in tensors_of(optimizers).values()),
    ]


def as_saved(optimizers: Optimizers) -> dict[str, Any]:
    """Its state as a checkpoint holds it: what is no tensor as JSON, what is one copied."""
    tensors = tensors_of(optimizers)
    values = {name: value for name, value in optimizers.state_dict().items() if name not in tensors}
    return {**tensors, **json.loads(json.dumps(values))}


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_moves(kind: str) -> None:
    model, optimizers = make(kind)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(2):
        take_step(model, optimizers)
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, before[name]), name
        assert parameter.grad is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_skipped_step_moves_nothing_whatever_the_gradients_hold(kind: str) -> None:
    model, optimizers = make(kind)
    take_step(model, optimizers)
    before = bits(model, optimizers)
    model(torch.arange(5)[None]).sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.fill_(torch.nan)
    optimizers.step(torch.tensor(1.0), torch.ones(()))
    optimizers.zero_grad()
    after = bits(model, optimizers)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    take_step(model, optimizers)
    assert not all(torch.equal(a, b) for a, b in zip(after, bits(model, optimizers), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_survives_the_round_trip_to_the_bit(kind: str) -> None:
    model, optimizers = make(kind)
    for _ in range(3):
        take_step(model, optimizers)
    state = as_saved(optimizers)
    other, fresh = make(kind)
    other.load_state_dict(model.state_dict())
    fresh.load_state_dict(state)
    for _ in range(2):
        take_step(model, optimizers)
        take_step(other, fresh)
    assert all(torch.equal(a, b) for a, b in zip(bits(model, optimizers), bits(other, fresh), strict=True))


@pytest.mark.parametrize(
    ("kept", "asked"), [("adamw", "muon"), ("muon", "adamw"), ("adamw", "schedule_free")]
)
def test_another_optimisers_state_is_refused(kept: str, asked: str) -> None:
    (_, optimizers), (_, other) = make(kept), make(asked)
    with pytest.raises(InputError, match=r"training\.optimizer differs"):
        other.load_state_dict(optimizers.state_dict())


@pytest.mark.parametrize("kind", ["adamw", "muon", "schedule_free"])
def test_a_resumed_run_takes_the_settings_of_its_own_configuration(kind: str) -> None:
    _, kept = make(kind)
    model, other = make(kind, weight_decay=0.3, beta1=0.5, beta2=0.7, eps=1e-3)
    fresh = [
        [dict(group, params=None) for group in part.param_groups] for part in other.torch_optimizers.values()
    ]
    take_step(model, other)
    other.load_state_dict(as_saved(kept))
    for part, groups in zip(other.torch_optimizers.values(), fresh, strict=True):
        for group, wanted in zip(part.param_groups, groups, strict=True):
            for name in ("betas", "eps", "weight_decay"):
                assert group.get(name) == wanted.get(name)


@pytest.mark.parametrize("kind", ["adamw", "adam"])
def test_a_run_resumes_under_a_torch_of_other_settings(kind: str) -> None:
    """AdamW has ``decoupled_weight_decay`` from torch 2.7 on, say."""
    _, kept = make(kind)
    state = as_saved(kept)
    for group in state["adam"]:
        del group["amsgrad"]
        group["of_another_torch"] = True
    _, other = make(kind)
    adam = other.torch_optimizers["adam"]
    before = set(adam.param_groups[0])
    other.load_state_dict(state)
    assert set(adam.param_groups[0]) == before
    assert adam.param_groups[0]["amsgrad"] is False


def test_adam_resumed_from_adamw_couples_its_decay() -> None:
    _, kept = make("adamw")
    _, other = make("adam")
    other.load_state_dict(kept.state_dict())
    assert not any(
        group.get("decoupled_weight_decay") for group in other.torch_optimizers["adam"].param_groups
    )


def test_moments_of_other_shapes_are_refused() -> None:
    model, optimizers = make("adamw")
    take_step(model, optimizers)
    state = {**optimizers.state_dict(), "adam.kernel.weight.exp_avg": torch.zeros(3, 7)}
    with pytest.raises(InputError, match="other weights' shapes"):
        optimizers.load_state_dict(state)


def test_muon_takes_the_hidden_matrices_and_kernels() -> None:
    model = Small()
    chosen = hidden_matrices(model, 80)
    assert [id(p) for p in chosen] == [id(model.kernel.weight), id(model.matrix.weight)]


def test_muon_takes_most_of_convtts() -> None:
    model = ConvTTS.from_size("nano", n_symbols=30, n_mels=80)
    chosen = {id(p) for p in hidden_matrices(model, 80)}
    share = sum(p.numel() for p in model.parameters() if id(p) in chosen) / sum(
        p.numel() for p in model.parameters()
    )
    assert 0.9 < share < 1
    assert id(model.output.weight) not in chosen
    assert id(model.symbols.weight) not in chosen


def test_muon_sees_a_kernel_as_a_matrix() -> None:
    model, optimizers = make("muon")
    alone = nn.Parameter(model.kernel.weight.detach().clone().flatten(1))
    optimizer = torch.optim.Muon([alone], lr=3e-3, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        optimizers.set_rate(3e-3)
        model(torch.arange(5)[None]).square().sum().backward()
        assert model.kernel.weight.grad is not None
        alone.grad = model.kernel.weight.grad.clone().flatten(1)
        optimizer.step()
        optimizers.step(torch.tensor(0.0), torch.ones(()))
        optimizers.zero_grad()
    assert torch.equal(model.kernel.weight.flatten(1), alone)


def test_an_old_torch_says_what_muon_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    config = config_from_dict({"training": {"optimizer": "muon"}})
    with pytest.raises(InputError, match=r"training\.optimizer=muon needs torch 2\.9"):
        Optimizers(config.training, Small(), 80)


def test_a_missing_package_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    config = config_from_dict({"training": {"optimizer": "schedule_free", "scheduler": "constant"}})
    with pytest.raises(InputError, match=r"pip install 'ttsfast\[schedulefree\]'"):
        Optimizers(config.training, Small(), 80)


def test_schedule_free_refuses_a_schedule() -> None:
    with pytest.raises(InputError, match=r"training\.scheduler=constant"):
        config_from_dict({"training": {"optimizer": "schedule_free"}})


def test_vectors_are_not_decayed() -> None:
    _, optimizers = make("muon")
    decays = [
        [(group["weight_decay"], {p.ndim for p in group["params"]}) for group in part.param_groups]
        for part in optimizers.torch_optimizers.values()
    ]
    assert decays == [[(0.1, {2})], [(0.1, {2}), (0.0, {1})]]


@pytest.mark.parametrize("kind", ["adamw", "schedule_free"])
def test_deployed_weights_differ_and_the_trained_ones_come_back_to_the_bit(kind: str) -> None:
    model, optimizers = make(kind)
    average = WeightAverage(model, optimizers, 0.9 if kind == "adamw" else 0.0)
    for _ in range(4):
        take_step(model, optimizers)
        average.update()
    trained = [p.detach().clone() for p in model.parameters()]
    with average.deployed():
        assert not all(torch.equal(a, b) for a, b in zip(trained, model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(trained, model.parameters(), strict=True))
    take_step(model, optimizers)


def test_nothing_is_copied_where_nothing_is_averaged() -> None:
    model, optimizers = make("adamw")
    average = WeightAverage(model, optimizers, 0.0)
    average.update()
    before = [p._version for p in model.parameters()]
    with average.deployed():
        pass
    assert [p._version for p in model.parameters()] == before
    assert tensors_of(average) == {}


def test_the_average_follows_its_recurrence() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    optimizers = Optimizers(config_from_dict({}).training, model, 80)
    average = WeightAverage(model, optimizers, 0.5)
    expected = 0.0
    for update, value in enumerate([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update()
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value
    with average.deployed():
        assert float(model.weight.detach()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS[2:])
def test_a_run_with_each_optimiser_learns_and_resumes_exactly(
    kind: str, make_config: MakeConfig, make_model: MakeModel, tmp_path: Any
) -> None:
    make(kind)  # skips where it is not there
    changes: dict[str, Any] = {
        "training__optimizer": kind,
        "training__early_stopping_restore_best_weights": False,
        "training__ema_decay": 0.9,
    }
    if kind == "schedule_free":
        changes["training__scheduler"] = "constant"
    weights = []
    for name, stops in (("whole", (6,)), ("parts", (2, 4, 6))):
        folder = str(tmp_path / name)
        for stop in stops:
            config = make_config(training__run_folder=folder, training__max_steps=6, **changes)
            with Trainer(config, model=make_model(), resume=True) as trainer:
                object.__setattr__(trainer.config.training, "max_steps", stop)
                trainer.fit()
        weights.append([p.detach().clone() for p in trainer.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_divided_before_they_move_the_weights(kind: str) -> None:
    (divided, by_it), (plain, by_one) = make(kind), make(kind)
    for model, optimizers, factor in ((divided, by_it, 8.0), (plain, by_one, 1.0)):
        for _ in range(3):
            optimizers.set_rate(3e-3)
            (model(torch.arange(5)[None]).square().sum() * factor).backward()
            optimizers.step(torch.tensor(0.0), torch.tensor(factor))
            optimizers.zero_grad()
    for ours, theirs in zip(divided.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
