"""Which utterances are held out: decided by text, so that it lasts when the corpus grows.

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

TRAIN = "train"
VALIDATION = "validation"


def split_of(
    texts: Iterable[str],
    listed: Sequence[str | None] | None = None,
    *,
    fraction: float = 0.05,
    seed: int = 0,
    known: Mapping[str, str] | None = None,
) -> list[str]:
    """The split ("train" or "validation") of each utterance, given its normalised letters (not phonemes).

    Texts that differ only in punctuation, spaces or case count as one. Of the distinct texts about
    ``fraction`` are held out. ``listed`` holds what the corpus itself says (``CorpusItem.split``) and goes
    before the hash; a text listed on both sides is held out, all of it.

    Two or more texts always leave one held out, that of the smallest hash where none falls below
    ``fraction``, unless ``fraction`` is 0 or the corpus lists its own. When such a corpus grows, no text
    moves from training to validation; only the one held out for want of another may move back.

    For utterances that are added to some which keep their splits, ``known`` has those (``text_key``: split).
    Such a text stays on its side, whatever else is said of it: otherwise it would be on both. Of the others
    none is held out for want of another.

    Raises InputError when ``fraction`` is not in [0, 1) and when nothing is left for training.
    """
    if not 0.0 <= fraction < 1.0:
        raise InputError(f"the validation fraction is {fraction}, must be at least 0 and below 1")
    keys = [text_key(text) for text in texts]
    listed = [None] * len(keys) if listed is None else listed
    if unknown := set(listed) - {None, TRAIN, VALIDATION}:
        raise ValueError(f"unknown split {unknown.pop()!r}")
    held_out = {key for key, split in zip(keys, listed, strict=True) if split == VALIDATION}
    training = {key for key, split in zip(keys, listed, strict=True) if split == TRAIN}
    free = {key: _position(key, seed) for key in keys if key not in held_out and key not in training}
    drawn = {key for key, position in free.items() if position < fraction}
    if known is not None:
        held_out |= drawn
        return [known.get(key, VALIDATION if key in held_out else TRAIN) for key in keys]
    if not held_out and not training:
        if len(free) == 1:
            drawn = set()
        elif free and fraction > 0 and not drawn:
            drawn = {min(free, key=lambda key: (free[key], key))}
    held_out |= drawn
    if keys and held_out.issuperset(keys):
        raise InputError(
            f"all {len(held_out)} distinct texts are held out for validation, none is left for training; "
            "add utterances, or use a smaller validation fraction or another seed"
        )
    return [VALIDATION if key in held_out else TRAIN for key in keys]


def text_key(text: str) -> str:
    """The letters, marks and digits of a text, in one case: what two readings of it share."""
    kept = "".join(c for c in text.casefold() if unicodedata.category(c)[0] in "LMN")
    return unicodedata.normalize("NFC", kept) or text


def _position(key: str, seed: int) -> float:
    """A number in [0, 1) from a text and the seed, the same on every machine."""
    digest = sha256(f"{seed}\n{key}".encode()).digest()
    # 53 bits: as many as a float holds exactly, so that 1.0 cannot come out.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
