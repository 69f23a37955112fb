"""Faults of a dataset beyond the tests: the smallest dose that is found, and corpora nobody tuned on.

    python bench/dataset_faults.py KATHLEEN --output bench/results/dataset-faults.json

Doses: each fault is planted into 40 recordings of three clean corpora (English and Persian by espeak-ng, a
reader), in rising doses and five draws of each; found is a dose from which on its own check tells of it in
every draw. The thresholds were set with these corpora at hand.

Other corpora: every fault of ``tests/faults`` is planted, by other random choices, into corpora that had no
part in a threshold (other sentences, spoken slower), and into the reader, whose clean figures had. Found is
a new finding of the check and severity that the fault's row says; first, where that check comes before all
other new ones.

    python bench/dataset_faults.py KATHLEEN --further --output bench/results/dataset-faults-further.json

Further faults (``tests/faults/further_faults.py``), written down after all thresholds and tried once, in both
halves of the corpora, with those of the tests beside them and no doses.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soxr
import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.data.checks.run import run_checks
from ttsfast.data.corpus.audio import read_samples, trim_silence
from ttsfast.data.corpus.espeak import SAMPLE_RATE, speak
from ttsfast.demo.corpus import demo_sentences

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "faults"))
import audio_faults
import pairing_faults
import text_faults
from further_faults import FURTHER
from spoken import FAULTS, SPOKEN, WRITTEN, Clip, Corpus, Fault, clean, subject

PLANTED = (audio_faults, pairing_faults, text_faults)

DRAWS = 5
Plant = Callable[[Corpus, float, Random], Corpus]


@dataclass(frozen=True)
class Dose:
    """A fault that comes in doses, the smallest first."""

    check: str
    unit: str
    doses: Sequence[float]
    plant: Plant


def _one(change: Callable[[np.ndarray, float, Random], np.ndarray], share: float = 0.1) -> Plant:
    """A change of samples, in some of the longer recordings."""

    def plant(corpus: Corpus, dose: float, random: Random) -> Corpus:
        long = sorted(range(SPOKEN), key=lambda i: -len(corpus.clips[i].wave))[: SPOKEN // 2]
        chosen = random.sample(long, round(share * SPOKEN))
        return corpus.waves(lambda wave: change(wave, dose, random), chosen)

    return plant


def _count(change: Callable[[Clip], Clip]) -> Plant:
    """A change of so many utterances."""
    return lambda corpus, dose, random: corpus.each(change, random.sample(range(SPOKEN), int(dose)))


def _noise(size: int, random: Random) -> np.ndarray:
    return np.random.default_rng(random.randrange(2**32)).standard_normal(size)


def _room(seconds: float, random: Random) -> np.ndarray:
    return 1e-4 * _noise(round(seconds * SAMPLE_RATE), random)


def _hole(wave: np.ndarray, seconds: float, random: Random) -> np.ndarray:
    torn, middle = wave.copy(), len(wave) // 3
    # In the midst of sound.
    middle += int(np.abs(wave[middle : 2 * middle]).argmax())
    torn[middle : middle + round(seconds * SAMPLE_RATE)] = 0
    return torn


def _over(wave: np.ndarray, decibels: float, random: Random) -> np.ndarray:
    return np.clip(wave / np.abs(wave).max() * 10 ** (decibels / 20), -1, 1)


def _narrow(wave: np.ndarray, below: float, random: Random) -> np.ndarray:
    """Nothing is left above 9 kHz less so much."""
    rate = 2 * (9000 - below)
    return soxr.resample(soxr.resample(wave, SAMPLE_RATE, rate), rate, SAMPLE_RATE)[: len(wave)]


def _noisy(wave: np.ndarray, decibels: float, random: Random) -> np.ndarray:
    return wave + _noise(len(wave), random) * np.sqrt(np.mean(wave**2)) * 10 ** (decibels / 20)


def _pause(wave: np.ndarray, seconds: float, random: Random) -> np.ndarray:
    block = SAMPLE_RATE // 50
    levels = np.square(wave[: len(wave) // block * block]).reshape(-1, block).mean(axis=1)
    quiet = (len(levels) // 4 + int(levels[len(levels) // 4 : -len(levels) // 4].argmin())) * block
    return np.concatenate([wave[:quiet], _room(seconds, random), wave[quiet:]])


def _stretch(corpus: Corpus, dose: float, random: Random) -> Corpus:
    """So many neighbours have the text of the next line."""
    lines, texts = int(dose), [clip.text for clip in corpus.clips]
    first = random.randrange(SPOKEN - lines + 1)
    texts[first : first + lines] = [*texts[first + 1 : first + lines], texts[first]]
    return replace(corpus, clips=[replace(c, text=t) for c, t in zip(corpus.clips, texts, strict=True)])


def _without_words(corpus: Corpus, share: float, random: Random) -> Corpus:
    """A long text lacks so much of its end."""
    long = sorted(range(SPOKEN), key=lambda i: -len(corpus.clips[i].text))[: SPOKEN // 2]
    return corpus.texts(lambda text: text[: round(len(text) * (1 - share))], [random.choice(long)])


def _text(change: Callable[[str], str]) -> Plant:
    return _count(lambda clip: replace(clip, text=change(clip.text)))


def _twice(corpus: Corpus, dose: float, random: Random) -> Corpus:
    chosen = random.sample(range(SPOKEN), int(dose))
    return replace(
        corpus, clips=[*corpus.clips, *(replace(corpus.clips[i], id=f"again {i}") for i in chosen)]
    )


ONE = (1, 2, 4, 8, 16)
DOSES = {
    "zeros in place of a recording": Dose(
        "silent", "recordings of 40", ONE, _count(lambda c: replace(c, wave=np.zeros_like(c.wave)))
    ),
    "a hole of zeros in the midst of sound": Dose(
        "hole", "s", (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4), _one(_hole)
    ),
    "clipping": Dose("clipping", "dB over full scale", (0.5, 1, 1.5, 2, 3, 4, 6, 9, 12), _one(_over)),
    "a mean that is not 0": Dose(
        "dc offset",
        "of the deviation",
        (0.02, 0.05, 0.08, 0.1, 0.12, 0.15, 0.2),
        _one(lambda wave, dose, _: wave + np.float32(dose * wave.std())),
    ),
    "a low-pass": Dose("band", "Hz below 9 kHz", (500, 1000, 1250, 1500, 2000, 3000, 5000), _one(_narrow)),
    "white noise": Dose("noise", "dB over speech", (-30, -25, -20, -17, -15, -12, -10, -5, 0), _one(_noisy)),
    "a quiet recording": Dose(
        "level",
        "dB below the others",
        (3, 6, 9, 12, 15, 18, 24, 30),
        _one(lambda wave, dose, _: wave * np.float32(10 ** (-dose / 20)), 0.05),
    ),
    "silence before the first word": Dose(
        "silence at the ends",
        "s",
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0),
        _one(lambda wave, dose, random: np.concatenate([_room(dose, random), wave])),
    ),
    "a pause": Dose("pause", "s", (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0), _one(_pause)),
    "channels of opposite phase": Dose(
        "channels", "recordings of 40", ONE, _count(lambda c: replace(c, wave=np.stack([c.wave, -c.wave], 1)))
    ),
    "another sample rate": Dose(
        "sample rate",
        "recordings of 40",
        ONE,
        _count(lambda c: replace(c, wave=soxr.resample(c.wave, SAMPLE_RATE, 44100), rate=44100)),
    ),
    "texts of the next line": Dose("shifted", "neighbouring lines of 40", (8, 12, 16, 20, 30, 40), _stretch),
    "a text without its last words": Dose(
        "duration", "of its letters", (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), _without_words
    ),
    "a recording listed twice": Dose("repeated audio", "of 40", ONE, _twice),
    "digits": Dose("digits", "texts of 40", ONE, _text(lambda text: f"{text[:-1]} 12.")),
    "tags": Dose("markup", "texts of 40", ONE, _text(lambda text: f"<i>{text}</i>")),
    "a letter that could not be decoded": Dose(
        "garbled text", "texts of 40", ONE, _text(lambda text: text[:4] + "\ufffd" + text[5:])
    ),
    "a letter of another script in a word": Dose(
        "look-alike letters", "texts of 40", ONE, _text(lambda text: f"{text[:-1]} pаge.")
    ),
}


def smallest(dose: Dose, corpus: Corpus, name: str) -> float | None:
    """From which on every draw is found; None where not even the largest is."""
    least = None
    for size in reversed(dose.doses):
        for draw in range(DRAWS):
            planted = dose.plant(corpus, size, Random(f"{name} {size} {draw}"))
            if dose.check not in {finding.check for finding in run_checks(subject(planted)).findings}:
                return least
        least = size
    return least


def read(folder: Path) -> Corpus:
    """A reader's: as many recordings and further texts as the spoken ones have, the last of the listing."""
    clips = []
    listed = (folder / "metadata_unique.csv").read_text().splitlines()[-WRITTEN:]
    for place, line in enumerate(listed):
        name, _, text = line.split("|")
        wave = None
        if place < SPOKEN:
            samples, _ = read_samples(folder / "wavs" / f"{name}.flac")
            wave = samples[:, 0]
        clips.append(Clip(name, text, wave))
    return Corpus(clips, "en")


