"""SIGTERM at every moment of a run, and kills at random ones: the resumed run has the same bits."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from ttsfast.cli import commands
from ttsfast.config import Config
from ttsfast.errors import Preempted
from ttsfast.evaluation.log import read_log
from ttsfast.models.checkpoint import best_checkpoint, checkpoints
from ttsfast.training import resume as state_module
from ttsfast.training import trainer as trainer_module
from ttsfast.training.preemption import Preemption
from ttsfast.training.telemetry.log import RunTelemetry
from ttsfast.training.trainer import Trainer

MakeConfig = Callable[..., Config]
MakeModel = Callable[[], torch.nn.Module]
OF_THE_CLOCK = ("frames_per_second", "loader_wait_percent", "percent_", "memory_gib")


def left_behind(trainer: Trainer) -> tuple[list[Tensor], list[dict[str, Any]], str]:
    """The weights, the log without its times, and which checkpoint is the best."""
    rows = [
        {key: value for key, value in row.items() if not key.startswith(OF_THE_CLOCK)}
        for row in read_log(trainer.run_folder)
    ]
    best = best_checkpoint(trainer.run_folder)
    assert best is not None
    return [p.detach().clone() for p in trainer.model.parameters()], rows, best.name


def assert_same(found: Any, expected: Any) -> None:
    assert all(torch.equal(a, b) for a, b in zip(found[0], expected[0], strict=True))
    assert found[1:] == expected[1:]


def configured(make_config_of: MakeConfig, folder: Path) -> Config:
    return make_config_of(
        folder,
        training__early_stopping_restore_best_weights=False,
        training__log_step=4,
        training__save_step=5,
        training__max_steps=7,
        training__ema_decay=0.9,
    )


@pytest.fixture(scope="module")
def undisturbed(
    make_config_of: MakeConfig, make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """What a run leaves behind that nothing happens to."""
    config = configured(make_config_of, tmp_path_factory.mktemp("run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ttsfast.training.validation._show", lambda *_: None)
        with Trainer(config, model=make_model()) as trainer:
            trainer.fit()
    return left_behind(trainer)


HAPPENS = {"step": range(1, 8), "validation": (3, 6, 7), "save": (3, 5, 6, 7)}


@pytest.mark.parametrize(("moment", "step"), [(m, step) for m, steps in HAPPENS.items() for step in steps])
def test_sigterm_saves_at_once_and_the_resumed_run_is_exact(
    step: int,
    moment: str,
    undisturbed: Any,
    make_config_of: MakeConfig,
    make_model: MakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = configured(make_config_of, tmp_path / "part")

    with monkeypatch.context() as patch, Trainer(config, model=make_model()) as first:
        owner, name = {
            "step": (first, "train_step"),
            "validation": (trainer_module, "validate_model"),
            "save": (state_module, "save_checkpoint"),
        }[moment]
        original = getattr(owner, name)

        def interrupted(*args: Any, **kwargs: Any) -> Any:
            if first.step + (moment == "step") == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(*args, **kwargs)

        patch.setattr(owner, name, interrupted)
        if (moment, step) == ("save", 7):
            # Nothing is left to be stopped.
            first.fit()
        else:
            with pytest.raises(Preempted, match=r"SIGTERM at step \d, .* --resume"):
                first.fit()
            # At once: the step under way is finished, a validation is not.
            assert first.step == step + (moment == "save")
            assert checkpoints(tmp_path / "part")[-1].name.startswith(f"step-{first.step:08d}")
    torch.manual_seed(123)
    with Trainer(config, model=make_model(), resume=True) as second:
        second.fit()
    assert_same(left_behind(second), undisturbed)


def test_the_handler_of_before_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        assert signal.getsignal(signal.SIGTERM) != before
        assert not preemption.requested
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.requested
    assert signal.getsignal(signal.SIGTERM) == before


def test_ctrl_c_saves_as_sigterm_does_and_a_second_one_ends_at_once(
    make_config_of: MakeConfig, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(make_config_of, tmp_path / "run")
    before = signal.getsignal(signal.SIGINT)
    for times, ends, left in ((1, Preempted, 2), (2, KeyboardInterrupt, 2)):
        with Trainer(config, model=make_model(), resume=True) as trainer:
            step = trainer.train_step

            def interrupted(*args: Any, step: Any = step, times: int = times, **kwargs: Any) -> Any:
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGINT)
                return step(*args, **kwargs)

            monkeypatch.setattr(trainer, "train_step", interrupted)
            if times == 1:
                monkeypatch.setattr(trainer, "step", 1)
            with pytest.raises(ends, match="stopped by Ctrl-C at step 2" if times == 1 else "^$"):
                trainer.fit()
        assert checkpoints(tmp_path / "run")[-1].name == f"step-{left:08d}"
        assert signal.getsignal(signal.SIGINT) == before


def test_ctrl_c_is_left_alone_where_a_shell_keeps_it_away_and_counted_once_under_torchrun() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Preemption() as preemption:
            os.kill(os.getpid(), signal.SIGINT)
            assert not preemption.requested
        signal.signal(signal.SIGINT, before)
        with Preemption(alone=False) as preemption:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            assert preemption.requested
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_sigterm_while_the_run_closes_is_no_other_end(
    make_config_of: MakeConfig, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    closing = RunTelemetry.__exit__

    def close(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        closing(*args)

    monkeypatch.setattr(RunTelemetry, "__exit__", close)
    before = signal.signal(signal.SIGTERM, lambda *_: killed.append(1))
    try:
        with Trainer(configured(make_config_of, tmp_path / "run"), model=make_model()) as trainer:
            trainer.preemption.requested = True
            with pytest.raises(Preempted):
                trainer.fit()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not killed


def test_the_command_line_exits_with_its_documented_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def preempted() -> None:
        raise Preempted("runs/voice: stopped by SIGTERM")

    monkeypatch.setattr(commands, "app", preempted)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as caught:
            commands.main()
        # On its way out already: whoever sends it again is obeyed.
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 75
    assert capsys.readouterr().err == "ttsfast: runs/voice: stopped by SIGTERM\n"


def test_a_pointer_that_a_kill_left_behind_is_mended(
    make_config_of: MakeConfig, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the best checkpoint and the pointer to it."""
    config = configured(make_config_of, tmp_path / "run")
    calls: list[int] = []

    def record(run: Path, step: int, *rest: Any) -> None:
        calls.append(step)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, Trainer(config, model=make_model()) as first:
        patch.setattr(trainer_module, "record_best", record)
        with pytest.raises(KeyboardInterrupt):
            first.fit()
    assert calls == [3]
    assert best_checkpoint(tmp_path / "run") is None
    with Trainer(config, model=make_model(), resume=True) as second:
        best = best_checkpoint(tmp_path / "run")
        assert best is not None
        assert best.name == "step-00000003"
        assert second.step == 3


