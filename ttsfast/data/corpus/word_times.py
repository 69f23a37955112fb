"""``words.json`` in a corpus: when the words of its recordings begin, where that is known.

The demo's corpora have it from the synthesiser; an aligner's times do as well.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ttsfast.errors import InputError
from ttsfast.files import atomic_write

NAME = "words.json"


def write_word_times(folder: Path, times: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """By utterance: which word of its text, counted from 0 as spaces part them, begins at how many seconds of
    its recording. Not every word must be there."""
    content = {name: [[word, round(seconds, 4)] for word, seconds in words] for name, words in times.items()}
    with atomic_write(folder / NAME) as handle:
        handle.write(json.dumps(content).encode() + b"\n")


def read_word_times(folder: Path) -> dict[str, list[tuple[int, float]]] | None:
    """What :func:`write_word_times` wrote; None where there is no such file.

    Raises:
        InputError: the file holds something else.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = {
            str(name): [(int(word), float(seconds)) for word, seconds in words]
            for name, words in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{path}: cannot be read as the times of words ({error}); mend it, or delete it"
        ) from error
    for name, words in found.items():
        if not all(word >= 0 and seconds >= 0 and math.isfinite(seconds) for word, seconds in words):
            raise InputError(f"{path}: {name} has a word or a time that is no number from 0 up; mend it")
    return found
