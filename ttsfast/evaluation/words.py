"""Words: what was to be said, and what is heard of it in the voice, in the recordings and in their copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ttsfast.evaluation import bootstrap
from ttsfast.evaluation.bootstrap import Interval
from ttsfast.evaluation.figures import Figures
from ttsfast.evaluation.speech_recognition import Heard


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
