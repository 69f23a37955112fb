"""Many processes that train one model: who this one is, and what they tell each other.

Hosts talk over gloo, GPUs over NCCL, in one process group that ``torchrun`` gives the address of.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ttsfast.config import TrainingConfig
from ttsfast.errors import InputError, RankLost, SaidByAnotherRank, exit_code
from ttsfast.progress import console
from ttsfast.training.preemption import Preemption

T = TypeVar("T")
CAUSE = "ttsfast/cause"
SECONDS_FOR_A_CAUSE = 3.0
"""How long a rank that lost the others looks for the reason: it is written before connections close."""

SECONDS_FOR_TORCH = 2.0
"""By how much torch's own timeout, which says more, may be late."""


class CommunicationError(RuntimeError):
    """A message to or from another rank did not get through."""


@contextmanager
def _communication_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch's own kinds, and gloo's, which has none
        raise CommunicationError(str(error)) from error


class ProcessGroup:
    """The ranks of a run, as one process alone has them: what it tells the others, it tells itself."""

    rank, size, local_rank = 0, 1, 0

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def any_rank(self, flag: bool) -> bool:
        """Whether any rank raised its flag; the same answer on all of them, at the same call."""
        return flag

    def broadcast_object(self, value: T) -> T:
        """The first rank's value, on every rank."""
        return value

    def all_gather_object(self, value: T) -> list[T]:
        """Every rank's value, on every rank."""
        return [value]

    def all_reduce_async(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Begin to sum a tensor over ranks, in place; the function that is returned gives the sum."""
        return lambda: tensor

    def broadcast_model(self, model: nn.Module) -> None:
        """Give every rank the first one's weights and buffers."""

    def barrier(self) -> None:
        """Wait until every rank has come here."""


class TorchProcessGroup(ProcessGroup):
    """One of several processes, within :func:`join_ranks`."""

    def __init__(self, rank: int, size: int, local_rank: int) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._pending_flags: Callable[[], Tensor] | None = None

    def any_rank(self, flag: bool) -> bool:
        """As in one process, but of the flags at the call before: so no host waits for a slower one, and none
        for a device.
        """
        answer = self._settle_flags()
        self._pending_flags = self.all_reduce_async(torch.tensor(int(flag)))
        return answer

    def broadcast_object(self, value: T) -> T:
        box: list[Any] = [value]
        with _communication_errors():
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        held: T = box[0]
        return held

    def all_gather_object(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.size
        with _communication_errors():
            dist.all_gather_object(values, value)
        return values

    def all_reduce_async(self, tensor: Tensor) -> Callable[[], Tensor]:
        with _communication_errors():
            work = dist.all_reduce(tensor, async_op=True)

        def result() -> Tensor:
            with _communication_errors():
                work.wait()
            return tensor

        return result

    def broadcast_model(self, model: nn.Module) -> None:
        with _communication_errors():
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), src=0)

    def barrier(self) -> None:
        self.all_gather_object(None)

    def close(self) -> None:
        """Leave together: who closes a connection early looks to the others as if it had died."""
        self._settle_flags()
        self.barrier()

    def _settle_flags(self) -> bool:
        if self._pending_flags is None:
            return False
        flags, self._pending_flags = self._pending_flags, None
        return bool(flags())


def require_single_process() -> ProcessGroup:
    """One rank alone; raise InputError where this process is one of several, which would all write it."""
    if int(os.environ.get("WORLD_SIZE", "1")) != 1:
        raise InputError(
            f"this process is one of WORLD_SIZE={os.environ['WORLD_SIZE']}: from Python, use `with "
            "join_ranks(config.training) as ranks: Trainer(config, ranks=ranks)`; --find-lr wants one process"
        )
    return ProcessGroup()


