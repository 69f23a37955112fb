"""Whether a listing can be meant as it was read: swapped columns give nonsense in good order."""

from __future__ import annotations

from ttsfast.data.corpus.columns import FORMS
from ttsfast.data.corpus.rows import Listing
from ttsfast.data.corpus.suffixes import without_suffix
from ttsfast.errors import InputError

# In fewer lines anything may be.
_LEAST = 4
_LONGEST_NAME = 40
_MOST_WORDS = 4


def check_plausible(listing: Listing, path: str, *, asked: bool) -> None:
    """Raise InputError, one line with the remedy, for a listing whose columns cannot be what its layout says.

    ``asked``: the user named the layout, so that what is merely odd is meant.
    """
    rows = listing.rows
    # Others name what a column is.
    if len(rows) < _LEAST or listing.layout not in FORMS:
        return
    texts = {row.text for row in rows}
    read = f"{path}: read as {listing.layout} ({listing.form})"
    columns = f"give its layout with --layout ({', '.join(FORMS)}), or a header row that names its columns"
    if len(texts) == 1:
        raise InputError(f"{read}, all {len(rows)} texts are {_shown(rows[0].text)}; {columns}")
    paths = sum(without_suffix(text) != text and " " not in text for text in texts)
    if 2 * paths > len(texts):
        raise InputError(f"{read}, its texts are paths, such as {_shown(rows[0].text)}; {columns}")
    if listing.layout not in ("multispeaker", "text-speaker"):
        return
    speakers = {row.speaker for row in rows}
    sentences = [name for name in speakers if len(name.split()) > _MOST_WORDS or _is_long(name)]
    if 2 * len(sentences) > len(speakers):
        raise InputError(f"{read}, its speakers are sentences, such as {_shown(min(sentences))}; {columns}")
    if len(speakers) == len(rows) and not asked:
        raise InputError(
            f"{read}, each of its {len(rows)} lines has another speaker, such as {_shown(rows[0].speaker)}; "
            f"if that is so, say --layout {listing.layout}, else {columns}"
        )


def _is_long(name: str) -> bool:
    return len(name) > _LONGEST_NAME and not name.isascii()


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
