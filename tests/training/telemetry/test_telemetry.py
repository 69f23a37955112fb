from __future__ import annotations

import shutil
import sys
import threading
import types
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ttsfast.config import Config, TrainingConfig
from ttsfast.errors import InputError
from ttsfast.evaluation.log import read_log
from ttsfast.pages.plots import alignment_figure
from ttsfast.training import trainer as trainer_module
from ttsfast.training.distributed.process_group import ProcessGroup
from ttsfast.training.ratios import ModuleRatios
from ttsfast.training.setup import forever
from ttsfast.training.telemetry import log, messages
from ttsfast.training.telemetry.log import RunTelemetry
from ttsfast.training.telemetry.timing import PHASES, StepClock, device_load
from ttsfast.training.trainer import Trainer

MakeConfig = Callable[..., Config]
MakeModel = Callable[[], torch.nn.Module]
CPU = torch.device("cpu")


def test_a_missing_wandb_is_one_line_with_the_command(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        Trainer(make_config(training__wandb="offline"), model=make_model()) as trainer,
        pytest.raises(InputError, match=r"pip install 'ttsfast\[wandb\]'"),
    ):
        trainer.fit()


def _as_picture(pixels: Any) -> str:
    """W&B draws a figure by pyplot, which need not be imported: it is to be given pixels."""
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert len(np.unique(pixels)) > 10
    return "image"


class FakeWandb:
    """What of the package is used."""

    Image = staticmethod(_as_picture)
    Audio = staticmethod(lambda wave, sample_rate: ("audio", sample_rate))

    def __init__(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.started: dict[str, Any] = {}
        self.ended: int | None = None

    def init(self, **options: Any) -> FakeWandb:
        self.started = options
        return self

    def define_metric(self, name: str, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "step")

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self, exit_code: int) -> None:
        self.ended = exit_code