def fresh(language: str) -> Corpus:
    """Spoken like the clean ones of the tests, but other sentences, and slower."""
    texts, _ = demo_sentences(language, WRITTEN, 0, 7)
    spoken = [trim_silence(speak(text, language, rate=150), SAMPLE_RATE) for text in texts[:SPOKEN]]
    waves = [np.pad(wave, SAMPLE_RATE // 50) for wave in spoken]
    clips = [Clip(f"{n:04d}", t, waves[n] if n < SPOKEN else None) for n, t in enumerate(texts)]
    return Corpus(clips, language)


def planted(corpus: Corpus, faults: Sequence[Fault]) -> dict[str, Any]:
    """What is found of ``faults`` in a corpus."""
    findings = run_checks(subject(corpus)).findings
    before = {(finding.check, finding.severity) for finding in findings}
    missed, not_first, count = [], [], 0
    for fault in faults:
        if corpus.language not in fault.languages:
            continue
        count += 1
        planted = fault.plant(corpus, Random(f"{fault.name} again"))
        new = [(f.check, f.severity) for f in run_checks(subject(planted)).findings]
        new = [one for one in new if one not in before]
        if (fault.check, fault.severity) not in new:
            missed.append(f"{fault.name}: {new[:2]}")
        elif new[0][0] != fault.check:
            not_first.append(f"{fault.name}: {new[0][0]}")
    return {
        "clean": [f"{f.severity}: {f.check}" for f in findings],
        "faults": count,
        "found": count - len(missed),
        "first": count - len(missed) - len(not_first),
        "missed": missed,
        "not_first": not_first,
    }


def _write(record: dict[str, Any], output: Path) -> None:
    print(json.dumps({name: part for name, part in record.items() if name != "smallest"}, indent=1))
    write_record(output, record)


def main() -> None:
    """Try all, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--further", action="store_true", help="further faults in both halves, no doses")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    corpora = {"espeak en": clean("en"), "espeak fa": clean("fa"), "reader": read(arguments.corpus)}
    record: dict[str, Any] = {"machine": describe(torch.device("cpu"))}
    if arguments.further:
        slower = {f"{name}, other sentences": fresh(name[-2:]) for name in ("espeak en", "espeak fa")}
        for half, those in (("thresholds_chosen_on", corpora), ("other_half", slower)):
            record[half] = {
                kind: {name: planted(corpus, faults) for name, corpus in those.items()}
                for kind, faults in (("faults of the tests", FAULTS), ("further faults", FURTHER))
            }
        _write(record, arguments.output)
        return
    record |= {"draws": DRAWS, "smallest": {}}
    for name, dose in DOSES.items():
        found = {key: smallest(dose, corpus, name) for key, corpus in corpora.items()}
        record["smallest"][name] = {"check": dose.check, "unit": dose.unit, "tried": dose.doses, **found}
        print(name, found, file=sys.stderr)
    record["other_corpora"] = {
        "espeak en, other sentences": planted(fresh("en"), FAULTS),
        "espeak fa, other sentences": planted(fresh("fa"), FAULTS),
        "reader": planted(corpora["reader"], FAULTS),
    }
    _write(record, arguments.output)


if __name__ == "__main__":
    main()
