"""How many Persian words and phrases the phoneme front end reads right.

    python bench/persian/read.py --output bench/results/persian.json

``words.tsv`` has 200 common words, ``phrases.tsv`` 50 phrases, 47 of them with an ezafe that is heard and
mostly not written, each with its reading in letters: â as in father, š, č, ž, j as in jar, y as in yes, q for
both ق and غ, ' for a glottal stop. Stress, length, glottal stops and doubled letters are not compared.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from ttsfast.benchmarks.records import write_record
from ttsfast.data.corpus.text import TextFrontend

HERE = Path(__file__).parent
IPA = {"â": "ɑ", "š": "ʃ", "č": "tʃ", "ž": "ʒ", "j": "dʒ", "y": "j", "g": "ɡ"}
NOT_COMPARED = re.compile(r"[ˈˌːʔ'1. ]")


def plain(phonemes: str) -> str:
    """What is compared: a glide between i and a vowel is written by some and not by others."""
    phonemes = NOT_COMPARED.sub("", phonemes)
    return re.sub(r"(.)\1", r"\1", re.sub("ij(?=[ɑaeou])", "i", phonemes))


def measure(name: str) -> dict[str, Any]:
    """The share that is right, and what is not."""
    rows = [line.split("\t") for line in (HERE / f"{name}.tsv").read_text(encoding="utf-8").splitlines()]
    read = TextFrontend("fa", phonemes=True).batch([written for written, _ in rows])
    wrong = []
    for (written, reading), phonemes in zip(rows, read, strict=True):
        wanted = "".join(IPA.get(letter, letter) for letter in reading)
        if plain(phonemes) != plain(wanted):
            wrong.append({"written": written, "wanted": wanted, "read": phonemes})
    return {"of": len(rows), "right": len(rows) - len(wrong), "wrong": wrong}


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    result = {name: measure(name) for name in ("words", "phrases")}
    for name, found in result.items():
        print(f"{name}: {found['right']} of {found['of']}")
    write_record(arguments.output, result)


if __name__ == "__main__":
    main()
