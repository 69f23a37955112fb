"""Which utterances are held out, to choose by and to report on: decided by text, so that it lasts when the
corpus grows.

An utterance's split follows from the seed and its own text alone. No list of ids has to be kept, the order of
the corpus does not matter, and every recording of one sentence (by several speakers, say) falls on the same
side. A hash of the utterance id would part such recordings; a hash of the smallest id that a text has would
move the text when a recording with a smaller id is added later.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from ttsfast.errors import InputError

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
"""What is learned from, what chooses (a checkpoint, a threshold, a rate), and what neither has seen."""


def split_of(
    texts: Iterable[str],
    listed: Sequence[str | None] | None = None,
    *,
    fraction: float = 0.05,
    test_fraction: float = 0.0,
    seed: int = 0,
    known: Mapping[str, str] | None = None,
) -> list[str]:
    """The split (of :data:`SPLITS`) of each utterance, given its normalised letters (not phonemes).

    Texts that differ only in punctuation, spaces or case count as one. Of the distinct texts about
    ``fraction`` are for validation, and ``test_fraction`` for the test, from the other end of the hash:
    neither share moves a text of the other. ``listed`` holds what the corpus itself says
    (``CorpusItem.split``) and goes before the hash; of a text listed in several splits all goes to the last
    of them, in the order of :data:`SPLITS`.

    Two or more texts always leave one for validation, that of the smallest hash where none falls below
    ``fraction``, unless ``fraction`` is 0 or the corpus lists its own. When such a corpus grows, no text
    moves from training to validation or test; only the one held out for want of another may move back.

    For utterances that are added to some which keep their splits, ``known`` has those (``text_key``: split).
    Such a text stays on its side, whatever else is said of it: otherwise it would be on both. Of the others
    none is held out for want of another.

    Raises InputError when a fraction is below 0 or both together are not below 1, and when nothing is left
    for training.
    """
    check_fractions(fraction, test_fraction)
    keys = [text_key(text) for text in texts]
    listed = [None] * len(keys) if listed is None else listed
    if unknown := set(listed) - {None, *SPLITS}:
        raise ValueError(f"unknown split {unknown.pop()!r}")
    sides: dict[str, str] = {}
    for key, split in zip(keys, listed, strict=True):
        if split is not None:
            sides[key] = max(sides.get(key, TRAIN), split, key=SPLITS.index)
    positions = {key: _position(key, seed) for key in keys if key not in sides}
    drawn = {key: _draw(position, fraction, test_fraction) for key, position in positions.items()}
    if known is not None:
        sides |= drawn
        return [known.get(key, sides[key]) for key in keys]
    if not sides:
        if len(drawn) == 1:
            drawn = dict.fromkeys(drawn, TRAIN)
        elif drawn and fraction > 0 and VALIDATION not in drawn.values():
            drawn[min(drawn, key=lambda key: (positions[key], key))] = VALIDATION
    sides |= drawn
    if sides and TRAIN not in sides.values():
        raise InputError(
            f"all {len(sides)} distinct texts are held out, none is left for training; add utterances, or "
            "use smaller fractions or another seed"
        )
    return [sides[key] for key in keys]


def check_fractions(validation: float, test: float) -> None:
    """Raise InputError unless both are at least 0, and together below 1."""
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise InputError(
            f"validation_fraction is {validation} and test_fraction {test}: each must be at least 0, and "
            "both together below 1"
        )


def text_key(text: str) -> str:
    """The letters, marks and digits of a text, in one case: what two readings of it share."""
    kept = "".join(c for c in text.casefold() if unicodedata.category(c)[0] in "LMN")
    return unicodedata.normalize("NFC", kept) or text


def _draw(position: float, fraction: float, test_fraction: float) -> str:
    if position < fraction:
        return VALIDATION
    return TEST if position >= 1.0 - test_fraction else TRAIN


def _position(key: str, seed: int) -> float:
    """A number in [0, 1) from a text and the seed, the same on every machine."""
    digest = sha256(f"{seed}\n{key}".encode()).digest()
    # 53 bits: as many as a float holds exactly, so that 1.0 cannot come out.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
