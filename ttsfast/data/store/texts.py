"""The sentences of utterances, as a person wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ttsfast.data.corpus.listings import listed_texts
from ttsfast.errors import InputError
from ttsfast.files import is_folder

if TYPE_CHECKING:
    from ttsfast.data.store.store import Store


def written_texts(store: Store, corpus: Path | None = None) -> dict[str, str]:
    """The sentences of ``store``'s utterances by id, as far as they can be known.

    A store of letters has them. Those of a store of phonemes are in the listing of its corpus: ``corpus``, or
    where the store says that it was, if one can still be read there.

    Raises:
        InputError: ``corpus`` is no folder with a listing that can be read.
    """
    if not store.frontend.phonemes:
        return {entry.id: entry.text for entry in store.entries}
    layout = str(store.manifest.options["layout"])
    try:
        return listed_texts(corpus or store.manifest.corpus, layout)
    except InputError:
        if corpus is None:
            return {}
        raise


def reference_texts(store: Store, indices: Sequence[int], corpus: Path) -> dict[str, str]:
    """:func:`written_texts` of some utterances, by which they are judged, so that all of them must be known.

    Raises:
        InputError: it is needed of a corpus that is not there, or that has an utterance no more.
    """
    names = [store.entries[i].id for i in indices]
    if store.frontend.phonemes and not is_folder(corpus):
        raise InputError(
            f"{store.path}: its texts are phonemes, and the corpus {corpus}, which has the words, is not "
            "there; name its folder with --corpus"
        )
    listed = written_texts(store, corpus)
    if gone := [name for name in names if name not in listed]:
        raise InputError(
            f"{corpus}: has no utterance {gone[0]!r}, which the store {store.path} was prepared from; name "
            "the corpus as it was with --corpus"
        )
    return {name: listed[name] for name in names}