def test_a_full_disk_ends_the_run_and_the_resumed_one_is_exact(
    undisturbed: Any,
    make_config_of: MakeConfig,
    make_model: MakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = configured(make_config_of, tmp_path / "part")

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, Trainer(config, model=make_model()) as first:
        original = first.save

        def save() -> None:
            if first.step == 5:
                patch.setattr("ttsfast.training.checkpoint.os.fsync", full)
            original()

        patch.setattr(first, "save", save)
        with pytest.raises(OSError, match="No space left"):
            first.fit()
    assert [p.name for p in (tmp_path / "part" / "checkpoints").glob("*step*")] == ["step-00000003"]
    with Trainer(config, model=make_model(), resume=True) as second:
        second.fit()
    assert_same(left_behind(second), undisturbed)


@pytest.fixture(scope="module")
def kills() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "kills.py"
    spec = importlib.util.spec_from_file_location("kills", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Children look it up by its name.
    sys.modules["kills"] = module
    spec.loader.exec_module(module)
    return module


def test_kills_at_random_moments_resume_exactly(
    kills: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short form of ``bench/kills.py``, whose record holds a hundred."""
    monkeypatch.syspath_prepend(str(Path(kills.__file__ or "").parent))
    record = kills.exercise(3, 1, tmp_path)
    assert record["faults"] == []
    assert record["exact_resumes"] == 3
