"""The text front end under its public name: normalisation, symbols, phonemes."""

from ttsfast.data.corpus.text import Symbols, TextFrontend, normalize_text

__all__ = ["Symbols", "TextFrontend", "normalize_text"]
