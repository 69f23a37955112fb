"""Many independent jobs, in this process, on local cores, or on a Ray or Dask cluster: one way to run all.

Ray and Dask are reached through joblib's own parallel backends, so that a job is a plain picklable function
whatever runs it. Jobs are taken from their iterator a window at a time, so memory does not grow with how many
there are; the price is that workers wait for the slowest job at the end of every window.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import islice
from typing import Any, TypeVar

from ttsfast.devices import available_cores
from ttsfast.errors import InputError

J = TypeVar("J")
R = TypeVar("R")

ENGINES = ("serial", "joblib", "ray", "dask")
"""``serial``: in this process; ``joblib``: processes on this machine; ``ray``, ``dask``: a cluster, or one
started on this machine for the occasion."""
WINDOW = 16
"""Jobs in flight for every worker."""

_PACKAGES = {"ray": ("ray",), "dask": ("dask", "distributed")}


def run(
    engine: str,
    workers: int,
    function: Callable[[J], R],
    jobs: Iterable[J],
    *,
    in_flight: int | None = None,
    name: Callable[[J], str] = str,
) -> Iterator[tuple[J, R]]:
    """Call ``function`` on every job; yields ``(job, result)`` as results come, in no particular order.

    The first error ends the run, after the jobs that are in flight; their results are dropped.

    Args:
        engine: one of ``ENGINES``. A Ray cluster is found by ``RAY_ADDRESS``, a Dask one by
            ``DASK_SCHEDULER_ADDRESS``; a session of either that this process already has is used as it is.
            The jobs' files must have the same paths on every machine of it.
        workers: processes; -1: every core of this machine, or of the cluster. A cluster that exists is
            not resized: all of its cores are used.
        function: picklable, and so its results. Whatever it writes must not be in the way of other jobs.
        jobs: taken lazily, at most ``in_flight`` ahead of what has been yielded.
        in_flight: ``WINDOW`` for every worker when None.
        name: what to call a job in an error.

    Raises:
        InputError: the engine is unknown or its package is not installed; or ``function`` raised it.
        OSError: ``function`` raised it.
        ChildProcessError: a worker died; the message says which jobs were in flight.
        RuntimeError: ``function`` raised anything else; the message names the job and holds the traceback.
    """
    check_engine(engine)
    if workers < 1 and workers != -1:
        raise InputError(f"{workers} workers cannot work; give 1 or more, or -1 for every core")
    if in_flight is not None and in_flight < 1:
        raise ValueError(f"in_flight is {in_flight}, must be 1 or more")
    return _run(engine, workers, function, iter(jobs), in_flight, name)


def check_engine(engine: str) -> None:
    """Raise InputError for an engine that is unknown or whose package is not installed."""
    if engine not in ENGINES:
        raise InputError(f"unknown engine {engine!r}; use one of {', '.join(ENGINES)}")
    missing = [package for package in _PACKAGES.get(engine, ()) if find_spec(package) is None]
    if missing:
        raise InputError(
            f"engine {engine!r} needs the package {missing[0]!r}: pip install 'ttsfast[{engine}]'"
        )


@dataclass(frozen=True)
class _Outcome:
    """What became of a job; errors travel as values, for each engine dresses exceptions up in its own way."""

    number: int
    result: Any = None
    error: Exception | None = None
    trace: str = ""


def _outcome(function: Callable[[Any], Any], number: int, job: Any) -> _Outcome:
    """What workers call."""
    try:
        return _Outcome(number, function(job))
    except InputError as error:
        # Subclasses may not survive pickling.
        return _Outcome(number, error=InputError(str(error)))
    except OSError as error:
        return _Outcome(number, error=error)
    except Exception:
        return _Outcome(number, trace=traceback.format_exc())


def _run(
    engine: str,
    workers: int,
    function: Callable[[J], R],
    jobs: Iterator[J],
    in_flight: int | None,
    name: Callable[[J], str],
) -> Iterator[tuple[J, R]]:
    with _session(engine, workers) as (cores, submit):
        size = in_flight or WINDOW * cores
        while window := list(islice(jobs, size)):
            try:
                outcomes = submit(partial(_outcome, function), window)
                for outcome in outcomes:
                    job = window[outcome.number]
                    if outcome.error is not None or outcome.trace:
                        # To the window's end: abandoning jobs half-way upsets the engines.
                        list(outcomes)
                        raise outcome.error or RuntimeError(
                            f"{name(job)}: failed in a worker\n{outcome.trace}"
                        )
                    yield job, outcome.result
            except _deaths(engine) as error:
                first, last = name(window[0]), name(window[-1])
                raise ChildProcessError(
                    f"a worker process died, out of memory perhaps, at one of {len(window)} jobs "
                    f"from {first} to {last}; run again with fewer workers"
                ) from error


Submit = Callable[[Callable[[int, Any], _Outcome], list[Any]], Iterator[_Outcome]]


@contextmanager
def _session(engine: str, workers: int) -> Iterator[tuple[int, Submit]]:
    """How many jobs run at a time, and a function that runs a window of them."""
    cores = available_cores() if workers == -1 else workers
    if engine == "serial" or (engine == "joblib" and cores == 1):
        yield 1, lambda call, window: (call(number, job) for number, job in enumerate(window))
        return
    if engine == "joblib":
        with _parallel("loky", cores, as_they_come=True) as session:
            yield session
    elif engine == "ray":
        with _ray(cores), _parallel("ray", -1, as_they_come=False) as session:
            yield session
    else:
        with _dask(cores), _parallel("dask", -1, as_they_come=True) as session:
            yield session


@contextmanager
def _parallel(backend: str, workers: int, *, as_they_come: bool) -> Iterator[tuple[int, Submit]]:
    from joblib import Parallel, delayed, effective_n_jobs, parallel_config

    # Ray's backend is built on a pool of processes, for which joblib offers no generator.
    form = "generator_unordered" if as_they_come else "list"
    with (
        parallel_config(backend, n_jobs=workers),
        Parallel(batch_size=1, pre_dispatch="all", return_as=form) as parallel,
    ):

        def submit(call: Callable[[int, Any], _Outcome], window: list[Any]) -> Iterator[_Outcome]:
            return iter(parallel(delayed(call)(number, job) for number, job in enumerate(window)))

        yield effective_n_jobs(), submit


@contextmanager
def _ray(workers: int) -> Iterator[None]:
    """A Ray session: the one there is, the cluster's, or one of ``workers`` processes for the occasion."""
    import ray
    from ray.util.joblib import register_ray

    started = not ray.is_initialized()
    if started and "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False)
    elif started:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    register_ray()
    try:
        yield
    finally:
        if started:
            ray.shutdown()


@contextmanager
def _dask(workers: int) -> Iterator[None]:
    """A Dask client: the one there is, the cluster's, or one of ``workers`` processes for the occasion."""
    import dask
    from distributed import Client, get_client

    try:
        get_client()
    except ValueError:
        if address := dask.config.get("scheduler-address", None):
            client = Client(address)
        else:
            client = Client(
                n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR
            )
        with client:
            yield
    else:
        yield


def _deaths(engine: str) -> tuple[type[Exception], ...]:
    """What an engine raises when a worker process is gone."""
    if engine == "ray":
        from ray.exceptions import RayError

        return (RayError,)
    if engine == "dask":
        from distributed import KilledWorker

        return (KilledWorker,)
    from joblib.externals.loky.process_executor import BrokenProcessPool

    return (BrokenProcessPool,)
