"""One trainer at a time in a run folder, whatever becomes of the first."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from ttsfast.config import Config
from ttsfast.errors import InputError
from ttsfast.models.checkpoint import checkpoints
from ttsfast.training import run_lock
from ttsfast.training.distributed.process_group import ProcessGroup
from ttsfast.training.run_lock import RunLock
from ttsfast.training.trainer import Trainer

MakeConfig = Callable[..., Config]
MakeModel = Callable[[], nn.Module]
# As another trainer holds it, in a process that imports no torch.
HOLD = (
    "import fcntl, os, sys; f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); fcntl.flock(f, fcntl.LOCK_EX);"
    "os.write(f, b'process 7 on elsewhere'); print(flush=True); sys.stdin.read()"
)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_second_trainer_is_refused_while_the_first_lives_suspended_or_not_and_let_in_once_it_is_killed(
    make_config: MakeConfig, make_model: MakeModel, tmp_path: Path
) -> None:
    config = make_config(training__max_steps=1)
    with Trainer(config, model=make_model()) as trainer:
        trainer.fit()
    before = tree(tmp_path / "run")
    command = [sys.executable, "-S", "-c", HOLD, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGSTOP)
        before[".lock"] = (tmp_path / "run" / ".lock").read_bytes()
        with pytest.raises(
            InputError,
            match=r"run: another trainer is at work there \(process 7 on elsewhere.*\); wait",
        ):
            Trainer(config, model=make_model(), resume=True)
        assert tree(tmp_path / "run") == before
        holder.kill()
        holder.wait()
        with Trainer(config, model=make_model(), resume=True) as trainer:
            assert trainer.resumed
            # And keeps it from here on.
            with pytest.raises(InputError, match=rf"\(process {os.getpid()} on "):
                RunLock(tmp_path / "run", ProcessGroup()).take()
    RunLock(tmp_path / "run", ProcessGroup()).take()


def test_a_trainer_that_did_not_look_in_time_does_not_write_over_another_run(
    make_config: MakeConfig, make_model: MakeModel, tmp_path: Path
) -> None:
    with Trainer(make_config(training__max_steps=2), model=make_model()) as late:
        with Trainer(make_config(training__max_steps=1), model=make_model()) as trainer:
            trainer.fit()
        before = tree(tmp_path / "run")
        with pytest.raises(InputError, match="another trainer has left step-00000001 there"):
            late.fit()
        assert tree(tmp_path / "run") == before
    assert len(checkpoints(tmp_path / "run")) == 1


def test_a_resume_that_is_refused_lets_the_next_one_in(
    make_config: MakeConfig, make_model: MakeModel, tmp_path: Path
) -> None:
    with Trainer(make_config(training__max_steps=1), model=make_model()) as trainer:
        trainer.fit()
    with pytest.raises(InputError, match=r"model.dropout 0.05 there") as caught:
        Trainer(make_config(model__dropout=0.1), model=make_model(), resume=True)
    assert caught.value  # its traceback still holds the trainer that was not made
    with Trainer(make_config(), model=make_model(), resume=True) as trainer:
        assert trainer.step == 1


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    said: list[str] = []
    monkeypatch.setattr(run_lock.console, "print", lambda text, **_: said.append(text))
    with RunLock(tmp_path / "run", ProcessGroup()):
        pass
    assert len(said) == 1
    assert "has no locks (No locks available), so nothing keeps a second trainer out" in said[0]
