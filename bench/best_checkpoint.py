"""Which checkpoint of a run each figure would choose, and what is heard of it.

    ttsfast train STORE model.architecture=convtts training.keep_checkpoints=40   # keeps every validated one
    python bench/best_checkpoint.py STORE RUN [RUN ...] --asr MODEL --output best-checkpoint.json

Every checkpoint is measured on the validation split, as the trainer measures, over all its utterances. Those
that a figure would choose, and ``--hear`` more, are heard on the test split; the choice stands beside the
checkpoint with the fewest word errors, with the interval of the difference on the same utterances (paired
bootstrap).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.data.features.inversion import griffin_lim
from ttsfast.data.loading.batch import Batch, collate
from ttsfast.data.store.store import Store
from ttsfast.data.store.texts import reference_texts
from ttsfast.evaluation import bootstrap
from ttsfast.evaluation.figures import Figures
from ttsfast.evaluation.samples import ValidationSample
from ttsfast.evaluation.speech_recognition import Recogniser
from ttsfast.evaluation.validate import free_running, teacher_forced
from ttsfast.models.checkpoint import checkpoints
from ttsfast.models.voice import Voice

RULES = ("mcd_dtw_sl", "mel_l1", "duration_error")
"""What :attr:`training.monitor` offers; the least is the best."""
SHOWN = ("mel_l1", "mcd_dtw", "mcd_dtw_sl", "heard", "duration_error", "right_length", "ran_on", "stop_rate")
NOISE_UTTERANCES, DRAWS = (16, 32, 48), 300


def batches(store: Store, split: str, size: int = 24) -> Iterator[Batch]:
    """All utterances of a split, the short ones first."""
    indices = store.indices(split)
    order = indices[np.argsort(store.frames[indices], kind="stable")]
    for start in range(0, len(order), size):
        yield collate([store[int(i)] for i in order[start : start + size]], pad_value=store.silence)


def measure(voice: Voice, store: Store) -> dict[str, Any]:
    """Figures on the validation split, and each utterance's distortion by length."""
    free = free_running(
        voice.model,
        batches(store, "validation"),
        "cpu",
        stop_threshold=voice.stop_threshold,
        max_frames=voice.max_frames,
        mel_std=voice.mel_std,
        contract=voice.contract,
    )
    forced = teacher_forced(
        voice.model, batches(store, "validation"), "cpu", stop_threshold=voice.stop_threshold
    )
    both = free.joined(forced.named({"mel_l1"}))
    return {
        "figures": {name: both[name] for name in SHOWN},
        "mcd_dtw_sl": [term.value for term in free.terms("mcd_dtw_sl").values()],
    }


def words(voice: Voice, store: Store, recogniser: Recogniser) -> dict[str, Any]:
    """Word errors, and words to be said, of each utterance of the test split; the figures beside them."""
    indices = store.indices("test")
    texts = reference_texts(store, indices.tolist(), Path(store.manifest.corpus))
    heard: dict[str, tuple[int, int]] = {}

    def listen(sample: ValidationSample) -> None:
        wave = griffin_lim(sample.predicted * voice.mel_std + voice.mel_mean, voice.contract)
        reference = recogniser.normalise(texts[sample.id])
        found = recogniser.compare(wave, voice.contract.sample_rate, reference)
        heard[sample.id] = found.word_errors, found.words

    figures: Figures = free_running(
        voice.model,
        batches(store, "test"),
        "cpu",
        stop_threshold=voice.stop_threshold,
        max_frames=voice.max_frames,
        on_sample=listen,
    )
    return {
        "errors": [heard[name][0] for name in sorted(heard)],
        "words": [heard[name][1] for name in sorted(heard)],
        "duration_error": figures["duration_error"],
        "ran_on": figures["ran_on"],
    }


def word_error(found: dict[str, Any]) -> float:
    """Over all utterances."""
    return sum(found["errors"]) / sum(found["words"])


def examine(run: Path, store: Store, recogniser: Recogniser, hear: list[int]) -> dict[str, Any]:
    """All checkpoints of a run, and the choice of each rule."""
    rows: dict[int, dict[str, Any]] = {}
    voices = {int(path.name.split("-")[1]): path for path in checkpoints(run)}
    for step, path in sorted(voices.items()):
        rows[step] = measure(Voice.load(path), store)
        print(
            run.name, step, json.dumps({k: round(v, 3) for k, v in rows[step]["figures"].items()}), flush=True
        )
    chosen = {rule: min(rows, key=lambda step: rows[step]["figures"][rule]) for rule in RULES}
    for step in sorted({*chosen.values(), *hear} & rows.keys()):
        rows[step]["words"] = words(Voice.load(voices[step]), store, recogniser)
        print(run.name, step, f"word error {word_error(rows[step]['words']):.3f}", flush=True)
    listened = {step: row["words"] for step, row in rows.items() if "words" in row}
    fewest = min(listened, key=lambda step: word_error(listened[step]))
    least = min(row["figures"]["duration_error"] for row in rows.values())
    return {
        "checkpoints": {str(step): row for step, row in rows.items()},
        "fewest_word_errors": fewest,
        "chosen": {
            rule: {
                "step": step,
                "duration_error_over_least": rows[step]["figures"]["duration_error"] / least,
                "word_error": word_error(listened[step]),
                "word_error_less_fewest": list(
                    bootstrap.difference(
                        listened[step]["errors"], listened[fewest]["errors"], listened[fewest]["words"]
                    )
                ),
            }
            for rule, step in chosen.items()
        },
        "within_1.2_of_least_duration_error": chance(rows, least),
    }


def chance(rows: dict[int, dict[str, Any]], least: float) -> dict[str, float]:
    """By utterances of a validation, how often the least ``mcd_dtw_sl`` of so many, drawn with replacement,
    chooses a checkpoint whose duration error over all is within 1.2 times the least."""
    random = np.random.default_rng(0)
    steps = list(rows)
    values = np.array([rows[step]["mcd_dtw_sl"] for step in steps])
    good = np.array([rows[step]["figures"]["duration_error"] <= 1.2 * least for step in steps])
    return {
        str(count): float(
            np.mean(
                [
                    good[values[:, random.integers(values.shape[1], size=count)].mean(axis=1).argmin()]
                    for _ in range(DRAWS)
                ]
            )
        )
        for count in NOISE_UTTERANCES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("store")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--asr", required=True, help="a Whisper model, as `ttsfast evaluate --asr` takes it")
    parser.add_argument("--hear", type=int, nargs="*", default=[], help="steps to listen to besides")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    store = Store.open(options.store)
    recogniser = Recogniser(options.asr, store.frontend.language)
    result: dict[str, Any] = {
        "machine": describe(torch.device("cpu")),
        "utterances": {split: len(store.indices(split)) for split in ("validation", "test")},
        "runs": {},
    }
    for run in options.runs:
        result["runs"][run.name] = examine(run, store, recogniser, options.hear)
        write_record(options.output, result)


if __name__ == "__main__":
    main()
