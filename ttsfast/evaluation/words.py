"""Words: what was to be said, and what is heard of it in the voice, in the recordings and in their copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttsfast.data.corpus.listings import read_corpus
from ttsfast.errors import InputError
from ttsfast.evaluation import bootstrap
from ttsfast.evaluation.bootstrap import Interval
from ttsfast.evaluation.figures import Figures
from ttsfast.evaluation.speech_recognition import Heard

if TYPE_CHECKING:
    from ttsfast.data.store.store import Store


@dataclass(frozen=True)
class Words:
    """What a recogniser heard of some utterances, by the kind of speech and by utterance."""

    recogniser: str
    language: str
    references: Mapping[str, str]
    """By utterance, what was to be said, normalised. Not empty, nor is any of them."""
    heard: Mapping[str, Mapping[str, Heard]]
    """By ``free_running``, ``copy_synthesis`` and, where the recordings are at hand, ``natural``."""

    def figures(self, kind: str) -> Figures:
        """``word_error`` and ``character_error`` of one kind of speech, over words and over characters."""
        figures = Figures()
        for utterance, heard in self.heard[kind].items():
            figures.add("word_error", utterance, heard.word_errors / heard.words, heard.words)
            characters = heard.character_errors / heard.characters
            figures.add("character_error", utterance, characters, heard.characters)
        return figures

    def error(self, kind: str, name: str) -> tuple[float, Interval]:
        """One of :meth:`figures`, and where it lies, over utterances drawn anew."""
        figures = self.figures(kind)
        terms = figures.terms(name).values()
        errors, counts = [t.value * t.weight for t in terms], [t.weight for t in terms]
        return figures[name], bootstrap.interval(errors, counts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: errors with their intervals by kind of speech, and every utterance's words."""
        return {
            "recogniser": self.recogniser,
            "language": self.language,
            **{
                name: {kind: self._plain(kind, name) for kind in self.heard}
                for name in ("word_error", "character_error")
            },
            "by_utterance": {
                utterance: {
                    "text": text,
                    **{kind: asdict(heard[utterance]) for kind, heard in self.heard.items()},
                }
                for utterance, text in self.references.items()
            },
        }

    def _plain(self, kind: str, name: str) -> dict[str, Any]:
        value, interval = self.error(kind, name)
        return {"value": value, "interval": list(interval)}


def written_texts(store: Store, indices: Sequence[int], corpus: Path) -> dict[str, str]:
    """What a person wrote for utterances of ``store``, by id.

    A store of letters has it. One of phonemes has only those, so it is read from the corpus.

    Raises:
        InputError: it is needed of a corpus that is not there, or that has an utterance no more.
    """
    names = [store.entries[i].id for i in indices]
    if not store.frontend.phonemes:
        return {name: store.entries[i].text for name, i in zip(names, indices, strict=True)}
    if not corpus.is_dir():
        raise InputError(
            f"{store.path}: its texts are phonemes, and the corpus {corpus}, which has the words, is not "
            "there; name its folder with --corpus"
        )
    listed = {item.id: item.text for item in read_corpus(corpus, str(store.manifest.options["layout"])).items}
    if gone := [name for name in names if name not in listed]:
        raise InputError(
            f"{corpus}: has no utterance {gone[0]!r}, which the store {store.path} was prepared from; name "
            "the corpus as it was with --corpus"
        )
    return {name: listed[name] for name in names}
