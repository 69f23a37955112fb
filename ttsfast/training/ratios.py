"""How large the gradients and the updates of each part of the model are, against its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ttsfast.training.gradients import total_norm

LEAST_STEPS = 100
"""Between two measurements: more often, they would take a noticeable part of a small model's step."""


class ModuleRatios:
    """Per child of the model: norm of its gradient over that of its weights, and of its update over the same.

    An update ratio near 1e-3 is usual; orders below, a part does not learn, orders above, it is thrown about.
    Measured on the step before a log point, :data:`LEAST_STEPS` apart at least, since it copies the weights.
    """

    def __init__(self, model: nn.Module, log_step: int) -> None:
        self._every = log_step * -(-LEAST_STEPS // log_step)
        children = {
            name: [p for p in child.parameters() if p.requires_grad] for name, child in model.named_children()
        }
        children["own"] = [p for p in model.parameters(recurse=False) if p.requires_grad]
        self._children = {name: parameters for name, parameters in children.items() if parameters}
        self._before: dict[str, tuple[list[Tensor], Tensor, Tensor]] = {}
        self._figures: dict[str, Tensor] = {}

    def due(self, step: int) -> bool:
        """Whether to measure while step ``step`` (1, 2, ...) is taken."""
        return step % self._every == 0

    @torch.no_grad()
    def before_update(self, divisor: Tensor) -> None:
        """Keep the weights, and measure the gradients as they are applied: divided by ``divisor``."""
        for name, parameters in self._children.items():
            gradients = [p.grad for p in parameters if p.grad is not None]
            norm = total_norm(gradients) / divisor
            size = total_norm(parameters).clamp(min=1e-12)
            self._before[name] = ([p.detach().clone() for p in parameters], norm, size)

    @torch.no_grad()
    def after_update(self) -> None:
        """Measure how far the weights moved."""
        for name, (weights, norm, size) in self._before.items():
            moved = torch._foreach_sub([p.detach() for p in self._children[name]], weights)
            self._figures[f"gradient_ratio.{name}"] = norm / size
            self._figures[f"update_ratio.{name}"] = total_norm(moved) / size
        self._before.clear()

    def take(self) -> dict[str, float]:
        """``gradient_ratio.NAME`` and ``update_ratio.NAME``, if measured since the last call."""
        figures, self._figures = self._figures, {}
        if not figures:
            return {}
        return dict(zip(figures, torch.stack(list(figures.values())).tolist(), strict=True))
