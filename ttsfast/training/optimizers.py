"""The optimisers: one, or Muon for the hidden matrices beside AdamW for the rest, behind one small face."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ttsfast.config import TrainingConfig
from ttsfast.errors import InputError
from ttsfast.training.distributed.sharded_tensors import shard_like

_SETTINGS = ("betas", "eps", "weight_decay", "decoupled_weight_decay", "capturable")
"""What torch keeps beside the state and the configuration decides, that of a resumed run too."""
_KINDS = ("betas", "momentum", "train_mode")
"""Settings that tell the kinds of optimiser apart; others come and go with the version of torch."""


class Optimizers:
    """What a run steps with; every part follows one learning rate.

    ``adamw`` and ``adam`` are torch's fused ones. ``muon`` (Jordan et al., 2024) is torch's and takes the
    hidden matrices: linear weights, and convolution kernels as (out, in x width); embeddings, vectors and
    whatever reads or writes mel frames go to AdamW, whose rate fits both because Muon's updates are scaled to
    AdamW's size. ``schedule_free`` is AdamW of Defazio et al. (2024), which averages weights where others
    lower the rate.

    Biases and normalisation gains (vectors) are not decayed.

    Raises:
        InputError: an optimiser that this torch or this environment does not have.
    """

    def __init__(self, config: TrainingConfig, model: nn.Module, n_mels: int) -> None:
        self._views: list[tuple[nn.Parameter, nn.Parameter]] = []
        self._rate: Tensor | None = None
        self.keep_gradients = False
        """Whether gradients stay in their place and are set to 0, instead of being dropped."""
        self._parameters = parameters = [p for p in model.parameters() if p.requires_grad]
        if config.optimizer == "muon":
            hidden = hidden_matrices(model, n_mels)
            rest = [p for p in parameters if not any(p is h for h in hidden)]
            self.parts = [self._muon(config, hidden), self._adam(config, rest)]
        elif config.optimizer == "schedule_free":
            self.parts = [_schedule_free(config, _decay_groups(config, parameters))]
        else:
            self.parts = [self._adam(config, parameters)]
        self.skips_on_device = all(getattr(part, "_step_supports_amp_scaling", False) for part in self.parts)
        """Whether a bad step can be left out without the host knowing of it."""
        self.train()

    @staticmethod
    def _adam(config: TrainingConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        return kind(
            _decay_groups(config, parameters),
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            fused=True,
        )

    def _muon(self, config: TrainingConfig, hidden: list[nn.Parameter]) -> torch.optim.Optimizer:
        if not hasattr(torch.optim, "Muon"):
            raise InputError(
                f"training.optimizer=muon needs torch 2.9 or newer, this is {torch.__version__}: "
                "upgrade torch, or set training.optimizer=adamw"
            )
        flat = []
        for parameter in hidden:
            # Shares the parameter's memory, as the matrix that Muon wants.
            view = nn.Parameter(parameter.detach().reshape(len(parameter), -1))
            assert view.data_ptr() == parameter.data_ptr()
            self._views.append((parameter, view))
            flat.append(view)
        return torch.optim.Muon(
            flat,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next step."""
        if self._rate is not None:
            self._rate.fill_(rate)
            return
        for group in self._groups():
            group["lr"] = rate

    def make_recordable(self) -> bool:
        """Keep the rate in a tensor, so that a step that is recorded as a CUDA graph follows it; False where
        not every part is fused and so cannot be recorded."""
        if not self.skips_on_device:
            return False
        group = self.parts[0].param_groups[0]
        self._rate = torch.full((), group["lr"], dtype=torch.float32, device=group["params"][0].device)
        self._share_rate()
        return True

    def _share_rate(self) -> None:
        for group in self._groups():
            group["lr"], group["capturable"] = self._rate, True

    def step(self, skip: Tensor, divisor: Tensor) -> None:
        """Move the weights by the gradients over ``divisor``, both () float32 tensors, unless ``skip`` is 1:
        then neither they nor the state move.

        A fused part divides in the pass that moves the weights. Where not every part is fused, the host has
        to read ``skip``.
        """
        if not self.skips_on_device:
            if bool(skip):
                return
            torch._foreach_div_([p.grad for p in self._parameters if p.grad is not None], divisor)
        for parameter, view in self._views:
            view.grad = None if parameter.grad is None else parameter.grad.reshape(view.shape)
        for part in self.parts:
            # What GradScaler tells a fused optimiser, in the same words.
            part.found_inf = skip  # type: ignore[attr-defined]
            part.grad_scale = divisor if self.skips_on_device else None  # type: ignore[attr-defined]
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=not self.keep_gradients)
        for parameter, _ in self._views:
            if not self.keep_gradients:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    @property
    def averages(self) -> bool:
        """Whether the weights to use are not those that are trained."""
        return any("train_mode" in group for group in self._groups())

    def train(self) -> None:
        """Trained weights in the model."""
        for part in self.parts:
            if hasattr(part, "train"):
                part.train()

    def eval(self) -> None:
        """The weights to use in the model."""
        for part in self.parts:
            if hasattr(part, "eval"):
                part.eval()

    def pack(self) -> tuple[dict[str, Tensor], list[Any]]:
        """The state as flat tensors and a JSON-able rest, one entry per part."""
        tensors: dict[str, Tensor] = {}
        rest = []
        for place, part in enumerate(self.parts):
            state = part.state_dict()
            for index, entries in state["state"].items():
                for name, value in entries.items():
                    tensors[f"optimizer.{place}.{index}.{name}"] = torch.as_tensor(value)
            rest.append([{**group, "lr": float(group["lr"])} for group in state["param_groups"]])
        return tensors, rest

    def unpack(self, tensors: Mapping[str, Tensor], rest: list[Any]) -> None:
        """Put :meth:`pack`'s result back.

        Raises:
            InputError: it is of another kind of optimiser.
        """
        if len(rest) != len(self.parts) or any(
            len(groups) != len(part.param_groups) or _kind(groups[0]) != _kind(part.param_groups[0])
            for groups, part in zip(rest, self.parts, strict=False)
        ):
            raise InputError(
                "training.optimizer differs from the checkpoint's: set the one it was trained with, "
                "or another training.run_folder"
            )
        states: list[dict[int, dict[str, Tensor]]] = [{} for _ in self.parts]
        moved = [[p for group in part.param_groups for p in group["params"]] for part in self.parts]
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, place, index, name = key.split(".", 3)
                value = shard_like(value, moved[int(place)][int(index)])
                states[int(place)].setdefault(int(index), {})[name] = value
        for part, state, groups in zip(self.parts, states, rest, strict=True):
            settings = [{key: g[key] for key in _SETTINGS if key in g} for g in part.param_groups]
            known = [
                {**ours, **{key: value for key, value in group.items() if key in ours}}
                for ours, group in zip(part.state_dict()["param_groups"], groups, strict=True)
            ]
            part.load_state_dict({"state": state, "param_groups": known})
            for group, ours in zip(part.param_groups, settings, strict=True):
                group.update(ours)
            for parameter, entries in part.state.items():
                if any(entry.dim() and entry.shape != parameter.shape for entry in entries.values()):
                    raise InputError("the optimiser's state in the checkpoint is of other weights' shapes")
        if self._rate is not None:
            self._share_rate()

    def _groups(self) -> Iterator[dict[str, Any]]:
        for part in self.parts:
            yield from part.param_groups


def _kind(group: Mapping[str, Any]) -> list[str]:
    return [setting for setting in _KINDS if setting in group]


def hidden_matrices(model: nn.Module, n_mels: int) -> list[nn.Parameter]:
    """What Muon is meant for: matrices and kernels between hidden layers, no embedding, no mel frames."""
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))}
    chosen = []
    for parameter in model.parameters():
        if not parameter.requires_grad or parameter.ndim < 2 or id(parameter) in embedded:
            continue
        rows, columns = parameter.shape[0], parameter.shape[1]
        # An output layer's rows are the frames of a step, with a stop logit or without.
        touches_mel = columns == n_mels or rows % n_mels <= 1
        if min(rows, columns) > 1 and not touches_mel:
            chosen.append(parameter)
    return chosen


def _decay_groups(config: TrainingConfig, parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _schedule_free(config: TrainingConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    try:
        from schedulefree import AdamWScheduleFree
    except ImportError as error:
        raise InputError(
            "training.optimizer=schedule_free needs a package: pip install 'ttsfast[schedulefree]'"
        ) from error
    optimizer: torch.optim.Optimizer = AdamWScheduleFree(
        groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.eps
    )
    return optimizer
