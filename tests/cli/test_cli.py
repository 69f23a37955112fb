"""The command line as a person meets it: help, exit codes, one line for bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_process import forked_ttsfast
from typer.testing import CliRunner

from ttsfast import __version__
from ttsfast.cli import app
from ttsfast.errors import InputError

COMMANDS = (
    *("config", "env", "prepare", "finalize", "append", "verify", "inspect"),
    *("train", "evaluate", "compare", "synth", "demo", "export", "serve"),
)


def ttsfast(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from ttsfast.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS,
        "vocoder convert",
        "bench convergence",
        "bench data",
        "bench loss",
        "bench roofline",
        "bench synth",
    ],
)
def test_help_has_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"Example: ttsfast {command}" in result.output


def assert_one_line_and_code_2(result: subprocess.CompletedProcess[str], folder: Path) -> None:
    """And nothing was written."""
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("ttsfast: ")]
    assert len(line) > 20
    assert not [p for p in folder.rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "training.learnin_rate=1"),
        ("train", "missing.yaml"),
        ("train", "data.store=nowhere", "--preset", "demo"),
        ("train",),
        ("config",),
        ("config", "--preset", "fast"),
        ("config", "--explain", "learning_rate"),
        ("prepare", "no-corpus", "store"),
        ("prepare", "no-corpus", "store", "--contract", "other"),
        ("verify", "no-store"),
        ("evaluate", "no-run"),
        ("compare", "no-run", "no-other"),
        ("synth", "no-run", "hello"),
        ("synth", "no-run"),
        ("synth", "no-run", "hello", "--input", "lines.txt"),
        ("synth", "no-run", "hello", "--raw"),
        ("synth", "no-run", "hello", "--assume-contract"),
        ("synth", "no-run", "hello", "--output", "-", "--json"),
        ("export", "no-run"),
        ("vocoder", "convert", "no-weights", "no-config"),
        ("serve", "no-run"),
        ("serve", "no-run", "--host", "192.0.2.1"),
        ("bench", "roofline", "--device", "tpu"),
        ("bench", "loss", "--device", "cuda:99"),
        ("demo", "--language", "xx"),
        ("demo", "--engine", "xx"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outputs = tmp_path_factory.mktemp("outputs")
    assert_one_line_and_code_2(forked_ttsfast(*arguments, cwd=tmp_path, outputs=outputs), tmp_path)


def test_bad_input_ends_a_whole_interpreter_with_code_2(tmp_path: Path) -> None:
    assert_one_line_and_code_2(ttsfast("train", "data.store=nowhere", cwd=tmp_path), tmp_path)


def failure(*arguments: str) -> str:
    """What a command says that ends in bad input, in this process."""
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, InputError)
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize("command", ["evaluate run", "train --find-lr"])
def test_what_is_for_one_process_says_so_under_torchrun(command: str) -> None:
    result = CliRunner().invoke(app, command.split(), env={"WORLD_SIZE": "2"})
    assert isinstance(result.exception, InputError)
    assert f"ttsfast {command.removesuffix(' run')} is for one process, this is one of 2" in str(
        result.exception
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "~/voice"),
        ("export", "~/voice"),
        ("verify", "~/voice"),
        ("inspect", "~/voice"),
        ("compare", "~/voice", "~/other"),
        ("train", "~/voice"),
        ("train", "data.store=~/voice"),
        ("train", "data.store=~/voice", "--preset", "demo"),
        ("prepare", "~/voice", "store"),
        ("synth", "~/voice", "~/hello"),
    ],
)
def test_a_path_may_begin_at_the_users_own_folder(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    message = str(CliRunner().invoke(app, arguments).exception)
    assert f"{home}/voice" in message
    assert "~/voice" not in message
    assert not (tmp_path / "~").exists()


def test_verify_does_not_advise_to_prepare_what_cannot_be_reached(tmp_path: Path) -> None:
    assert failure("verify", f"file://{tmp_path}/none") == (
        f"file://{tmp_path}/none: 1 problem, listed above with what to do about it"
    )


def test_a_store_to_evaluate_on_may_be_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def never(_: Path, **options: Any) -> None:
        given.update(options)
        raise InputError("enough")

    monkeypatch.setattr("ttsfast.evaluation.run.evaluate_run", never)
    assert failure("evaluate", "run", "--store", "memory://bucket/store", "--asr", "a//b") == "enough"
    # As a Path it would have lost a slash; so would a model at an address.
    assert str(given["store"]) == "memory://bucket/store"
    assert str(given["asr"]) == "a//b"


def test_the_page_is_refused_before_the_store_is_read(tmp_path: Path) -> None:
    said = failure("inspect", str(tmp_path / "store"), "--output", str(tmp_path / "none" / "page.html"))
    assert said.startswith(f"{tmp_path}/none/page.html: cannot be written")


def test_env_is_readable_by_programs() -> None:
    result = ttsfast("env", "--json")
    assert result.returncode == 0
    values = json.loads(result.stdout)
    assert values["ttsfast"] == __version__
    assert values["loss_backends"]["torch"] == "available"


def test_config_lists_its_presets_and_prints_one(tmp_path: Path) -> None:
    def printed(*arguments: str) -> str:
        return forked_ttsfast("config", *arguments, cwd=tmp_path, outputs=tmp_path).stdout

    assert set(printed("--list").split()) >= {"auto", "fast_convergence", "demo"}
    text = printed("--preset", "demo", "training.seed=7")
    values = json.loads(printed("--preset", "fast_convergence", "--json"))
    assert values["training"]["mel_loss_weight"] == 22.0
    assert "seed: 7  #" in text
    assert "\npreset: demo  #" in text


def test_the_help_is_in_the_order_of_work_and_there_is_a_version() -> None:
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    work = (
        *("demo", "prepare", "verify", "config", "train"),
        *("evaluate", "compare", "synth", "export", "env", "bench"),
    )
    places = [re.search(rf"^\W*{name} ", text, re.MULTILINE) for name in work]
    found = [place.start() for place in places if place is not None]
    assert len(found) == len(work)
    assert found == sorted(found)
    assert CliRunner().invoke(app, ["--version"]).stdout == f"ttsfast {__version__}\n"


def test_import_is_light() -> None:
    """No driver, no compiler, no librosa, typer or matplotlib, until they are asked for."""
    heavy = "{'librosa', 'typer', 'matplotlib', 'triton', 'soundfile', 'tensorboard'}"
    code = (
        "import sys, ttsfast, ttsfast.functional; ttsfast.TTSLoss; ttsfast.MelLoader; ttsfast.collate\n"
        "import torch\n"
        f"print(sorted({heavy} & set(sys.modules)), torch.cuda.is_initialized())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] False"
