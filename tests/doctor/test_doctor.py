"""The command: exit codes, the JSON, checks of one's own, bad input."""

from __future__ import annotations

import json
import re
from importlib.metadata import EntryPoint
from pathlib import Path
from random import Random

import audio_faults
import numpy as np
import pytest
from recorded_runs import recorded
from spoken import clean, write
from typer.testing import CliRunner

from ttsfast.cli import app
from ttsfast.data.checks import check as checks
from ttsfast.data.checks.check import Check, Subject
from ttsfast.data.checks.finding import WARNING, Evidence
from ttsfast.errors import InputError


def test_clean_corpus_exits_with_0(spoken_corpus: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", str(spoken_corpus)])
    assert result.exit_code == 0, result.output
    assert f"{spoken_corpus}: usable, with 1 warning\n" in result.stdout


def test_json_of_a_faulty_corpus(tmp_path: Path) -> None:
    broken = audio_faults.clips_of_zeros(clean("en"), Random(0))
    result = CliRunner().invoke(app, ["doctor", str(write(broken, tmp_path / "corpus")), "--json"])
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["schema"] == 1
    assert found["verdict"].startswith("do not train on this yet: ")
    first = found["findings"][0]
    assert (first["check"], first["severity"], first["count"]) == ("silent", "error", len(first["ids"]))
    assert {one["id"] for one in first["evidence"]} <= set(first["ids"])
    assert not set(found["passed"]) & {finding["check"] for finding in found["findings"]}


@pytest.mark.parametrize(
    ("what", "said"),
    [("nothing here", "no such folder"), ("empty", "holds no listing"), ("list.csv", "a file, not a folder")],
)
def test_what_is_no_dataset_is_said_in_one_line(what: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("a|b\n")
    result = CliRunner().invoke(app, ["doctor", str(tmp_path / what)])
    assert isinstance(result.exception, InputError)
    assert str(tmp_path / what) in str(result.exception)
    assert said in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one thing at a time, a corpus or a store or --model or --run, and nothing is given"),
        (["corpus", "--model", "convtts"], "and a corpus or a store and --model is given; name one"),
        (["--model", "convtts", "--fix", "new"], "--fix goes with a corpus or a store, not with --model"),
        (["corpus", "--store", "store"], "--store goes with --model or --run, not with a corpus or a store"),
    ],
)
def test_one_thing_is_looked_at_a_time(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["doctor", *arguments])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


def test_page_stands_alone(tmp_path: Path) -> None:
    broken = clean("en").waves(np.zeros_like, [3])
    page, corpus = tmp_path / "doctor.html", write(broken, tmp_path / "corpus", 20)
    result = CliRunner().invoke(app, ["doctor", str(corpus), "--output", str(page)])
    assert result.exit_code == 1, result.output
    content = page.read_text()
    assert content.index("do not train on this yet") < content.index("is silent throughout</bdi></h3>")
    assert "data:audio/flac" in content
    assert "data:image/svg+xml" in content
    assert not re.findall(r'(?:src|href)="(?!data:|#)', content)


def test_the_command_tells_a_run(tmp_path: Path) -> None:
    broken = recorded("demo-b").training(lambda row: {"learning_rate": 0.0} if row["step"] > 600 else None)
    run, page = broken.write(tmp_path / "run"), tmp_path / "run.html"
    result = CliRunner().invoke(app, ["doctor", "--run", str(run), "--json", "--output", str(page)])
    assert result.exit_code == 1, result.output
    found = json.loads(result.stdout)
    assert (found["kind"], found["findings"][0]["check"]) == ("run", "rate")
    assert "baseline" in found["not_run"]
    assert found["findings"][0]["evidence"][0]["at"] == 620
    content = page.read_text()
    assert content.index("this run is not on its way") < content.index("learning rate is 0")
    assert "data:image/svg+xml" in content
    assert "name it with --store" in content
    assert not re.findall(r'(?:src|href)="(?!data:|#)', content)
    clean = CliRunner().invoke(
        app, ["doctor", "--run", str(recorded("kathleen-b").write(tmp_path / "clean"))]
    )
    assert clean.exit_code == 0, clean.output
    assert ": sound\n" in clean.output


def test_a_run_that_few_checks_could_look_at_is_not_called_sound(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n" + "".join(f"{step},{1 / step}\n" for step in range(10, 40, 10)))
    shown = CliRunner().invoke(app, ["doctor", "--run", str(log)])
    assert shown.exit_code == 0
    assert re.search(r"nothing was found, but only \d+ of \d+ checks could look", shown.output)


def test_fixed_corpus_has_no_error(tmp_path: Path) -> None:
    broken = (
        clean("en")
        .waves(np.zeros_like, [0, 1])
        .waves(lambda wave: wave + 0.05, [2])
        .waves(lambda wave: np.stack([wave, -wave], axis=1), [3])
        .texts(lambda text: f"<i>{text}</i>", [4])
    )
    corpus, fixed = write(broken, tmp_path / "corpus", 20), tmp_path / "fixed"
    assert CliRunner().invoke(app, ["doctor", str(corpus), "--fix", str(fixed)]).exit_code == 1
    found = json.loads(CliRunner().invoke(app, ["doctor", str(fixed), "--json"]).stdout)
    assert found["counts"]["error"] == 0
    assert {one["check"] for one in found["findings"]} & {
        "silent",
        "dc offset",
        "channels",
        "markup",
    } == set()
    assert len(json.loads((fixed / "fixes.json").read_text())) == 4
    again = CliRunner().invoke(app, ["doctor", str(corpus), "--fix", str(fixed)])
    assert isinstance(again.exception, InputError)


class Loud(Check):
    """A check of somebody's own."""

    name, needs, effect, remedy = "loud", "audio", "it hurts", "turn it down"

    def measure(self, samples, rate):  # type: ignore[no-untyped-def]
        return float(abs(samples).max())

    def find(self, subject: Subject):  # type: ignore[no-untyped-def]
        loud = [Evidence(row.id, f"{row.own['loud']:.2f}") for row in subject.rows if row.own["loud"] > 0.1]
        if loud:
            yield self.finding(WARNING, f"{len(loud)} are loud", loud)


class Broken(Loud):
    """One that fails."""

    def measure(self, samples, rate):  # type: ignore[no-untyped-def]
        raise ZeroDivisionError("no idea")


@pytest.mark.parametrize("kind", [Loud, Broken])
def test_check_of_ones_own(kind: type, spoken_corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("loud", f"{__name__}:{kind.__name__}", checks.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: kind)
    monkeypatch.setattr(checks, "entry_points", lambda group: [entry])
    result = CliRunner().invoke(app, ["doctor", str(spoken_corpus), "--json"])
    if kind is Broken:
        assert isinstance(result.exception, InputError)
        assert "no idea" in str(result.exception)
    else:
        assert "loud" in [finding["check"] for finding in json.loads(result.stdout)["findings"]]
