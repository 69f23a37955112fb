"""What a voice to start from is worth: python bench/finetune.py --corpus kathleen --asr MODEL

The corpus (LJ Speech layout, one speaker) is split in two halves by text. Voice A is trained on the first
half, a Persian voice on the demo's corpus. Then the second half is learnt from nothing, from A and from the
Persian voice, each in a schedule of its own length: in the units of A's store, but from the Persian voice in
its own, and in that voice's. Of its test utterances, spoken free-running, the words that Whisper hears wrong
are counted at every checkpoint, or at the last ones. Needs the extra ``asr`` and espeak-ng.

What is there already in ``--folder`` is not made, trained or heard again, so an interrupted bench goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.data.corpus.split import text_key
from ttsfast.data.corpus.text import TextFrontend
from ttsfast.data.prepare.like import Like
from ttsfast.data.prepare.prepare import PrepareOptions, prepare
from ttsfast.data.store.manifest import NAME as MANIFEST
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.store import Store
from ttsfast.data.store.texts import reference_texts
from ttsfast.demo.corpus import write_demo_corpus
from ttsfast.evaluation.log import read_log
from ttsfast.evaluation.speech_recognition import Recogniser
from ttsfast.files import atomic_write
from ttsfast.models.build import BUILT_IN, PARALLELTTS
from ttsfast.models.checkpoint import checkpoints
from ttsfast.models.voice import Voice
from ttsfast.training.configure import configure
from ttsfast.training.trainer import Trainer

ENGLISH, PERSIAN = TextFrontend("en", phonemes=True), TextFrontend("fa", phonemes=True)
SPOKEN = 16
"""Utterances at a time."""


@dataclass(frozen=True)
class Arm:
    """A way to learn the second half."""

    name: str
    store: str
    start: str | None
    steps: float
    """Of those of the run from nothing."""


ARMS = (
    Arm("from nothing", "second", None, 1.0),
    Arm("from a voice of the language", "second", "voice-a", 1 / 3),
    Arm("from another language's voice", "second-own", "voice-persian", 2 / 3),
    Arm("from another language's voice, in its units", "second-like-persian", "voice-persian", 2 / 3),
)


def main() -> None:
    """Make what is missing, listen, and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="folder with metadata.csv and wavs")
    parser.add_argument("--asr", required=True, help="a Whisper model for faster-whisper")
    parser.add_argument("--folder", type=Path, default=Path("runs/finetune"))
    parser.add_argument("--steps", type=int, default=3000, help="of the voices, and of the run from nothing")
    parser.add_argument("--checkpoints", type=int, default=10, help="of each run")
    parser.add_argument("--heard", type=int, default=10, help="of these, the last ones, that are listened to")
    parser.add_argument("--utterances", type=int, default=48, help="that are spoken at each")
    parser.add_argument("--seeds", type=int, default=1, help="of the second half; the voices have one")
    parser.add_argument("--architecture", default=PARALLELTTS, choices=BUILT_IN)
    parser.add_argument("--output", type=Path, default=Path("bench/results/finetune.json"))
    given = parser.parse_args()

    if not all((given.folder / arm.store / MANIFEST).is_file() for arm in ARMS):
        make_stores(given.corpus, given.folder)
    shared = {"model.architecture": given.architecture}
    for store, voice in (("first", "voice-a"), ("persian", "voice-persian")):
        train(given.folder, store, voice, None, given.steps, given.checkpoints, shared)
    recogniser = Recogniser(given.asr, ENGLISH.language)
    found = []
    for seed in range(given.seeds):
        of_seed: dict[str, list[dict[str, Any]]] = {}
        for arm in ARMS:
            name, steps = f"{re.sub('[^a-z]+', '-', arm.name)}-{seed}", max(1, round(given.steps * arm.steps))
            settings = shared | {"training.seed": seed}
            run = train(given.folder, arm.store, name, arm.start, steps, given.checkpoints, settings)
            of_seed[arm.name] = listen(
                checkpoints(run)[-given.heard :], run, given.folder / arm.store, recogniser, given.utterances
            )
            for row in of_seed[arm.name]:
                print(f"{arm.name}, step {row['step']}: {100 * row['word_error']:.1f}% of words", flush=True)
        least = min(row["word_error"] for row in of_seed[ARMS[0].name])
        reached = {name: first_at(rows, least) for name, rows in of_seed.items()}
        print(f"seed {seed}: the least from nothing, {100 * least:.1f}%, is reached at step: {reached}")
        found.append({"least_from_nothing": least, "step_that_reaches_it": reached, "by_checkpoint": of_seed})
        record = {
            "machine": describe(torch.device("cpu")),
            "arguments": {
                "architecture": given.architecture,
                "steps": given.steps,
                "utterances": given.utterances,
                "heard": given.heard,
                "asr": Path(given.asr).name,
            },
            "by_seed": found,
        }
        write_record(given.output, record)


