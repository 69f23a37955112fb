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


class Optimizers:
    """What a run steps with; all follow one learning rate.

    ``adamw`` and ``adam`` are torch's fused ones. ``muon`` (Jordan et al., 2024) is torch's and takes the
    hidden matrices: linear weights, and convolution kernels as (out, in x width); embeddings, vectors and
    whatever reads or writes mel frames go to AdamW, whose rate fits both because Muon's updates are scaled to
    AdamW's size. ``schedule_free`` is AdamW of Defazio et al. (2024), which averages weights where others
    lower the rate.

    Biases and normalisation gains (vectors) are not decayed.

    Args:
        config: which, and its settings.
        model: what is trained.
        n_mels: by which the layers that read or write mel frames are told.
        recorded: whether steps are recorded as CUDA graphs: gradients then stay in their place and are set to
            0 instead of being dropped, and the rate of fused optimisers is a tensor, which a recording
            follows.

    Raises:
        InputError: an optimiser that this torch or this environment does not have.
    """

    def __init__(
        self, config: TrainingConfig, model: nn.Module, n_mels: int, *, recorded: bool = False
    ) -> None:
        self.model = model
        self._views: list[tuple[nn.Parameter, nn.Parameter]] = []
        self._keep_gradients = recorded
        self.parameters = parameters = [p for p in model.parameters() if p.requires_grad]
        self._names = {id(p): name for name, p in model.named_parameters()}
        self.torch_optimizers: dict[str, torch.optim.Optimizer]
        """By the names that a checkpoint holds them under: ``adam``, ``muon``, ``schedule_free``."""
        if config.optimizer == "muon":
            hidden = hidden_matrices(model, n_mels)
            rest = [p for p in parameters if not any(p is h for h in hidden)]
            self.torch_optimizers = {"muon": self._muon(config, hidden), "adam": self._adam(config, rest)}
        elif config.optimizer == "schedule_free":
            free = _schedule_free(config, _decay_groups(config, parameters))
            self.torch_optimizers = {"schedule_free": free}
        else:
            self.torch_optimizers = {"adam": self._adam(config, parameters)}
        self.skips_on_device = all(
            getattr(optimizer, "_step_supports_amp_scaling", False)
            for optimizer in self.torch_optimizers.values()
        )
        """Whether a bad step can be left out without the host knowing of it."""
        self.rate = config.learning_rate
        self._rate: Tensor | None = None
        if recorded and self.skips_on_device:
            self._rate = torch.full((), self.rate, dtype=torch.float32, device=parameters[0].device)
            self._share_rate()
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
            self._names[id(view)] = self._names[id(parameter)]
            flat.append(view)
        return torch.optim.Muon(
            flat,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next step."""
        self.rate = rate
        if self._rate is not None:
            self._rate.fill_(rate)
            return
        for group in self._groups():
            group["lr"] = rate

    def _share_rate(self) -> None:
        for group in self._groups():
            group["lr"], group["capturable"] = self._rate, True

    def step(self, skip: Tensor, divisor: Tensor) -> None:
        """Move the weights by the gradients over ``divisor``, both () float32 tensors, unless ``skip`` is 1:
        then neither they nor the state move.

        A fused optimiser divides in the pass that moves the weights. Where not every one is fused, the host
        has to read ``skip``.
        """
        if not self.skips_on_device:
            if bool(skip):
                return
            torch._foreach_div_([p.grad for p in self.parameters if p.grad is not None], divisor)
        for parameter, view in self._views:
            view.grad = None if parameter.grad is None else parameter.grad.reshape(view.shape)
        for optimizer in self.torch_optimizers.values():
            # What GradScaler tells a fused optimiser, in the same words.
            optimizer.found_inf = skip  # type: ignore[attr-defined]
            optimizer.grad_scale = divisor if self.skips_on_device else None  # type: ignore[attr-defined]
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self.torch_optimizers.values():
            optimizer.zero_grad(set_to_none=not self._keep_gradients)
        for parameter, _ in self._views:
            if not self._keep_gradients:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    @property
    def averages(self) -> bool:
        """Whether the weights to use are not those that are trained."""
        return any("train_mode" in group for group in self._groups())

    def train(self) -> None:
        """Trained weights in the model."""
        for optimizer in self.torch_optimizers.values():
            if hasattr(optimizer, "train"):
                optimizer.train()

    def eval(self) -> None:
        """The weights to use in the model."""
        for optimizer in self.torch_optimizers.values():
            if hasattr(optimizer, "eval"):
                optimizer.eval()

    def state_dict(self) -> dict[str, Any]:
        """Each optimiser's settings under its name, and what it keeps as ``NAME.PARAMETER.ENTRY``."""
        state: dict[str, Any] = {}
        for kind, optimizer in self.torch_optimizers.items():
            own, names = optimizer.state_dict(), self._names_of(optimizer)
            state[kind] = [
                {
                    key: float(value) if key == "lr" else value
                    for key, value in group.items()
                    if key != "params"
                }
                for group in own["param_groups"]
            ]
            for index, entries in own["state"].items():
                for entry, value in entries.items():
                    state[f"{kind}.{names[index]}.{entry}"] = torch.as_tensor(value)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            InputError: it is of another kind of optimiser.
        """
        if {kind for kind in state if "." not in kind} != set(self.torch_optimizers):
            raise InputError(
                "training.optimizer differs from the checkpoint's: set the one it was trained with, "
                "or another training.run_folder"
            )
        frozen = {name for name, p in self.model.named_parameters() if not p.requires_grad}
        for kind, optimizer in self.torch_optimizers.items():
            moved = [p for group in optimizer.param_groups for p in group["params"]]
            index = {name: place for place, name in enumerate(self._names_of(optimizer))}
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in state.items():
                if key.startswith(f"{kind}."):
                    name, _, entry = key.removeprefix(f"{kind}.").rpartition(".")
                    if name not in index and name in frozen:
                        continue
                    place = index[name]
                    entries.setdefault(place, {})[entry] = shard_like(value, moved[place])
            settings = [{key: g[key] for key in _SETTINGS if key in g} for g in optimizer.param_groups]
            # Settings come and go with the version of torch.
            known = [
                {**ours, **{key: value for key, value in group.items() if key in ours}}
                for ours, group in zip(optimizer.state_dict()["param_groups"], state[kind], strict=True)
            ]
            optimizer.load_state_dict({"state": entries, "param_groups": known})
            for group, ours in zip(optimizer.param_groups, settings, strict=True):
                group.update(ours)
            if len({frozenset(kept) for kept in entries.values()}) > 1:
                raise InputError("the optimiser's state is not all there")
            for parameter, kept in optimizer.state.items():
                if any(value.dim() and value.shape != parameter.shape for value in kept.values()):
                    raise InputError("the optimiser's state is of other weights' shapes")
        if self._rate is not None:
            self._share_rate()

    def _names_of(self, optimizer: torch.optim.Optimizer) -> list[str]:
        """Of an optimiser's parameters, in the order in which torch numbers them."""
        return [self._names[id(p)] for group in optimizer.param_groups for p in group["params"]]

    def _groups(self) -> Iterator[dict[str, Any]]:
        for optimizer in self.torch_optimizers.values():
            yield from optimizer.param_groups


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
