"""Every engine, really running: same results, bounded windows, errors by name, an interrupt that ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec

import pytest

from ttsfast.data.prepare import engines
from ttsfast.data.prepare.engines import ENGINES, check_engine, run
from ttsfast.errors import InputError

NEEDS = {"ray": "ray", "dask": "distributed"}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    package = NEEDS.get(request.param)
    if package and find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'ttsfast[{request.param}]'")
    return request.param


@pytest.mark.timeout(120)
def test_every_engine_gives_each_result_once_within_its_window_and_passes_on_what_failed(engine: str) -> None:
    taken: list[int] = []

    def jobs() -> Iterator[int]:
        for number in range(10**9):
            taken.append(number)
            yield number

    def work(number: int) -> tuple[int, int]:
        if number == 19:
            raise InputError("u19.wav: cannot be read; remove it")
        return number**2, os.getpid()

    found: dict[int, tuple[int, int]] = {}

    def consume() -> None:
        for job, result in run(engine, 2, work, jobs(), in_flight=6):
            assert job not in found
            found[job] = result
            assert len(taken) - len(found) < 6

    with pytest.raises(InputError, match=r"^u19\.wav: cannot be read; remove it$"):
        consume()
    assert set(range(18)) <= set(found) <= set(range(24)) - {19}
    assert all(square == job**2 for job, (square, _) in found.items())
    assert all((pid == os.getpid()) == (engine == "serial") for _, pid in found.values())


@pytest.mark.parametrize("engine", ["serial", "joblib"])
def test_other_errors_keep_their_kind_or_name_the_job_and_show_where(engine: str) -> None:
    def missing(number: int) -> int:
        raise FileNotFoundError(2, "No such file", "u8.wav")

    with pytest.raises(FileNotFoundError, match=r"u8\.wav"):
        list(run(engine, 2, missing, [1, 2]))
    with pytest.raises(RuntimeError, match="utterance 15: failed in a worker") as caught:
        list(run(engine, 2, lambda number: 1 // (number - 15), [15, 16], name=lambda job: f"utterance {job}"))
    assert "ZeroDivisionError" in str(caught.value)


def test_a_dead_worker_is_an_error_that_says_where() -> None:
    def die(number: int) -> int:
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(ChildProcessError, match=r"worker process died.*from 0 to 5; run again with fewer"):
        list(run("joblib", 2, die, range(6)))


def test_jobs_are_taken_only_as_they_are_needed() -> None:
    def endless() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    work = run("serial", 1, lambda number: -number, endless())
    assert [next(work) for _ in range(40)] == [(number, -number) for number in range(40)]


@pytest.mark.timeout(240)
def test_an_interrupt_ends_the_run_and_its_workers() -> None:
    program = textwrap.dedent(
        """
        import os, time
        from ttsfast.data.prepare.engines import run

        def work(number):
            time.sleep(0.05)
            return os.getpid()

        for count, (_, pid) in enumerate(run("joblib", 2, work, range(10**9))):
            print(pid, flush=True)
        """
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    workers = {int(child.stdout.readline()) for _ in range(10)}
    os.kill(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=180)
    assert child.returncode != 0
    # Helpers of the engine may have a word after it.
    assert any(line.startswith("KeyboardInterrupt") for line in errors.splitlines()), errors
    # They are told to end, and do so when the machine lets them.
    while any(map(_runs, workers)):
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    """Whether the process is there and no zombie that nobody has waited for yet."""
    with suppress(OSError), open(f"/proc/{pid}/stat") as handle:
        return handle.read().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def test_what_cannot_run_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="unknown engine 'spark'; use one of serial, joblib, ray, dask"):
        check_engine("spark")
    with pytest.raises(InputError, match="0 workers"):
        run("serial", 0, str, [1])
    with pytest.raises(ValueError, match="in_flight"):
        run("serial", 1, str, [1], in_flight=0)
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    for engine, package in [("ray", "ray"), ("dask", "dask")]:
        with pytest.raises(
            InputError, match=rf"needs the package '{package}': pip install 'ttsfast\["
        ) as caught:
            run(engine, 2, str, [1])
        assert "\n" not in str(caught.value)
    check_engine("joblib")
