"""Texts and recordings that do not belong together, planted in a real corpus.

    python bench/mismatches.py KATHLEEN --output bench/results/mismatches.json

One take of each text of one reader (``metadata_unique.csv``, 57 minutes). In every draw so many of the clips
are swapped in pairs, as many (one stretch of the listing) have the text of the next line, and as many end at
60 to 90% of what was said; then the doctor listens. A clean clip that is reported, for whatever reason,
counts against each kind. The thresholds were chosen on draws of seed 100 and above (``--calibrate``), which
are not reported.

Draws that the record has are not made again, so that it may be stopped at any time and go on elsewhere: each
draw names its machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile
import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.data.checks.check import Row, Subject
from ttsfast.data.corpus.audio import read_samples
from ttsfast.data.corpus.text import TextFrontend
from ttsfast.doctor.listening import Heard, listen
from ttsfast.progress import console

KINDS = ("swapped", "shifted", "cut")
SHARES = (0.02, 0.01, 0.05)
KEPT = (0.6, 0.9)
"""Of what is said, in a clip that is cut."""


@dataclass(frozen=True)
class Planted:
    """A corpus with mismatches."""

    subject: Subject
    kinds: dict[str, str]
    """Of ids."""
    right: dict[str, str]
    """The id whose text a clip says, of those with another's."""
    kept: dict[str, float]
    """Of the cut ones, the share of what is said."""


