"""The whole job through the command line, on small synthetic corpora and on real speech."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

import pytest
from cli_process import forked_ttsfast, start_ttsfast
from typer.testing import CliRunner, Result

from ttsfast.cli import app
from ttsfast.data.corpus.espeak import available
from ttsfast.demo.corpus import write_demo_corpus
from ttsfast.errors import SpeechError
from ttsfast.evaluation.log import read_log
from ttsfast.models.checkpoint import checkpoints

SPEECH = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "ljspeech-mini"
needs_espeak = pytest.mark.skipif(not available(), reason="espeakng-loader is not installed (extra 'demo')")
SMALL = ("data.batch_size=4", "training.val_utterances=2", "training.warmup_steps=1")


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds to import, and more to compile, before a first word: importing it fails here."""
    for name in ("numba", "librosa"):
        monkeypatch.setitem(sys.modules, name, None)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def the_whole_job(corpus: Path, folder: Path, text: str, preset: str, *options: str) -> None:
    attentive = preset == "convtts"
    store, voice = folder / "store", folder / "run"
    report = json.loads(run("prepare", corpus, store, "--jobs", "1", "--json", *options).stdout)
    assert report["train"] > report["validation"] > 0
    tested = report["test"] > 0
    assert json.loads(run("verify", store, "--json").stdout)["ok"]
    keys = (
        f"data.store={store}",
        f"training.run_folder={voice}",
        "training.max_steps=3",
        "training.val_step=3",
        # These three steps leave a voice that does not read; at five times the weight, attention happens to.
        f"training.attention_loss_weight={float(attentive)}",
    )
    trained = json.loads(
        run("train", *keys, "training.log_step=1", *SMALL, "--preset", preset, "--json").stdout
    )
    assert trained["step"] == 3
    evaluated = run("evaluate", voice, "--corpus", corpus, "--json")
    metrics = json.loads(evaluated.stdout)
    assert metrics["split"] == ("test" if tested else "validation")
    assert ("has no test split" in " ".join(evaluated.stderr.split())) is not tested
    assert metrics == json.loads((voice / "metrics.json").read_text(encoding="utf-8"))
    for name in ("mel_l1", "mel_l1_log", "diagonal_mass", "coverage", "monotonicity"):
        assert metrics[name] >= 0
    for name in ("duration_error", "mcd_dtw"):
        assert metrics[name] >= 0
    for name in ("stop_f1", "stop_rate"):
        assert (metrics[name] is not None) == attentive
    assert metrics["baselines"]["copy_synthesis"]["mcd_dtw"] < metrics["mcd_dtw"]
    page = (voice / "report.html").read_text(encoding="utf-8")
    assert "<audio" in page
    assert str(folder) not in page
    # Three steps teach nobody to read, and where attention has to find its way, that is said.
    command = ["synth", str(voice), text, "--output", str(folder / "speech"), "--json"]
    result = CliRunner().invoke(app, command)
    (entry,) = json.loads(result.stdout)
    assert isinstance(result.exception, SpeechError) == attentive
    assert (entry["file"] is None) == attentive
    assert bool(entry.get("fault")) == attentive
    assert json.loads((folder / "speech" / "speech.json").read_text(encoding="utf-8"))["mel_contract"]


@needs_espeak
def test_the_whole_job_on_espeak(tmp_path: Path) -> None:
    """In Persian; the others are English."""
    corpus = write_demo_corpus(tmp_path / "corpus", "fa", utterances=12, held_out=2)
    the_whole_job(corpus.folder, tmp_path, "یک دو سه چهار.", "convtts", "--language", "fa")


@pytest.mark.skipif(
    not SPEECH.is_dir(), reason="no real speech beside the repository (shared/data/ljspeech-mini)"
)
def test_the_whole_job_on_real_speech(tmp_path: Path) -> None:
    """With the mel contract that is not the default."""
    options = ("--contract", "librosa-22k", "--test-fraction", "0.1")
    the_whole_job(SPEECH, tmp_path, "printing, in the only sense", "demo", *options)


@needs_espeak
def test_a_killed_run_resumes_from_its_last_checkpoint_and_says_so(tmp_path: Path) -> None:
    corpus = write_demo_corpus(tmp_path / "corpus", utterances=12, held_out=2)
    run("prepare", corpus.folder, tmp_path / "store", "--jobs", "1")
    voice = tmp_path / "run"
    command = [
        *("train", "--resume", f"data.store={tmp_path / 'store'}", f"training.run_folder={voice}"),
        *("training.save_step=2", "training.log_step=1", "training.val_step=500", *SMALL, "--preset", "demo"),
    ]
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    process = start_ttsfast(*command, "training.max_steps=500", cwd=tmp_path, outputs=outputs)
    while len(checkpoints(voice)) < 2:
        assert process.exitcode is None
        time.sleep(0.05)
    time.sleep(random.uniform(0.0, 0.5))
    process.kill()
    process.join()
    last = int(checkpoints(voice)[-1].name.removeprefix("step-"))
    reached = max(row["step"] for row in read_log(voice))
    # Logged at every step and saved at every second one: at most two steps and the one under way are lost.
    assert last <= reached <= last + 3
    again = forked_ttsfast(*command, f"training.max_steps={last + 2}", cwd=tmp_path, outputs=outputs)
    assert again.returncode == 0, again.stderr
    lost = f"; {reached - last} logged steps since then are taken again" if reached > last else "\n"
    assert f"resuming at step {last}{lost}" in again.stderr
    assert f"next: ttsfast evaluate {voice}" in again.stdout
    steps = [row["step"] for row in read_log(voice) if row["kind"] == "train"]
    assert steps == list(range(1, last + 3))