@contextmanager
def join_ranks(training: TrainingConfig) -> Iterator[ProcessGroup]:
    """Join the processes that ``torchrun`` started beside this one; alone where there are none.

    Within the block only the first rank prints. What ends a rank is told to all, so that each ends with the
    first cause, and one of them prints it.

    Raises:
        InputError: more ranks on this machine than it has GPUs.
        RankLost: another rank ended, or was not heard of for ``training.rank_timeout`` seconds.
        SaidByAnotherRank: this rank ends with the same message as another, which prints it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ProcessGroup()
        return
    timeout = timedelta(seconds=training.rank_timeout)
    try:
        shared, rank, size = _rendezvous(timeout)
        store = _fresh_store(shared, rank, size, training.rank_timeout)
    except RuntimeError as error:
        raise RankLost(f"not all ranks came within training.rank_timeout: {_line(error)}") from error
    local = int(os.environ.get("LOCAL_RANK", "0"))
    ranks = TorchProcessGroup(rank, size, local)
    quiet = console.quiet
    console.quiet = quiet or not ranks.is_first
    with ExitStack() as leaving:
        try:
            _open_group(training, store, ranks, timeout)
            yield ranks
            ranks.close()
        except Exception as error:
            # torchrun sends SIGTERM once another rank has ended: what this one has to say comes first.
            leaving.enter_context(Preemption())
            reported = _report_cause(store, ranks, error)
            raise reported from (None if reported is error else error)
        finally:
            console.quiet = quiet
            if dist.is_initialized():
                dist.destroy_process_group()


def _rendezvous(timeout: timedelta) -> tuple[Any, int, int]:
    """The store that ``MASTER_ADDR`` and ``MASTER_PORT`` name, this rank and how many there are.

    In a thread that may be left behind: where something else listens at that address, torch waits for its
    first word for ever, whatever the timeout.
    """
    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(next(dist.rendezvous("env://", timeout=timeout)))
        except Exception as error:
            found.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout.total_seconds() + SECONDS_FOR_TORCH)
    if not found:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RuntimeError(
            f"what listens at {address} (MASTER_ADDR, MASTER_PORT) does not answer as the first rank would; "
            "if it is another program, choose another port"
        )
    if isinstance(found[0], Exception):
        raise found[0]
    shared, rank, size = found[0]
    return shared, rank, size


def _fresh_store(store: Any, rank: int, size: int, seconds: float) -> dist.PrefixStore:
    """A part of ``torchrun``'s store that no earlier start has written to.

    The store outlives a restart, and so does what dead ranks wrote there: addresses, and why they ended.
    The count of restarts cannot tell starts apart, for machines may count differently. So the first rank
    draws a name, and gives it to whoever asks with a name drawn just now.
    """
    if rank:
        own = uuid.uuid4().hex
        store.set(f"ttsfast/hello/{rank}", own)
        name = store.get(f"ttsfast/answer/{own}").decode()
        store.set(f"ttsfast/here/{name}/{rank}", "")
        return dist.PrefixStore(name, store)
    name, until = uuid.uuid4().hex, time.monotonic() + seconds
    missing = list(range(1, size))
    while missing:
        for other in missing:
            if store.check([f"ttsfast/hello/{other}"]):
                store.set(f"ttsfast/answer/{store.get(f'ttsfast/hello/{other}').decode()}", name)
        missing = [other for other in missing if not store.check([f"ttsfast/here/{name}/{other}"])]
        if missing and time.monotonic() > until:
            raise RuntimeError(f"no word from rank {', '.join(map(str, missing))} of {size}")
        time.sleep(0.02)
    return dist.PrefixStore(name, store)


def _open_group(training: TrainingConfig, store: Any, ranks: TorchProcessGroup, timeout: timedelta) -> None:
    backend = "gloo"
    if training.device != "cpu" and torch.cuda.is_available():
        here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
        if here > gpus:
            raise InputError(
                f"{here} ranks on a machine with {gpus} GPUs: each rank needs one of its own; "
                f"use --nproc-per-node={gpus}, or training.device=cpu"
            )
        torch.cuda.set_device(ranks.local_rank)
        backend = "cpu:gloo,cuda:nccl"
    with _communication_errors():
        dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=timeout)


def _report_cause(store: Any, ranks: TorchProcessGroup, error: Exception) -> Exception:
    """Tell the other ranks what ends this one; return what to raise."""
    if isinstance(error, CommunicationError):
        cause = _cause_of_other_rank(store)
        unknown = (
            "another rank is gone or silent and has not said why (killed, out of memory, hung?); see the "
            f"launcher's summary [{_line(error)}]"
        )
        return RankLost(f"rank {ranks.rank} ends because {cause or unknown}; start again with --resume")
    mine = f"{ranks.rank} {type(error).__name__}: {_line(error)}"
    try:
        first = store.compare_set(CAUSE, "", mine).decode()
    except RuntimeError:
        return error  # who kept the store is gone
    if first != mine and first.split(" ", 1)[1] == mine.split(" ", 1)[1]:
        return SaidByAnotherRank(exit_code(error))
    return error


def _cause_of_other_rank(store: Any) -> str:
    """``rank 1 failed first: ...``, or nothing where no rank said so."""
    until = time.monotonic() + SECONDS_FOR_A_CAUSE
    try:
        while not store.check([CAUSE]):
            if time.monotonic() > until:
                return ""
            time.sleep(0.05)
        rank, cause = store.get(CAUSE).decode().split(" ", 1)
    except RuntimeError:
        return ""
    return f"rank {rank} failed first: {cause.split(': ', 1)[1]}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
