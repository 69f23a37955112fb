"""The number of threads, on made-up machines: no test here looks at a clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ttsfast.config import Config
from ttsfast.evaluation.log import read_log
from ttsfast.training import threads as adapting
from ttsfast.training.telemetry.log import Telemetry
from ttsfast.training.threads import WINDOW, ThreadController, Threads, Window
from ttsfast.training.trainer import Trainer

Speed = Callable[[int, int], float]

# Frames per second of nano by threads, for 0 to 4 busy neighbours on two cores; that for 2 was not measured.
MEASURED = {1: (11_000, 11_700, 7_000, 4_600, 2_700), 2: (18_000, 4_500, 1_800, 970, 350)}


def two_cores(threads: int, neighbours: int) -> float:
    return MEASURED[threads][neighbours]


def sixteen_cores(threads: int, neighbours: int) -> float:
    """All wait for the slowest."""
    return 3_000 * threads**0.8 * min(1.0, 16 / (threads + neighbours)) ** 3


def fair(threads: int, neighbours: int, cores: int) -> float:
    """The share of their time in which threads wait."""
    return max(0.0, 1 - cores / (threads + neighbours))


class Machine:
    """Takes steps as a controller says; everything else about it is known."""

    def __init__(
        self,
        speed: Speed,
        cores: int,
        *,
        seed: int = 0,
        noise: float = 0.1,
        lag: float = 0.02,
        tells_idle: bool = True,
    ):
        self._tells_idle = tells_idle
        self.controller = ThreadController(cores)
        self._speed, self._cores, self._lag = speed, cores, lag
        self._noise, self._random = noise, random.Random(seed)

    def run(self, neighbours: int, seconds: float) -> float:
        """Frames per second over at least so many seconds."""
        frames, passed = 0, 0.0
        while passed < seconds:
            window_frames, window = 0, 0.0
            threads = self.controller.threads
            while window < WINDOW:
                step = self._random.randint(5_000, 7_500)
                window_frames += step
                noise = 1 + self._noise * self._random.uniform(-1, 1)
                window += step / (noise * self._speed(threads, neighbours))
            waiting = min(0.9, fair(threads, neighbours, self._cores) + self._lag * self._random.random())
            idle = max(0.0, self._cores - threads - neighbours) if self._tells_idle else 0.0
            self.controller.observe(Window(window_frames, window, waiting, idle))
            frames, passed = frames + window_frames, passed + window
        return frames / passed


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("neighbours", range(5))
def test_it_is_nearly_as_fast_as_the_best_number_from_the_first_step_on(neighbours: int, seed: int) -> None:
    best = max(two_cores(threads, neighbours) for threads in MEASURED)
    speed = Machine(two_cores, 2, seed=seed).run(neighbours, 600)
    assert speed > (0.99 if neighbours == 0 else 0.9) * best


@pytest.mark.parametrize(("tells_idle", "seconds"), [(True, 4), (False, 75)])
@pytest.mark.parametrize("neighbours", range(1, 5))
def test_it_comes_back_when_neighbours_leave(neighbours: int, tells_idle: bool, seconds: float) -> None:
    machine = Machine(two_cores, 2, tells_idle=tells_idle)
    machine.run(neighbours, 300)
    assert machine.controller.kept == 1
    machine.run(0, seconds)
    assert machine.controller.kept == 2
    assert machine.run(0, 60) > 0.97 * two_cores(2, 0)


def test_alone_nothing_is_tried() -> None:
    machine = Machine(two_cores, 2)
    machine.run(0, 1_000)
    assert machine.controller.trials == 0


def test_what_looks_like_a_neighbour_and_is_none_costs_little() -> None:
    speed = Machine(two_cores, 2, lag=0.5, noise=0.0).run(0, 2_000)
    assert 0.97 * two_cores(2, 0) < speed < two_cores(2, 0)


def test_more_are_not_tried_while_one_already_waits() -> None:
    machine = Machine(two_cores, 2)
    machine.run(4, 300)
    trials = machine.controller.trials
    machine.run(4, 1_000)
    assert machine.controller.trials == trials


@pytest.mark.parametrize("neighbours", [1, 5, 12])
def test_on_many_cores_it_finds_how_many_the_neighbours_leave(neighbours: int) -> None:
    machine = Machine(sixteen_cores, 16)
    machine.run(neighbours, 300)
    best = max(sixteen_cores(threads, neighbours) for threads in range(1, 17))
    assert machine.run(neighbours, 300) > 0.9 * best
    machine.run(0, 120)
    assert machine.controller.kept == 16


def test_a_change_tells_both_speeds() -> None:
    controller = ThreadController(2)
    assert controller.observe(Window(4_500, 1.0, 0.33)) is None
    assert controller.threads == 1
    assert controller.kept == 2
    change = controller.observe(Window(11_700, 1.0, 0.0))
    assert change is not None
    assert (change.before, change.threads, change.before_speed, change.speed) == (2, 1, 4_500, 11_700)


def test_as_fast_is_not_faster() -> None:
    controller = ThreadController(2)
    for _ in range(50):
        assert controller.observe(Window(5_000, 1.0, 0.33)) is None
    assert controller.kept == 2
    assert 0 < controller.trials < 6


@pytest.fixture
def _two_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def write_schedstat(folder: Path, **waited: int) -> None:
    for task, nanoseconds in waited.items():
        (folder / task).mkdir(exist_ok=True)
        (folder / task / "schedstat").write_text(f"1000000 {nanoseconds} 7\n")


@pytest.mark.usefixtures("_two_threads")
def test_a_run_takes_fewer_threads_says_so_and_gives_them_back(
    make_config: Callable[..., Config],
    make_model: Callable[[], torch.nn.Module],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Telemetry, "say", lambda _, message: said.append(message))
    monkeypatch.setattr("ttsfast.devices._allowed_cores", lambda: 2)
    monkeypatch.setattr(adapting, "WINDOW", 0.0)
    monkeypatch.setattr(adapting, "GAIN", 0.0)
    monkeypatch.setattr(adapting, "TASKS", tmp_path / "task")
    (tmp_path / "task").mkdir()
    write_schedstat(tmp_path / "task", leader=0)
    train_step = Trainer.train_step

    def slowly(trainer: Trainer, *given: Any, **named: Any) -> bool:
        # A thread that the process gains with its first step, and that waited as long as it ran.
        write_schedstat(tmp_path / "task", helper=1_000_000)
        return train_step(trainer, *given, **named)

    monkeypatch.setattr(Trainer, "train_step", slowly)
    with Trainer(make_config(), model=make_model()) as trainer:
        trainer.fit()
    assert [line.split(":")[0] for line in said if "1 thread from here" in line] == ["step 2"]
    rows = [row for row in read_log(trainer.run_folder) if row["kind"] == "train"]
    assert [row["threads"] for row in rows] == [1, 1, 1]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("changes", [{"training__deterministic": True}, {"training__compile": True}, {}])
def test_the_number_is_fixed_where_bits_or_programs_depend_on_it(
    make_config: Callable[..., Config],
    make_model: Callable[[], torch.nn.Module],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, bool],
) -> None:
    monkeypatch.setattr("ttsfast.devices._allowed_cores", lambda: 2)
    monkeypatch.setattr("ttsfast.training.trainer.set_up_arithmetic", lambda *_: None)
    asked: list[bool] = []
    monkeypatch.setattr(
        "ttsfast.training.trainer.Threads", lambda *, adapt: asked.append(adapt) or Threads(adapt=False)
    )
    with Trainer(make_config(**changes), model=make_model()):
        assert asked == [not changes]


@pytest.mark.usefixtures("_two_threads")
def test_it_is_fixed_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(adapting, "TASKS", tmp_path / "none")
    threads = Threads(adapt=True)
    threads.begin()
    assert threads.end(1) is None
    assert threads.figures() == {"threads": 2}


@pytest.mark.usefixtures("_two_threads")
def test_idle_are_cores_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def write_stat(ticks: int) -> None:
        # The sum of all first; then a core of ours that idles or waits for a disk, and one of others.
        rows = f"cpu 9 9 9 {4 * ticks} 0\ncpu3 9 9 9 {ticks} {ticks} 9\ncpu4 9 9 9 {2 * ticks} 0\nintr 1\n"
        (tmp_path / "stat").write_text(rows)

    def observe(_: ThreadController, window: Window) -> None:
        seen.append(window)

    seen: list[Window] = []
    monkeypatch.setattr(adapting, "STAT", tmp_path / "stat")
    monkeypatch.setattr(adapting, "WINDOW", 0.0)
    monkeypatch.setattr(adapting.os, "sched_getaffinity", lambda _: {3})
    monkeypatch.setattr(adapting.os, "sysconf", lambda _: 100)
    monkeypatch.setattr(adapting.time, "perf_counter", iter([10.0, 10.0, 12.0, 12.0]).__next__)
    monkeypatch.setattr(ThreadController, "observe", observe)
    write_stat(0)
    threads = Threads(adapt=True)
    threads.begin()
    write_stat(75)
    threads.end(1)
    assert [window.idle for window in seen] == [0.75]
