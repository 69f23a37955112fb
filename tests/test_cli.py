"""The command line as a person meets it: help, exit codes, one line for bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ttsfast import __version__
from ttsfast.cli import app

COMMANDS = (
    *("config", "env", "prepare", "finalize", "append", "verify", "inspect"),
    *("train", "evaluate", "synth", "demo", "export"),
)


def ttsfast(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from ttsfast.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


@pytest.mark.parametrize("command", [*COMMANDS, "bench data", "bench loss", "bench roofline"])
def test_help_has_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"Example: ttsfast {command}" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "training.learnin_rate=1"),
        ("train", "missing.yaml"),
        ("train", "data.store=nowhere", "--preset", "demo"),
        ("config", "--preset", "fast"),
        ("prepare", "no-corpus", "store"),
        ("prepare", "no-corpus", "store", "--contract", "other"),
        ("verify", "no-store"),
        ("evaluate", "no-run"),
        ("synth", "no-run", "hello"),
        ("synth", "no-run"),
        ("synth", "no-run", "hello", "--input", "lines.txt"),
        ("synth", "no-run", "hello", "--raw"),
        ("synth", "no-run", "hello", "--assume-contract"),
        ("synth", "no-run", "hello", "--output", "-", "--json"),
        ("export", "no-run"),
        ("bench", "roofline", "--device", "tpu"),
        ("bench", "loss", "--device", "cuda:99"),
        ("demo", "--language", "xx"),
        ("demo", "--engine", "xx"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    result = ttsfast(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("ttsfast: ")]
    assert len(line) > 20
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_env_is_readable_by_programs() -> None:
    result = ttsfast("env", "--json")
    assert result.returncode == 0
    values = json.loads(result.stdout)
    assert values["ttsfast"] == __version__
    assert values["loss_backends"]["torch"] == "available"


def test_config_lists_its_presets_and_prints_one(tmp_path: Path) -> None:
    assert set(ttsfast("config", "--list").stdout.split()) >= {"fast_convergence", "demo"}
    text = ttsfast("config", "--preset", "demo", "training.seed=7").stdout
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    values = json.loads(ttsfast("config", "--json").stdout)
    assert values["training"]["mel_loss_weight"] == 22.0
    assert "seed: 7  #" in text


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
