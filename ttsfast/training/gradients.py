"""The gradient's sum over ranks, its norm, and the one multiplication that unscales, damps and clips it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ttsfast.training.ranks import Ranks

BUCKET_BYTES = 25 * 2**20
"""Gradients that travel together: fewer messages, and the first leave while later ones are made."""


def norm_of(gradients: Sequence[Tensor], scale: float) -> Tensor:
    """() norm of all gradients together, as it is without the loss scaler's ``scale``."""
    return torch.nn.utils.get_total_norm(gradients) / scale


def clip_(gradients: Sequence[Tensor], norm: Tensor, limit: float, scale: float, damping: Tensor) -> None:
    """Clip to ``limit``, then damp and take the loss scaler's ``scale`` off, in place.

    Not-finite gradients are left as bad as they are: they are for the caller to see, never to clean.
    """
    clip = (limit / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(list(gradients), clip * damping / scale)


class GradientSum:
    """Sums gradients over ranks, each bucket as soon as the backward pass has made it. With one rank it does
    nothing.

    What torch's ``DistributedDataParallel`` does, without a wrapper around the model, and summed instead of
    averaged, since the loss has been divided by the counts of all ranks. Buckets and their order are fixed,
    so ranks need not reach the parameters in one order. A parameter that a rank did not use counts as 0
    there.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], ranks: Ranks) -> None:
        self._ranks = ranks
        self._buckets = _buckets(parameters) if ranks.size > 1 else []
        self._due = len(self._buckets)
        """The bucket to send next; past the end outside of a last backward pass."""
        for bucket in self._buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(self._made(bucket))

    def begin(self) -> None:
        """The next backward pass is the last one of its step."""
        for bucket in self._buckets:
            bucket.missing = len(bucket.parameters)
        self._due = 0

    def finish(self) -> None:
        """Every parameter's ``grad`` is the sum over ranks from here on."""
        while self._due < len(self._buckets):
            self._send()
        for bucket in self._buckets:
            bucket.receive()

    def _made(self, bucket: _Bucket) -> Callable[[Tensor], None]:
        def made(parameter: Tensor) -> None:
            bucket.missing -= 1
            while self._due < len(self._buckets) and self._buckets[self._due].missing == 0:
                self._send()

        return made

    def _send(self) -> None:
        self._buckets[self._due].send(self._ranks)
        self._due += 1


class _Bucket:
    """Some parameters, and one piece of memory for their gradients."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.missing = 0
        sizes = [p.numel() for p in parameters]
        self._flat = torch.zeros(sum(sizes), dtype=parameters[0].dtype, device=parameters[0].device)
        self._views = [view.view_as(p) for view, p in zip(self._flat.split(sizes), parameters, strict=True)]
        self._result: Callable[[], Tensor] | None = None

    @torch.no_grad()
    def send(self, ranks: Ranks) -> None:
        used = [(v, p.grad) for v, p in zip(self._views, self.parameters, strict=True) if p.grad is not None]
        if len(used) < len(self.parameters):
            self._flat.zero_()
        torch._foreach_copy_([view for view, _ in used], [gradient for _, gradient in used])
        self._result = ranks.sum_later(self._flat)

    def receive(self) -> None:
        assert self._result is not None
        self._result()
        self._result = None
        for view, parameter in zip(self._views, self.parameters, strict=True):
            parameter.grad = view


def _buckets(parameters: Sequence[nn.Parameter]) -> list[_Bucket]:
    """From the last parameter to the first, which is about the order of the backward pass."""
    groups: list[list[nn.Parameter]] = []
    room = 0
    for parameter in reversed(parameters):
        size = parameter.numel() * parameter.element_size()
        if not groups or size > room or parameter.dtype != groups[-1][0].dtype:
            groups.append([])
            room = BUCKET_BYTES
        groups[-1].append(parameter)
        room -= size
    return [_Bucket(group) for group in groups]
