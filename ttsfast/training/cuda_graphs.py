"""``training.cuda_graphs``: a step's kernels recorded once for a batch's bucket of shapes, then replayed.

A recorded graph reads and writes the same addresses every time. So a batch is copied into a bucket's slots,
gradients stay where they are and are set to 0 instead of dropped, and everything that a step moves (adaptive
weights, spike guard, loss scale, learning rate, optimiser state) lies in device tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ttsfast.config import Config, TrainingConfig
from ttsfast.data.features.tracks import NAMES as TRACKS
from ttsfast.data.loading.batch import Batch
from ttsfast.data.loading.plan import BatchPlan
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError
from ttsfast.losses.module import TTSLoss
from ttsfast.terms.counts import Counts
from ttsfast.training.buckets import Bucket, Buckets, training_buckets
from ttsfast.training.distributed.data_parallel import DataParallel
from ttsfast.training.distributed.process_group import ProcessGroup
from ttsfast.training.optimizers import Optimizers
from ttsfast.training.precision import LossScaler
from ttsfast.training.step import ForwardBackward, OptimizerStep, StepStats, stats_of
from ttsfast.training.telemetry.timing import StepClock
from ttsfast.training.weight_average import WeightAverage

S = TypeVar("S")
G = TypeVar("G")
MOST = 64
"""Graphs kept; each takes its slots and some MiB. Buckets that come after so many others go without."""


def refuse_cuda_graphs(config: Config, device: torch.device, ranks: ProcessGroup) -> None:
    """Raise InputError where ``training.cuda_graphs`` is set and cannot be."""
    if not config.training.cuda_graphs:
        return
    if device.type != "cuda":
        raise InputError(
            f"training.cuda_graphs needs a CUDA device, and this run is on {device.type}: "
            "set training.cuda_graphs=false"
        )
    if ranks.size > 1:
        raise InputError(
            f"training.cuda_graphs works in one process, and there are {ranks.size} ranks: "
            "set training.cuda_graphs=false"
        )


class Recorder(Protocol):
    """How a piece of work is run, and recorded to be run again. The work takes and returns nothing: it
    reads and writes tensors that stay where they are."""

    def plainly(self, work: Callable[[], None]) -> None:
        """Run it."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Take down what it would do, without doing it; what is returned does it."""