def spoken(wave: np.ndarray, rate: int) -> tuple[int, int]:
    """The samples between which somebody speaks: what lies 25 dB below the loudest is this reader's room."""
    block = rate // 50
    levels = 10 * np.log10(
        np.square(wave[: len(wave) // block * block]).reshape(-1, block).mean(axis=1) + 1e-12
    )
    sounding = np.flatnonzero(levels > levels.max() - 25)
    return int(sounding[0]) * block, int(sounding[-1] + 1) * block


def planted(corpus: Path, share: float, seed: int, work: Path) -> Planted:
    """A draw; what is cut is written into ``work``."""
    listed = [line.split("|") for line in (corpus / "metadata_unique.csv").read_text().splitlines()]
    ids, texts = [line[0] for line in listed], [line[2] for line in listed]
    audio = {name: corpus / "wavs" / f"{name}.flac" for name in ids}
    random, count = Random(seed), round(share * len(ids))
    first = random.randrange(len(ids) - count)
    stretch = list(range(first, first + count))
    rest = random.sample([n for n in range(len(ids)) if n not in stretch], 2 * count)
    swapped, cut = rest[: count // 2 * 2], rest[count:]
    given = list(range(len(ids)))
    for one, other in zip(swapped[::2], swapped[1::2], strict=True):
        given[one], given[other] = other, one
    for place in stretch:
        given[place] = stretch[(place + 1 - first) % count]
    kept = {}
    for place in cut:
        name = ids[place]
        samples, rate = read_samples(audio[name])
        first_sound, last_sound = spoken(samples[:, 0], rate)
        kept[name] = random.uniform(*KEPT)
        audio[name] = work / f"{name}.wav"
        end = first_sound + round(kept[name] * (last_sound - first_sound))
        soundfile.write(audio[name], samples[:end], rate)
    symbols = TextFrontend("en").batch(texts)
    rows = []
    for place, name in enumerate(ids):
        samples, rate = soundfile.info(audio[name]).frames, soundfile.info(audio[name]).samplerate
        frames = Subject([]).contract.frames(samples)
        text = given[place]
        rows.append(Row(name, texts[text], symbols[text], frames=frames, audio=str(audio[name])))
    kinds = {
        ids[p]: kind for kind, places in zip(KINDS, (swapped, stretch, cut), strict=True) for p in places
    }
    # Whose row has the text that is said.
    says = {ids[place]: ids[given.index(place)] for place in range(len(ids)) if given[place] != place}
    return Planted(Subject(rows), kinds, says, kept)


def figures(draw: Planted, heard: Heard) -> dict[str, Any]:
    """What of a draw was found."""
    wrong = {one.row.id for one in heard.suspects if one.wrong}
    cut = {one.row.id for one in heard.suspects if one.cut}
    found = {"swapped": wrong, "shifted": wrong, "cut": cut}
    false = sorted((wrong | cut) - draw.kinds.keys())
    result: dict[str, Any] = {"clean": len(heard.rows) - len(draw.kinds), "false": false}
    for kind in KINDS:
        there = {name for name, planted in draw.kinds.items() if planted == kind}
        result[kind] = {
            "planted": len(there),
            "found": len(there & found[kind]),
            # Reported, if for another reason.
            "reported": len(there & (wrong | cut)),
        }
    result["partners"] = {
        "named": len(heard.right),
        "right": sum(draw.right.get(name) == row.id for name, row in heard.right.items()),
    }
    result["cut"]["kept_and_found"] = sorted(
        (round(kept, 2), name in cut) for name, kept in draw.kept.items()
    )
    return result


def summary(draws: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all draws of a share: by kind, false alarms counted against each."""
    false = sum(len(draw["false"]) for draw in draws)
    result: dict[str, Any] = {"clean": sum(draw["clean"] for draw in draws), "false": false}
    for kind in KINDS:
        there, found = (sum(draw[kind][name] for draw in draws) for name in ("planted", "found"))
        scores = [
            2 * d[kind]["found"] / (d[kind]["found"] + d[kind]["planted"] + len(d["false"])) for d in draws
        ]
        result[kind] = {
            "planted": there,
            "precision": round(found / (found + false), 3),
            "recall": round(found / there, 3),
            "f1": round(2 * found / (found + false + there), 3),
            "f1_of_draws": [round(score, 3) for score in scores],
        }
    cut = [one for draw in draws for one in draw["cut"]["kept_and_found"]]
    for low, high in ((0.6, 0.7), (0.7, 0.8), (0.8, 0.85), (0.85, 0.901)):
        inside = [found for kept, found in cut if low <= kept < high]
        result["cut"][f"recall where {low:.0%} to {high:.0%} are left"] = round(float(np.mean(inside)), 3)
    for name in ("named", "right"):
        result[f"partners_{name}"] = sum(draw["partners"][name] for draw in draws)
    result["seconds_of_a_draw"] = [draw["seconds"] for draw in draws]
    result["processors"] = dict(Counter(draw["machine"]["processor"] for draw in draws))
    return result


def main() -> None:
    """Make the draws that are missing, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--draws", type=int, default=5, help="of each share")
    parser.add_argument("--calibrate", action="store_true", help="draws of seed 100 and above")
    parser.add_argument("--most", type=int, default=100, help="draws to make now")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console.quiet = True
    record: dict[str, Any] = {"draws": {}}
    if arguments.output.exists():
        record = json.loads(arguments.output.read_text())
    first = 100 if arguments.calibrate else 0
    todo = [(share, seed) for share in SHARES for seed in range(first, first + arguments.draws)]
    todo = [(share, seed) for share, seed in todo if f"{share:g}/{seed}" not in record["draws"]]
    for share, seed in todo[: arguments.most]:
        with tempfile.TemporaryDirectory() as name:
            draw = planted(arguments.corpus, share, seed, Path(name))
            began = time.perf_counter()
            found = figures(draw, listen(draw.subject))
        found["seconds"] = round(time.perf_counter() - began, 1)
        # Draws may be made on several machines, and what each took says nothing without it.
        found["machine"] = describe(torch.device("cpu"))
        record["draws"][f"{share:g}/{seed}"] = found
        print(share, seed, {kind: found[kind]["found"] for kind in KINDS}, found["false"], file=sys.stderr)
        for part in SHARES:
            if draws := [one for key, one in record["draws"].items() if key.startswith(f"{part:g}/")]:
                record[f"share {part:g}"] = summary(draws)
        write_record(arguments.output, record)
    print(json.dumps({key: value for key, value in record.items() if key != "draws"}, indent=1))


if __name__ == "__main__":
    main()
