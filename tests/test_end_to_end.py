"""The whole job through the command line, on small synthetic corpora and on real speech."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner, Result

from ttsfast.cli import app
from ttsfast.data.corpus.espeak import available
from ttsfast.demo.corpus import write_demo_corpus
from ttsfast.evaluation.log import read_log
from ttsfast.models.checkpoint import checkpoints

SPEECH = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "ljspeech-mini"
needs_espeak = pytest.mark.skipif(not available(), reason="espeakng-loader is not installed (extra 'demo')")
SMALL = ("--preset", "demo", "data.batch_size=4", "training.val_utterances=2", "training.warmup_steps=1")


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def the_whole_job(corpus: Path, folder: Path, text: str, *options: str) -> dict[str, object]:
    store, voice = folder / "store", folder / "run"
    report = json.loads(run("prepare", corpus, store, "--jobs", "1", "--json", *options).stdout)
    assert report["train"] > report["validation"] > 0
    assert json.loads(run("verify", store, "--json").stdout)["ok"]
    keys = (
        f"data.store={store}",
        f"training.run_folder={voice}",
        "training.max_steps=3",
        "training.val_step=3",
    )
    trained = json.loads(run("train", *keys, "training.log_step=1", *SMALL, "--json").stdout)
    assert trained["step"] == 3
    metrics = json.loads(run("evaluate", voice, "--corpus", corpus, "--json").stdout)
    assert metrics == json.loads((voice / "metrics.json").read_text(encoding="utf-8"))
    for name in ("mel_l1", "mel_l1_log", "diagonal_mass", "coverage", "monotonicity", "stop_f1"):
        assert metrics[name] >= 0
    for name in ("duration_error", "stop_rate", "mcd_dtw"):
        assert metrics[name] >= 0
    assert metrics["baselines"]["copy_synthesis"]["mcd_dtw"] < metrics["mcd_dtw"]
    page = (voice / "report.html").read_text(encoding="utf-8")
    assert "<audio" in page
    assert str(folder) not in page
    spoken = json.loads(run("synth", voice, text, "--output", folder / "speech", "--json").stdout)
    wave, rate = soundfile.read(spoken[0]["file"])
    assert rate == 22050
    assert len(wave) == pytest.approx(spoken[0]["seconds"] * rate, abs=1)
    assert json.loads((folder / "speech" / "speech.json").read_text(encoding="utf-8"))["mel_contract"]
    return metrics


@needs_espeak
@pytest.mark.parametrize(("language", "text"), [("en", "one two three four."), ("fa", "یک دو سه چهار.")])
def test_the_whole_job_on_espeak(language: str, text: str, tmp_path: Path) -> None:
    corpus = write_demo_corpus(tmp_path / "corpus", language, utterances=60, held_out=3)
    the_whole_job(corpus.folder, tmp_path, text, "--language", language)


@pytest.mark.skipif(
    not SPEECH.is_dir(), reason="no real speech beside the repository (shared/data/ljspeech-mini)"
)
@pytest.mark.parametrize("contract", ["librosa-22k", "hifigan-22k"])
def test_the_whole_job_on_real_speech(contract: str, tmp_path: Path) -> None:
    the_whole_job(SPEECH, tmp_path, "printing, in the only sense", "--contract", contract)


@needs_espeak
def test_a_killed_run_resumes_from_its_last_checkpoint_and_says_so(tmp_path: Path) -> None:
    corpus = write_demo_corpus(tmp_path / "corpus", utterances=60, held_out=3)
    run("prepare", corpus.folder, tmp_path / "store", "--jobs", "1")
    voice = tmp_path / "run"
    command = [
        *(sys.executable, "-c", "from ttsfast.cli import main; main()", "train", "--resume"),
        *(f"data.store={tmp_path / 'store'}", f"training.run_folder={voice}", "training.save_step=2"),
        *("training.log_step=1", "training.max_steps=500", "training.val_step=500", *SMALL),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 120
    while len(checkpoints(voice)) < 2 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(random.uniform(0.0, 0.5))
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = int(checkpoints(voice)[-1].name.removeprefix("step-"))
    reached = max(row["step"] for row in read_log(voice))
    # Logged at every step and saved at every second one: at most two steps and the one under way are lost.
    assert last <= reached <= last + 3
    command[command.index("training.max_steps=500")] = f"training.max_steps={last + 2}"
    again = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    lost = f"; {reached - last} logged steps since then are taken again" if reached > last else "\n"
    assert f"resuming at step {last}{lost}" in again.stderr
    steps = [row["step"] for row in read_log(voice) if row["kind"] == "train"]
    assert steps == list(range(1, last + 3))