@pytest.mark.pictures
def test_wandb_sees_scalars_pictures_and_sound(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = make_config(training__wandb="offline", training__max_steps=2)
    with Trainer(config, model=make_model()) as trainer:
        trainer.fit()
    assert fake.started["mode"] == "offline"
    assert fake.ended == 0
    names = {name for row in fake.logged for name in row}
    assert {"train/mel", "train/learning_rate", "validation/mel_l1", "alignment", "mel", "spoken"} <= names
    assert {row["step"] for row in fake.logged} == {2}


def test_wandb_offline_writes_its_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    with RunTelemetry(tmp_path, 0, TrainingConfig(wandb="offline")) as telemetry:
        telemetry.scalars("train", 1, {"mel": 0.5})
        telemetry.figure("alignment", alignment_figure(np.eye(5, dtype=np.float32)), 1)
        telemetry.audio("spoken", np.zeros(100, dtype=np.float32), 22050, 1)
    assert list((tmp_path / "wandb").glob("offline-run-*/files/media/images/*.png"))
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(run.glob("*.wandb"))


def test_tensorboard_shows_the_scalars(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunTelemetry(tmp_path, 0, TrainingConfig()) as telemetry:
        telemetry.scalars("train", 3, {"mel": 0.5, "steps": 7, "convergence": "plateau"})
        telemetry.scalars("train", 6, {"mel": 0.25})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/mel", "train/steps"}
    assert [(e.step, e.value) for e in events.Scalars("train/mel")] == [(3, 0.5), (6, 0.25)]


def test_a_full_disk_names_the_log(tmp_path: Path) -> None:
    def fill() -> None:
        with RunTelemetry(tmp_path, 0, TrainingConfig()) as telemetry:
            telemetry._log.close()
            telemetry._log = open("/dev/full", "a")  # noqa: SIM115
            telemetry.scalars("train", 1, {"mel": 0.5})

    with pytest.raises(OSError, match=r"/dev/full: cannot be written \(No space left on device\); make room"):
        fill()


def test_a_board_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard writes in a thread: its error is raised at a later call, and prints nothing by itself."""

    def fill() -> None:
        with RunTelemetry(tmp_path, 0, TrainingConfig()) as telemetry:
            telemetry.scalars("train", 1, {"mel": 0.5})
            shutil.rmtree(tmp_path / "tensorboard")
            telemetry.scalars("train", 2, {"mel": 0.5})

    printed: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", printed.append)
    hook = threading.excepthook
    with pytest.raises(OSError, match=r"tensorboard: cannot be written \(No such file.*\); make room"):
        fill()
    assert threading.excepthook is hook
    assert not printed


def test_the_log_is_rewound_to_the_checkpoint(tmp_path: Path) -> None:
    with RunTelemetry(tmp_path, 0, TrainingConfig()) as telemetry:
        for step in (1, 2, 3, 4):
            telemetry.scalars("train", step, {"mel": float(step)})
            if step % 2 == 0:
                telemetry.scalars("validation", step, {"mel_l1": 1.0})
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"kind": "train", "st')
    for validated, kept in ((True, ["train", "train", "validation"]), (False, ["train", "train"])):
        with RunTelemetry(tmp_path, 2, TrainingConfig(), validated=validated) as telemetry:
            assert telemetry.lost_steps == (2 if validated else 0)
        assert [row["kind"] for row in read_log(tmp_path)] == kept


def test_the_clock_attributes_every_moment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("ttsfast.training.telemetry.timing.time.perf_counter", lambda: now)
    clock = StepClock(CPU)
    spent = {"data": 1.0, "forward": 3.0, "loss": 0.5, "backward": 4.0, "optimizer": 1.0, "trainer": 0.5}
    for phase, seconds in spent.items():
        now += seconds
        clock.lap(phase)
    clock.frames = 500
    figures = clock.read()
    assert figures["frames_per_second"] == 50.0
    assert {phase: figures[f"percent_{phase}"] for phase in PHASES} == pytest.approx(
        {phase: 10 * seconds for phase, seconds in spent.items()}
    )
    now += 2.0
    clock.lap("forward")
    assert clock.read()["percent_forward"] == 100.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_clock_reads_the_devices_own_times() -> None:
    device = torch.device("cuda")
    clock = StepClock(device)
    x = torch.ones(4096, 4096, device=device)
    for _ in range(20):
        x = x @ x * 1e-4
    clock.lap("forward")
    clock.lap("loss")
    figures = clock.read()
    assert figures["percent_forward"] > 90
    assert device_load(device)["memory_gib"] > 0


def test_memory_is_told_without_a_gpu() -> None:
    assert 0.01 < device_load(CPU)["memory_gib"] < 1000


@pytest.mark.parametrize("installed", [False, True])
def test_a_gpu_that_does_not_tell_how_busy_it_is(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    def asked(device: torch.device) -> int:
        raise NVMLError("Not Supported") if installed else ModuleNotFoundError("pynvml")

    module = types.ModuleType("pynvml")
    module.NVMLError = NVMLError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", module if installed else None)
    monkeypatch.setattr(torch.cuda, "utilization", asked)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2**30)
    assert device_load(torch.device("cuda")) == {"memory_gib": 1.0}


def test_the_ratios_are_those_of_gradient_and_update_to_weights() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 1, bias=False))
    ratios = ModuleRatios(model, 40)
    assert [step for step in range(1, 400) if ratios.due(step)] == [120, 240, 360]
    for parameter, grad in zip(model.parameters(), (3.0, 0.5), strict=True):
        torch.nn.init.constant_(parameter, 2.0)
        parameter.grad = torch.full_like(parameter, grad)
    ratios.before_update(torch.ones(()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(0.1)
    ratios.after_update()
    figures = ratios.take()
    assert figures == pytest.approx(
        {"gradient_ratio.0": 1.5, "update_ratio.0": 0.05, "gradient_ratio.1": 0.25, "update_ratio.1": 0.05}
    )
    assert ratios.take() == {}


def test_a_part_without_gradients_has_a_ratio_of_0() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    model[0](torch.ones(2)).sum().backward()
    ratios = ModuleRatios(model, 20)
    ratios.before_update(torch.tensor(2.0))
    ratios.after_update()
    figures = ratios.take()
    assert figures["gradient_ratio.1"] == 0
    assert figures["gradient_ratio.0"] > 0


def test_ratios_and_shares_are_logged_at_log_points(make_config: MakeConfig, make_model: MakeModel) -> None:
    config = make_config(
        training__max_steps=200, training__log_step=50, training__val_step=200, training__save_step=200
    )
    with Trainer(config, model=make_model()) as trainer:
        trainer.fit()
    rows = [row for row in read_log(trainer.run_folder) if row["kind"] == "train"]
    assert ["update_ratio.read" in row for row in rows] == [False, True, False, True]
    for row in rows[1::2]:
        for child in ("embed", "read", "write", "stop", "latent"):
            assert 0 <= row[f"update_ratio.{child}"] < 1
            assert row[f"gradient_ratio.{child}"] >= 0
        assert row["update_ratio.write"] > 0
        assert row["memory_gib"] > 0


def test_a_step_between_log_points_never_asks_the_device(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every way from a tensor to a Python number is watched; the loss and the loader have their own tests."""
    asked: list[int] = []
    with Trainer(
        make_config(training__log_step=4, training__val_step=4, training__max_steps=8, training__save_step=8),
        model=make_model(),
    ) as trainer:
        inside = False

        def watch(name: str) -> None:
            original = getattr(torch.Tensor, name)

            def watched(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
                if inside and name_of_caller() == "ttsfast.training":
                    asked.append(trainer.step)
                return original(self, *args, **kwargs)

            monkeypatch.setattr(torch.Tensor, name, watched)

        def name_of_caller() -> str:
            module = sys._getframe(2).f_globals.get("__name__", "")
            return ".".join(module.split(".")[:2])

        for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
            watch(name)
        original = trainer.train_step

        def train_step(*args: Any, **kwargs: Any) -> bool:
            nonlocal inside
            inside = True
            try:
                return original(*args, **kwargs)
            finally:
                inside = False

        monkeypatch.setattr(trainer, "train_step", train_step)
        trainer.fit()
        assert asked == []
        # The watching sees what it is there for.
        inside = True
        trainer_module.Trainer.log(trainer)
        float_like = torch.ones(1)
        exec(
            compile("value.item()", "probe", "exec"),
            {"__name__": "ttsfast.training.probe", "value": float_like},
        )
        assert asked == [8]


class Said:
    """Keeps what a run says, and tells a thread that waits for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        self.spoke = threading.Event()
        monkeypatch.setattr(RunTelemetry, "status", lambda _, text: self(text))

    def __call__(self, text: str) -> None:
        self.lines.append(text)
        self.spoke.set()


def timers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_a_slow_first_step_is_said_by_a_thread_that_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "PATIENCE", 0.0)
    said = Said(monkeypatch)
    with RunTelemetry(tmp_path, 4, TrainingConfig()) as telemetry:
        telemetry.await_step(5)
        assert said.spoke.wait(60)
        telemetry.advance(5)
        assert timers() == []
        telemetry.advance(6)
    assert said.lines[0] == messages.awaiting(5)
    assert [line.split(" took")[0] for line in said.lines[1:]] == ["step 5"]


def test_nothing_is_awaited_where_no_step_is_left(tmp_path: Path) -> None:
    with RunTelemetry(tmp_path, 4, TrainingConfig(max_steps=4)) as telemetry:
        telemetry.await_step(5)
        assert timers() == []


def test_no_thread_outlives_a_first_step_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said(monkeypatch)

    def fail() -> None:
        with RunTelemetry(tmp_path, 0, TrainingConfig()) as telemetry:
            telemetry.await_step(1)
            assert len(timers()) == 1
            raise InputError("no room")

    with pytest.raises(InputError):
        fail()
    assert timers() == []
    assert said.lines == []


def test_the_time_left_is_that_of_the_pace_since_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(log.time, "monotonic", lambda: now)
    Said(monkeypatch)
    with RunTelemetry(tmp_path, 10, TrainingConfig(max_steps=111)) as telemetry:
        telemetry.await_step(11)
        assert telemetry.seconds_left(10) is None
        now += 50.0
        telemetry.advance(11)
        assert telemetry.seconds_left(11) is None
        now += 30.0
        telemetry.advance(21)
        assert telemetry.seconds_left(21) == pytest.approx(90 * 3.0)


def test_a_run_says_its_first_step_and_what_is_above_the_floors(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Said(monkeypatch)
    with Trainer(make_config(training__max_steps=4), model=make_model()) as trainer:
        trainer.fit()
    (first,) = [line for line in said.lines if line.startswith("step 1 ")]
    assert first.endswith("s; figures come every 2 steps")
    (row,) = [r for r in read_log(trainer.run_folder) if r["kind"] == "train" and r["step"] == 2]
    assert 0 < row["excess_stop"] < row["stop"] - 0.1
    (line,) = [line for line in said.lines if line.startswith("step 2: ")]
    assert f" stop {row['excess_stop']:.4f}" in line
    assert " s left, warming" in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7.4, "7 s"), (61, "1 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min"), (3 * 86400, "3 days")],
)
def test_a_duration_has_the_units_that_matter(seconds: float, text: str) -> None:
    assert messages.duration(seconds) == text


def test_a_rank_that_does_not_report_keeps_no_times(make_config: MakeConfig, make_model: MakeModel) -> None:
    """On a GPU each of them is an event."""

    class Second(ProcessGroup):
        rank = 1

    config = make_config(training__gradient_norm_threshold=1e9)
    with Trainer(config, model=make_model()) as trainer:
        trainer.ranks = Second()
        trainer.train_step(list(islice(forever(trainer.loader), 1)))
        assert trainer.clock.frames > 0
        trainer.log()
        assert trainer.clock.frames == 0
