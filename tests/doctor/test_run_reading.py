"""Logs of other trainers, and what is none; the command."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_runs import Log, recorded
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from typer.testing import CliRunner

from ttsfast.cli import app
from ttsfast.doctor.run.examine import examine_run
from ttsfast.doctor.run.names import mapped
from ttsfast.errors import InputError

TAGS = {
    "coqui": {
        "total": "TrainIterStats/loss",
        "mel": "TrainIterStats/decoder_loss",
        "learning_rate": "TrainIterStats/current_lr",
        "gradient_norm": "TrainIterStats/grad_norm",
        "validation/mel": "EvalStats/avg_decoder_loss",
    },
    "coqui durations": {
        "total": "TrainIterStats/loss",
        "mel": "TrainIterStats/loss_spec",
        "alignment": "TrainIterStats/loss_aligner",
        "learning_rate": "TrainIterStats/current_lr",
        "validation/mel": "EvalStats/avg_loss_spec",
    },
    "espnet": {
        "total": "train/loss",
        "mel": "train/l1_loss",
        "attention": "train/attn_loss",
        "learning_rate": "train/optim0_lr0",
        "validation/mel": "valid/l1_loss",
    },
    "tacotron2": {
        "total": "training.loss",
        "learning_rate": "learning.rate",
        "gradient_norm": "grad.norm",
        "validation/total": "validation.loss",
    },
    "fastpitch": {
        "total": "train/loss",
        "mel": "train/mel_loss",
        "kl": "train/kl_loss",
        "learning_rate": "train/lrate",
        "validation/mel": "val/mel_loss",
    },
    "vits": {
        "total": "loss/g/total",
        "mel": "loss/g/mel",
        "kl": "loss/g/kl",
        "learning_rate": "learning_rate",
        "gradient_norm": "grad_norm_g",
    },
    "piper": {"total": "loss_gen_all", "validation/total": "val_loss"},
    "matcha": {"total": "loss/train_step", "validation/total": "loss/val_step", "learning_rate": "lr-Adam"},
    "nemo": {"mel": "t_mel_loss", "alignment": "t_ctc_loss", "learning_rate": "lr"},
    "lightning": {"total": "train_loss_step", "validation/total": "val_loss", "learning_rate": "lr-AdamW"},
}
"""What trainers call the figures of ours."""


def points(log: Log, name: str) -> list[tuple[int, float]]:
    kind, _, figure = name.rpartition("/")
    # As large as in training: the loss is no mean absolute error.
    source, scale = ("mel_l1", {"mel": 0.33, "total": 8.0}[figure]) if kind else (figure, 1.0)
    return [
        (row["step"], scale * row[source])
        for row in log.rows
        if row["kind"] == (kind or "train") and source in row
    ]


def write_events(folder: Path, figures: dict[str, list[tuple[int, float]]]) -> Path:
    """As TensorBoard has it; a tag's first part names its folder where it is one of a split."""
    for tag, values in figures.items():
        split, _, rest = tag.partition("/")
        place, name = (folder / split, rest) if split in ("train", "valid", "val") else (folder, tag)
        writer = EventFileWriter(str(place), filename_suffix=f".{re.sub('[^a-z]', '', tag)}")
        for step, value in values:
            writer.add_event(
                Event(step=step, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)]))
            )
        writer.close()
    return folder


def write_table(path: Path, figures: dict[str, list[tuple[int, float]]]) -> Path:
    """As Lightning writes it: a row for each logger call, most of its cells empty."""
    lines = [",".join(["epoch", "step", *figures])]
    for place, values in enumerate(figures.values()):
        for step, value in values:
            cells = ["0", str(step), *[""] * len(figures)]
            cells[2 + place] = repr(value)
            lines.append(",".join(cells))
    path.write_text("\n".join(lines) + "\n")
    return path


def figures_of(log: Log, trainer: str) -> dict[str, list[tuple[int, float]]]:
    return {tag: points(log, name) for name, tag in TAGS[trainer].items()}


@pytest.mark.parametrize("trainer", TAGS)
def test_names_of_other_trainers(trainer: str) -> None:
    found = mapped(TAGS[trainer].values(), {})
    assert not found.left
    ours = {f"validation/{name}" if held_out else name for name, held_out in found.names.values()}
    assert ours == set(TAGS[trainer])


def test_the_losses_of_adversaries_are_left_aside() -> None:
    found = mapped(["loss/d/total", "loss/g/total", "loss/d_r/0", "grad_norm_d", "grad_norm_g"], {})
    assert list(found.names) == ["loss/g/total", "grad_norm_g"]