def make_stores(corpus: Path, folder: Path) -> None:
    """Both halves, the second in the units of A's store, in its own, and in those of the Persian voice's."""
    halves = [
        write_half(corpus, folder / name, number) for number, name in enumerate(("corpus-1", "corpus-2"))
    ]
    write_demo_corpus(folder / "corpus-persian", "fa")
    prepare(halves[0], folder / "first", PrepareOptions(frontend=ENGLISH, trim=True))
    prepare(folder / "corpus-persian", folder / "persian", PrepareOptions(frontend=PERSIAN, trim=True))
    prepare(halves[1], folder / "second-own", PrepareOptions(frontend=ENGLISH, trim=True))
    for name, other in (("second", "first"), ("second-like-persian", "persian")):
        like = Like.of(read_manifest(folder / other), ENGLISH)
        prepare(halves[1], folder / name, PrepareOptions(frontend=ENGLISH, trim=True, like=like))


def write_half(corpus: Path, folder: Path, number: int) -> Path:
    """The utterances of every other text, by a hash of it."""
    (folder / "wavs").mkdir(parents=True, exist_ok=True)
    lines = []
    for line in (corpus / "metadata.csv").read_text(encoding="utf-8").splitlines():
        name, text = line.split("|")[:2]
        if hashlib.sha256(text_key(text).encode()).digest()[0] % 2 != number:
            continue
        lines.append(f"{line}\n")
        (recording,) = (corpus / "wavs").glob(f"{name}.*")
        if not (folder / "wavs" / recording.name).exists():
            shutil.copyfile(recording, folder / "wavs" / recording.name)
    (folder / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    return folder


def train(
    folder: Path,
    store: str,
    name: str,
    start: str | None,
    steps: int,
    kept: int,
    more: Mapping[str, Any],
) -> Path:
    """A run of that many steps, which leaves as many checkpoints as are to be kept."""
    every = max(1, steps // kept)
    settings = {
        "training.run_folder": folder / name,
        "training.max_steps": steps,
        "training.val_step": every,
        "training.save_step": every,
        "training.keep_checkpoints": kept + 1,
        "training.early_stopping": "false",
        **more,
    }
    arguments = [str(folder / store), *(f"{key}={value}" for key, value in settings.items())]
    origin = None if start is None else str(folder / start)
    with Trainer(configure(arguments, resume=True, start=origin).config, resume=True) as trainer:
        trainer.fit()
    return folder / name


def listen(
    voices: Sequence[Path], run: Path, store_folder: Path, recogniser: Recogniser, utterances: int
) -> list[dict[str, Any]]:
    """By checkpoint: the share of words that are heard wrong, and what validation said."""
    store = Store.open(store_folder)
    indices = [int(i) for i in store.indices("test")[:utterances]]
    # As they are written: the store's own are phonemes.
    texts = list(reference_texts(store, indices, Path(store.manifest.corpus)).values())
    validated = {row["step"]: row for row in read_log(run) if row["kind"] == "validation"}
    heard = run / f"heard-{utterances}-{recogniser.name}.json"
    known = json.loads(heard.read_text()) if heard.is_file() else {}
    rows = []
    for path in voices:
        step = int(path.name[5:13])
        if str(step) not in known:
            known[str(step)] = word_error(Voice.load(path), texts, recogniser)
            with atomic_write(heard) as handle:
                handle.write(json.dumps(known).encode())
        mel_l1 = validated.get(step, {}).get("mel_l1")
        rows.append({"step": step, "word_error": known[str(step)], "mel_l1": mel_l1})
    return rows


def word_error(voice: Voice, texts: Sequence[str], recogniser: Recogniser) -> float:
    """Of texts that the voice speaks."""
    errors = words = 0
    for first in range(0, len(texts), SPOKEN):
        part = texts[first : first + SPOKEN]
        for text, speech in zip(part, voice.speak(part), strict=True):
            heard = recogniser.compare(speech.wave, voice.contract.sample_rate, recogniser.normalise(text))
            errors, words = errors + heard.word_errors, words + heard.words
    return errors / words


def first_at(rows: Sequence[dict[str, Any]], least: float) -> int | None:
    """The first step whose word error is no more than ``least``."""
    return next((row["step"] for row in rows if row["word_error"] <= least), None)


if __name__ == "__main__":
    main()