class CudaRecorder:
    """CUDA graphs, one stream and one pool of memory for all of them.

    In a shared pool a graph's intermediate results may lie where another's do: one replay at a time, and
    nothing in the pool is read after it.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def plainly(self, work: Callable[[], None]) -> None:
        """On the stream of the recordings: what libraries set up at their first call is then there."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()
        current.wait_stream(self._stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Raises InputError where something in ``work`` cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        try:
            # Of this thread only: the loader's may allocate meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                work()
        except RuntimeError as error:
            # What ends a recording that was broken off says no more than that it was.
            cause = error.__context__ or error
            reason = str(cause).strip().partition("\n")[0].rstrip(".")
            raise InputError(
                f"training.cuda_graphs: the step cannot be recorded ({reason}); "
                "set training.cuda_graphs=false"
            ) from error
        replay: Callable[[], None] = graph.replay
        return replay


class Replays:
    """Work by its key: the first time plainly, the second time recorded, replayed from then on.

    What comes once is not worth a recording, and the plain run has set up what a recording must find. After
    :data:`MOST` recordings other keys go on plainly.
    """

    def __init__(self, recorder: Recorder, most: int = MOST) -> None:
        self._recorder, self._most = recorder, most
        self._seen: set[Hashable] = set()
        self._recorded: dict[Hashable, tuple[Any, Callable[[], None]]] = {}
        self.plain = 0
        """Runs without a recording."""
        self.replayed = 0
        """Runs by a recording."""

    @property
    def recorded(self) -> int:
        """Recordings kept."""
        return len(self._recorded)

    def run(
        self,
        key: Hashable,
        given: G,
        *,
        make_slots: Callable[[], S],
        fill: Callable[[S, G], None],
        work: Callable[[S], None],
    ) -> None:
        """Do ``work`` on the slots of ``key``, into which ``fill`` copies what is given."""
        kept = self._recorded.get(key)
        slots = make_slots() if kept is None else kept[0]
        fill(slots, given)
        if kept is None and key in self._seen and len(self._recorded) < self._most:
            kept = self._recorded[key] = slots, self._recorder.record(partial(work, slots))
        if kept is None:
            self._seen.add(key)
            self.plain += 1
            self._recorder.plainly(partial(work, slots))
        else:
            self.replayed += 1
            kept[1]()


class ReplayedForwardBackward(ForwardBackward):
    """Forward, loss and backward of each micro-batch by its bucket's recording, in one process.

    Args:
        recorder: of CUDA graphs.
        buckets: of the training batches.
        silence: (C,) what a mel is padded with.
        rest: as :class:`ForwardBackward` takes it.
    """

    def __init__(self, recorder: Recorder, buckets: Buckets, silence: np.ndarray, *rest: Any) -> None:
        super().__init__(*rest)
        self.replays = Replays(recorder)
        device = next(self.objective.parameters()).device
        self._buckets, self._silence = buckets, torch.as_tensor(silence, device=device)
        self.normalizer = torch.zeros(len(Counts._fields), dtype=torch.int64, device=device)
        self.stats: StepStats | None = None
        """What the latest micro-batch left, in memory that stays."""

    def __call__(self, batches: Sequence[Batch], normalizer: Counts) -> StepStats:
        self.normalizer.copy_(torch.stack([torch.as_tensor(count) for count in normalizer]))
        sums: list[Tensor] = []
        for batch in batches:
            bucket = self._buckets(batch)
            with self.objective.around_passes():
                self.replays.run(
                    bucket,
                    batch,
                    make_slots=partial(_batch_slots, bucket, batch),
                    fill=self._fill,
                    work=self._both_passes,
                )
            assert self.stats is not None
            stats = self.stats._replace(weights=self.stats.weights.clone())
            sums.append(stats.sums.clone())
            self.objective.clock.lap("replay")
        return stats._replace(sums=torch.stack(sums).sum(dim=0))

    def _both_passes(self, slots: Batch) -> None:
        """From tensors that stay to tensors that stay."""
        scale = self._scaler.factor
        out = self.objective(slots, Counts(*self.normalizer.unbind()), scale)
        out.total.backward(scale)
        made = stats_of(out)
        if self.stats is None:
            self.stats = made._replace(sums=made.sums.clone(), weights=made.weights.clone())
        self.stats.sums.copy_(made.sums)
        self.stats.weights.copy_(made.weights)

    def _fill(self, slots: Batch, given: Batch) -> None:
        frames, symbols = given.mel.shape[1], given.text.shape[1]
        slots.mel[:, :frames].copy_(given.mel)
        slots.mel[:, frames:].copy_(self._silence)
        slots.text[:, :symbols].copy_(given.text)
        slots.text[:, symbols:].zero_()
        for name in ("text_lengths", "mel_lengths", "speaker", "truncated"):
            getattr(slots, name).copy_(getattr(given, name))
        for name in TRACKS:
            if (track := getattr(given, name)) is not None:
                getattr(slots, name).zero_()[:, :frames].copy_(track)

    def figures(self) -> dict[str, float]:
        recorded = {"graphs": self.replays.recorded, "plain_passes": self.replays.plain}
        return {**super().figures(), **recorded}


def _batch_slots(bucket: Bucket, like: Batch) -> Batch:
    utterances, frames, symbols = bucket
    return Batch(
        ids=(),
        text=like.text.new_zeros(utterances, symbols),
        text_lengths=torch.empty_like(like.text_lengths),
        mel=like.mel.new_empty(utterances, frames, like.mel.shape[2]),
        mel_lengths=torch.empty_like(like.mel_lengths),
        speaker=torch.empty_like(like.speaker),
        truncated=torch.empty_like(like.truncated),
        frames=0,
        **{
            name: track.new_empty(utterances, frames)
            for name in TRACKS
            if (track := getattr(like, name)) is not None
        },
    )


class ReplayedOptimizerStep(OptimizerStep):
    """The optimiser's half of a step by its recording, where the optimiser can be recorded.

    Args:
        recorder: of CUDA graphs.
        rest: as :class:`OptimizerStep` takes it.
    """

    def __init__(self, recorder: Recorder, *rest: Any) -> None:
        super().__init__(*rest)
        self.replays = Replays(recorder)

    def _apply(self, sums: Tensor, norm: Tensor, bad: Tensor, *, terms: int, with_ratios: bool) -> None:
        apply = partial(super()._apply, terms=terms, with_ratios=with_ratios)
        if with_ratios or not self._optimizers.skips_on_device:
            apply(sums, norm, bad)
            return
        # A recording moves what had a gradient when it was made. What has had one keeps it; more may come.
        moved = sum(parameter.grad is not None for parameter in self._optimizers.parameters)
        figures = (sums, norm, bad)
        self.replays.run(
            moved,
            figures,
            make_slots=lambda: [torch.empty_like(figure) for figure in figures],
            fill=torch._foreach_copy_,
            work=lambda slots: apply(*slots),
        )
        self._clock.lap("optimizer")


def build_step(
    config: Config,
    store: Store,
    plan: BatchPlan,
    passes: tuple[DataParallel, LossScaler, ProcessGroup],
    update: tuple[TrainingConfig, TTSLoss, Optimizers, WeightAverage, LossScaler, StepClock],
) -> tuple[ForwardBackward, OptimizerStep]:
    """The two halves of a step, from recordings where ``training.cuda_graphs`` is set; the last two arguments
    are theirs."""
    if not config.training.cuda_graphs:
        return ForwardBackward(*passes), OptimizerStep(*update)
    objective = passes[0].objective
    recorder = CudaRecorder(objective.precision.device)
    buckets = training_buckets(config, store, plan, objective.reduction_factor)
    return (
        ReplayedForwardBackward(recorder, buckets, store.silence, *passes),
        ReplayedOptimizerStep(recorder, *update),
    )
