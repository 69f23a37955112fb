"""One model on every rank: each has the gradients of its own batch, and the last backward pass sums them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ttsfast.data.loading.batch import Batch
from ttsfast.losses.output import LossOutput
from ttsfast.terms.counts import Counts
from ttsfast.training.distributed.process_group import CommunicationError, ProcessGroup
from ttsfast.training.objective import Objective


class DataParallelObjective:
    """The objective of one rank, whose gradients its last backward pass of a step sums over ranks.

    torch's ``DistributedDataParallel`` does it, with two changes to how it is mostly used. It sums instead of
    averaging, since the loss has been divided by the counts of all ranks. And it wraps the objective, not the
    model: so an output that no loss term reads does not count as used, and the model, its checkpoints and
    whatever else holds it know nothing of the wrapper.

    It looks for parameters that a step gives no gradient, since models may leave a part out at some steps, or
    on some ranks. One that no rank used keeps no gradient, as with one process.

    A step begins with the first rank's buffers on all ranks.
    """

    def __init__(self, objective: Objective, ranks: ProcessGroup) -> None:
        self._objective = objective
        self.trained_model = objective.model
        """What the optimiser moves: the model itself, but where it is sharded."""
        self._module: _ObjectiveModule | None = None
        if ranks.size > 1:
            self._module = _ObjectiveModule(objective)
            # Unused ones looked for, buckets also stay as they are at first, and so does the order of sums.
            self._ddp = DistributedDataParallel(
                self._module, find_unused_parameters=True, gradient_as_bucket_view=True
            )
            self._ddp.register_comm_hook(None, self._sum_bucket)
        self._disconnected = False

    def __call__(
        self, batch: Batch, normalizer: Counts, grad_scale: Tensor | None, *, last: bool
    ) -> LossOutput:
        """As :class:`Objective`; the backward pass of what this returns sums if it is the ``last`` one."""
        if self._module is None:
            return self._objective(batch, normalizer, grad_scale)
        self._module.reached = False
        try:
            with nullcontext() if last else self._ddp.no_sync():
                output: LossOutput = self._ddp(batch, normalizer, grad_scale)
        except RuntimeError as error:
            if self._module.reached:
                raise
            raise CommunicationError(str(error)) from error  # sharing buffers
        return output

    def backward(self, total: Tensor, grad_scale: Tensor | None) -> None:
        """Differentiate; after the last one of a step every ``grad`` is the sum over ranks."""
        try:
            total.backward(grad_scale)
        except RuntimeError as error:
            if self._disconnected:
                raise CommunicationError(str(error)) from error
            raise

    @contextmanager
    def full_weights(self, *, everywhere: bool = False) -> Iterator[None]:
        """In the block the model holds the weights that are trained, at least on the first rank; all ranks
        enter it together.
        """
        yield

    # Without annotations, whose text DDP would compare.
    def _sum_bucket(self, state, bucket):  # type: ignore[no-untyped-def]
        def ended(future: Any) -> Tensor:
            try:
                total: Tensor = future.value()[0]
            except RuntimeError:
                self._disconnected = True
                raise
            return total

        try:
            return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(ended)
        except RuntimeError:
            self._disconnected = True
            raise


class _ObjectiveModule(nn.Module):
    """The model's parameters under the objective's call."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.model = objective.model
        self._objective = objective
        self.reached = False

    def forward(self, batch: Batch, normalizer: Counts, grad_scale: Tensor | None) -> LossOutput:
        self.reached = True
        return self._objective(batch, normalizer, grad_scale)
