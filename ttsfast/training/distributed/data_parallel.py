"""The objective over ranks: each has the gradients of its own batch, and the last backward pass sums them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ttsfast.losses.output import LossOutput
from ttsfast.training.distributed.process_group import CommunicationError
from ttsfast.training.objective import Objective


class DataParallel:
    """The objective of one process, which has nothing to sum."""

    objective: Objective
    """Of the model that is trained."""
    module: Callable[..., LossOutput]
    """What to call in its place, with the same arguments."""

    def __init__(self, objective: Objective) -> None:
        self.objective = self.module = objective

    def accumulating(self, *, last: bool) -> AbstractContextManager[None]:
        """Around the passes of a micro-batch; after the ``last`` of a step every ``grad`` is the sum over
        ranks."""
        return nullcontext()

    def full_weights(self, *, everywhere: bool = False) -> AbstractContextManager[None]:
        """In the block the run's model holds the weights that are trained, at least on the first rank; all
        ranks enter it together.
        """
        return nullcontext()


class ReplicatedDataParallel(DataParallel):
    """One model on every rank.

    torch's ``DistributedDataParallel`` does it, with two changes to how it is mostly used. It sums instead of
    averaging, since the loss has been divided by the counts of all ranks. And it wraps the objective, not the
    model: so an output that no loss term reads does not count as used, and the model, its checkpoints and
    whatever else holds it know nothing of the wrapper.

    It looks for parameters that a step gives no gradient, since models may leave a part out at some steps, or
    on some ranks. One that no rank used keeps no gradient, as with one process.

    A step begins with the first rank's buffers on all ranks.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        # Unused ones looked for, buckets also stay as they are at first, and so does the order of sums.
        self.module = self.ddp = DistributedDataParallel(
            objective, find_unused_parameters=True, gradient_as_bucket_view=True
        )
        self.ddp.register_comm_hook(None, self._sum_bucket)
        self._disconnected = False

    @contextmanager
    def accumulating(self, *, last: bool) -> Iterator[None]:
        try:
            with communication_errors(), nullcontext() if last else self.ddp.no_sync():
                yield
        except RuntimeError as error:
            if self._disconnected:
                raise CommunicationError(str(error)) from error
            raise

    # Without annotations, whose text DDP would compare.
    def _sum_bucket(self, state, bucket):  # type: ignore[no-untyped-def]
        def total(future: Any) -> Tensor:
            try:
                summed: Tensor = future.value()[0]
            except RuntimeError:
                # What the backward pass raises then is an error's text in another's.
                self._disconnected = True
                raise
            return summed

        return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(total)


@contextmanager
def communication_errors() -> Iterator[None]:
    """Tell messages that did not get through from what else may fail in a pass that sends some."""
    try:
        yield
    except RuntimeError as error:
        # gloo's errors are of no kind of their own.
        if isinstance(error, dist.DistError) or "gloo" in str(error) or "pair closure" in str(error):
            raise CommunicationError(str(error)) from error
        raise
