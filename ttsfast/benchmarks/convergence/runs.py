"""One run in its folder: trained for so long, its weights kept on the way, to be listened to later.

RUN/run.json                          what it is, and when each snapshot was taken
    snapshots/step-00000025.safetensors  weights to speak with
    figures.json                      what was measured of them (figures.py)
    checkpoints/ or state.pt          from where it goes on
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from safetensors.torch import save

from ttsfast.benchmarks.convergence.clocks import Clocks
from ttsfast.benchmarks.convergence.loops import Loop, open_loop
from ttsfast.benchmarks.convergence.recipes import Recipe
from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.config import Config
from ttsfast.data.store.store import Store
from ttsfast.devices import choose_precision
from ttsfast.errors import InputError, TrainingError
from ttsfast.files import atomic_write, output_folder
from ttsfast.options import shown_value

NAME = "run.json"
FIRST, GROWTH = 20, 1.2
"""Steps of the first snapshot after the untrained one, and from each to the next: alike in the logarithm, so
that no recipe's times are known more finely than another's."""

MACHINE = ("processor", "instructions", "gpu")
"""What the seconds of all runs of a folder are of."""

BUDGET, STEPS, DIVERGED = "budget", "max_steps", "diverged"
"""How a run ended: its time was spent, its recipe was over, or its numbers were no longer finite."""


def snapshot_steps() -> Iterator[int]:
    """At which steps weights are kept."""
    yield 0
    taken = 0
    for number in range(10_000):
        step = round(FIRST * GROWTH**number)
        if step > taken:
            yield step
        taken = step


@dataclass(frozen=True)
class Run:
    """What ``run.json`` holds."""

    folder: Path
    body: dict[str, Any]

    @classmethod
    def open(cls, folder: Path, recipe: Recipe, config: Config, store: Store) -> Run:
        """A run as it is in ``folder``, or a new one.

        Raises:
            InputError: the folder holds one of other settings or of another store.
        """
        same = {
            "recipe": recipe.name,
            "loop": recipe.loop,
            "bucketing": recipe.bucketing,
            "config": _comparable(config),
            "store_fingerprint": store.fingerprint,
        }
        path = folder / NAME
        if not path.is_file():
            return cls(folder, {**same, "seed": config.training.seed, "ended": None, "snapshots": []})
        body = _read(path)
        if (differing := _difference(body, same)) is not None:
            raise InputError(
                f"{path}: is of a run with {differing}; use another --folder, or delete that one"
            )
        return cls(folder, body)

    @property
    def snapshots(self) -> list[dict[str, float]]:
        """By rising step: ``step``, ``seconds``, ``processor_seconds``."""
        found: list[dict[str, float]] = self.body["snapshots"]
        return found

    @property
    def seconds(self) -> float:
        """Trained so far, up to the last snapshot."""
        return self.snapshots[-1]["seconds"] if self.snapshots else 0.0

    def finished(self, budget: float) -> bool:
        """Whether nothing is left to train within so many seconds."""
        return self.body["ended"] in (STEPS, DIVERGED) or self.seconds >= budget

    def weights_at(self, step: int) -> Path:
        """The file of a snapshot."""
        return self.folder / "snapshots" / f"step-{step:08d}.safetensors"

    def write(self) -> None:
        """``run.json``, at once or not at all."""
        write_record(self.folder / NAME, self.body)


def train(
    run: Run,
    recipe: Recipe,
    config: Config,
    budget: float,
    progress: Callable[[float], None],
    beside: Iterable[Run] = (),
) -> None:
    """Train until ``budget`` seconds are spent or the recipe is over; go on from where a kill left it.

    A snapshot and its times are on the disk before the state is from which the run goes on: what is after the
    last state is trained, and timed, again. Neither setting up nor keeping counts as training.

    Args:
        run: of :meth:`Run.open`.
        recipe, config: as it was opened with.
        budget: seconds of training.
        progress: told the seconds trained, now and then.
        beside: runs that it is compared with.

    Raises:
        InputError: it began in another precision or with other threads, or one ``beside`` it on another
            machine: seconds of two machines say nothing of recipes.
    """
    precision = str(choose_precision(config).dtype).removeprefix("torch.")
    if run.snapshots and (began := run.body.get("precision", precision)) != precision:
        raise InputError(
            f"{run.folder}: it began in {began}, and this machine trains it in {precision}; go on where it "
            "began, or delete that folder"
        )
    run.body["precision"] = precision
    output_folder(run.folder / "snapshots")
    loop = open_loop(recipe, config)
    try:
        machine = describe(loop.device)
        _check_machine(run, machine, ("threads",))
        for other in beside:
            _check_machine(other, machine)
        run.body["snapshots"] = [row for row in run.snapshots if row["step"] <= loop.step]
        run.body["ended"] = None
        run.body["machine"] = machine
        last = run.snapshots[-1] if run.snapshots else {"seconds": 0.0, "processor_seconds": 0.0}
        clocks = Clocks(loop.device, last["seconds"], last["processor_seconds"])
        try:
            _steps(run, loop, clocks, config.training.max_steps, budget, progress)
        except TrainingError as error:
            run.body.update(ended=DIVERGED, reason=str(error))
    finally:
        loop.close()
    run.write()


def _steps(
    run: Run, loop: Loop, clocks: Clocks, most: int, budget: float, progress: Callable[[float], None]
) -> None:
    due = set(takewhile(lambda step: step <= most, snapshot_steps()))
    if loop.step == 0 and not run.snapshots:
        _keep(run, loop, clocks)
    clocks.start()
    while True:
        seconds, _ = clocks.read()
        over = BUDGET if seconds >= budget else STEPS if loop.step >= most else None
        if over or (loop.step in due and loop.step > run.snapshots[-1]["step"]):
            clocks.stop()
            if loop.step > run.snapshots[-1]["step"]:
                _keep(run, loop, clocks)
            if over:
                run.body["ended"] = over
                return
            progress(clocks.read()[0])
            clocks.start()
        loop.take_step()


def _check_machine(run: Run, here: Mapping[str, Any], and_keys: Sequence[str] = ()) -> None:
    there = run.body["machine"] if run.snapshots else here
    if differing := [key for key in (*MACHINE, *and_keys) if there.get(key) != here.get(key)]:
        then, now = (", ".join(f"{key} {of.get(key)}" for key in differing) for of in (there, here))
        raise InputError(
            f"{run.folder}: was trained with {then}, and this is {now}: go on where it began, "
            "or use another --folder"
        )


def _keep(run: Run, loop: Loop, clocks: Clocks) -> None:
    """Weights, times, state, in this order."""
    with atomic_write(run.weights_at(loop.step)) as handle:
        handle.write(save(loop.weights()))
    seconds, processor_seconds = clocks.read()
    run.snapshots.append({"step": loop.step, "seconds": seconds, "processor_seconds": processor_seconds})
    run.write()
    loop.save()


def _comparable(config: Config) -> dict[str, dict[str, Any]]:
    """The settings that shape a run; where it and its store lie do not."""
    values = config.to_dict()
    del values["training"]["run_folder"], values["data"]["store"]
    return values


def _read(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(body["snapshots"], list):
            raise TypeError("no list of snapshots")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not readable ({error!r}); delete its folder to train anew") from error
    found: dict[str, Any] = body
    return found


def _difference(body: dict[str, Any], same: dict[str, Any]) -> str | None:
    """What of ``body`` is other than in ``same``, in words; None where nothing is."""
    defaults = Config().to_dict()
    for section, values in same["config"].items():
        for key, value in values.items():
            # A run that is older than a key was made as that key's default has it.
            there = body.get("config", {}).get(section, {}).get(key, defaults[section][key])
            if there != value:
                return f"{section}.{key}={shown_value(there)}, where this one has {shown_value(value)}"
    for key, value in same.items():
        if key != "config" and body.get(key) != value:
            return f"{key.replace('_', ' ')} {body.get(key)!r}, where this one has {value!r}"
    return None