@pytest.mark.parametrize("trainer", ["coqui", "coqui durations", "espnet", "lightning", "matcha"])
def test_a_clean_log_of_another_trainer(trainer: str, tmp_path: Path) -> None:
    log = recorded("parallel-kathleen" if "durations" in trainer else "kathleen-b")
    if trainer in ("lightning", "matcha"):
        place = write_table(tmp_path / "metrics.csv", figures_of(log, trainer))
    else:
        place = write_events(tmp_path, figures_of(log, trainer))
    examined = examine_run(place)
    assert not examined.diagnosis.findings
    for name in TAGS[trainer]:
        kind, _, figure = name.rpartition("/")
        curve = (examined.run.held_out if kind else examined.run.training)[figure]
        steps, values = zip(*points(log, name), strict=True)
        np.testing.assert_array_equal(curve.steps, steps)
        np.testing.assert_allclose(curve.values, values, rtol=1e-6)
        assert TAGS[trainer][name] in examined.diagnosis.looked_at


def _nan(steps: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    return [(step, float("nan") if step > 2000 else value) for step, value in steps]


def _by_epochs(steps: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return [(step, 1e-6 * (1 + step // 400)) for step, _ in steps]


def _again(steps: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return [(step, steps[place % 40][1]) for place, (step, _) in enumerate(steps)]


@pytest.mark.parametrize(
    ("name", "change", "check"),
    [
        ("mel", _nan, "finite"),
        ("learning_rate", _by_epochs, "schedule"),
        ("learning_rate", _again, "schedule"),
    ],
)
def test_faults_of_another_trainer(
    name: str, change: Callable[[Any], list[tuple[int, float]]], check: str, tmp_path: Path
) -> None:
    figures = figures_of(recorded("kathleen-b"), "coqui")
    tag = TAGS["coqui"][name]
    first = examine_run(write_events(tmp_path, figures | {tag: change(figures[tag])})).diagnosis.findings[0]
    assert (first.check, first.severity) == (check, "error")


@pytest.mark.parametrize("formed", [True, False])
def test_an_aligner_of_another_trainer(formed: bool, tmp_path: Path) -> None:
    """By its forward sum alone, over ten times as many steps."""
    figures = figures_of(recorded("parallel-kathleen"), "coqui durations")
    tag = TAGS["coqui durations"]["alignment"]
    figures = {name: [(10 * step, value) for step, value in curve] for name, curve in figures.items()}
    if not formed:
        figures[tag] = [(step, 3.9 + 0.01 * (place % 30)) for place, (step, _) in enumerate(figures[tag])]
    found = examine_run(write_table(tmp_path / "log.csv", figures)).diagnosis.findings
    assert [(f.check, f.severity) for f in found] == ([] if formed else [("aligner", "error")])


def test_a_user_says_what_a_tag_is(tmp_path: Path) -> None:
    figures = {
        "my/l1": points(recorded("demo-b"), "mel"),
        "held/l1": points(recorded("demo-b"), "validation/mel"),
    }
    place = write_table(tmp_path / "log.csv", figures)
    with pytest.raises(InputError, match="--map NAME=mel"):
        examine_run(place)
    run = examine_run(place, names={"my/l1": "mel", "held/l1": "validation/mel"}).run
    assert list(run.training), list(run.held_out) == (["mel"], ["mel"])


def test_what_a_kill_cut_is_left_out_and_damage_is_not(tmp_path: Path) -> None:
    write_events(tmp_path, {"loss": [(step, 1.0) for step in range(50)]})
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    assert len(examine_run(path).run.training["total"]) == 49
    path.write_bytes(content[:5])
    with pytest.raises(InputError, match="cut before its first record"):
        examine_run(path)
    for place in (len(content) // 2, 8):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(InputError, match="damaged at byte"):
            examine_run(path)


def test_what_is_no_log_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "log.jsonl").touch()
    (tmp_path / "no-steps.csv").write_text("loss,lr\n1,2\n")
    (tmp_path / "unknown.csv").write_text("step,apples\n1,2\n")
    (tmp_path / "void.csv").touch()
    for name in ("gone", "run", "empty", "no-steps.csv", "unknown.csv", "void.csv"):
        result = CliRunner().invoke(app, ["doctor", "--run", str(tmp_path / name)])
        assert isinstance(result.exception, InputError), name
        assert str(tmp_path / name) in str(result.exception)
        assert "\n" not in str(result.exception)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--run", "x", "--language", "en"], "--language"),
        (["x", "--map", "a=mel"], "--map"),
        (["--run", "x", "y"], "one thing"),
        (["--run", "x", "--map", "mel"], "TAG=FIGURE"),
    ],
)
def test_options_of_another_subject_are_refused(given: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["doctor", *given])
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)
