"""What a speech recogniser hears, held against what was to be said.

The recogniser is Whisper (Radford et al., 2022), run by faster-whisper; errors are edit distances, counted by
jiwer. Both, and the normaliser of English, are the extra ``asr`` and are imported when a recogniser is made.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ttsfast.data.corpus.audio import resample_audio
from ttsfast.data.corpus.text import normalize_text
from ttsfast.errors import InputError

SAMPLE_RATE = 16_000
"""Hz, of what Whisper listens to."""

UNSPACED = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})
"""Languages written without spaces between words: each letter counts as one, as in Whisper's own figures."""


@dataclass(frozen=True)
class Heard:
    """What was heard of one utterance, and how far it is from what was to be said."""

    text: str
    """Normalised, as the text it was compared with."""
    word_errors: int
    """Words put in place of others, left out, or added."""
    words: int
    """To be said."""
    character_errors: int
    characters: int
    """To be said, with a space between words."""


class Recogniser:
    """Speech to text in one language, the same text for the same samples."""

    def __init__(self, model: Path | str, language: str, device: torch.device | str = "cpu") -> None:
        """
        Args:
            model: a folder with a Whisper model that was converted for CTranslate2, or a name that
                faster-whisper knows, such as ``small``, which it fetches from the network.
            language: what is spoken, as a store's text front end names it.
            device: where to listen.

        Raises:
            InputError: the extra ``asr`` is not installed, there is no such model, or it does not know the
                language.
        """
        try:
            import jiwer  # noqa: F401
            from faster_whisper import WhisperModel
            from huggingface_hub.utils import HfHubHTTPError

            self.normalise = text_normaliser(language)
        except ImportError as error:
            raise InputError(f"--asr needs the package {error.name}: pip install 'ttsfast[asr]'") from error
        self.name = Path(model).name
        self.language = _base(language)
        self._device = kind = torch.device(device).type
        try:
            self._model = WhisperModel(
                str(model),
                device=kind,
                compute_type="float32" if kind == "cpu" else "default",
                cpu_threads=torch.get_num_threads(),
            )
        except (OSError, RuntimeError, ValueError, HfHubHTTPError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"--asr {model}: no Whisper model for faster-whisper ({reason}); give a folder that holds "
                "one, or a name such as small"
            ) from error
        known = self._model.supported_languages
        if self.language not in known:
            raise InputError(
                f"--asr {model}: it knows {'English alone' if known == ['en'] else 'no such language'}, the "
                f"store's is {language!r}; give another model"
            )

    def __call__(self, wave: np.ndarray, sample_rate: int) -> str:
        """The text, not normalised, of samples (samples,) float32; empty where nothing is heard.

        Raises:
            InputError: the device cannot run the recogniser, which CTranslate2 notices only here.
        """
        if sample_rate != SAMPLE_RATE:
            wave = resample_audio(wave, sample_rate, SAMPLE_RATE)
        # One temperature: the others, for where this one fails, draw at random.
        try:
            segments, _ = self._model.transcribe(
                wave, language=self.language, temperature=0.0, condition_on_previous_text=False
            )
            return "".join(segment.text for segment in segments).strip()
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"--asr {self.name}: cannot listen on {self._device} ({reason}); on a GPU "
                "CTranslate2 needs cuBLAS and cuDNN: install them, or evaluate with --device cpu"
            ) from error

    def compare(self, wave: np.ndarray, sample_rate: int, reference: str) -> Heard:
        """Listen, and count what is wrong.

        Args:
            wave: (samples,) float32.
            sample_rate: in Hz.
            reference: what was to be said, normalised; not empty.
        """
        return count_errors(reference, self.normalise(self(wave, sample_rate)))


def count_errors(reference: str, heard: str) -> Heard:
    """The least substitutions, deletions and insertions that make ``heard`` of ``reference``, in words and in
    characters; both are normalised, and ``reference`` is not empty.
    """
    import jiwer

    words, characters = jiwer.process_words(reference, heard), jiwer.process_characters(reference, heard)
    return Heard(
        text=heard,
        word_errors=words.substitutions + words.deletions + words.insertions,
        words=words.hits + words.substitutions + words.deletions,
        character_errors=characters.substitutions + characters.deletions + characters.insertions,
        characters=characters.hits + characters.substitutions + characters.deletions,
    )


def text_normaliser(language: str) -> Callable[[str], str]:
    """One spelling for what counts as the same words.

    English is Whisper's own normaliser: numbers to digits, contractions written out, American spelling, no
    fillers. Any other language is :func:`plain_words`.
    """
    if _base(language) != "en":
        return lambda text: plain_words(text, _base(language))
    from whisper_normalizer.english import EnglishTextNormalizer

    normalise = EnglishTextNormalizer()
    # Of an ellipsis it leaves a point, which is no word.
    return lambda text: " ".join(word for word in normalise(text).split() if word.strip("."))


def plain_words(text: str, language: str) -> str:
    """The letters, marks and digits of a text in one case, normalised as a corpus' text is; all else parts
    words.

    So does a zero-width non-joiner, for which many write a space. Numbers stay as they are written.
    """
    text = unicodedata.normalize("NFKC", normalize_text(text, language)).casefold()
    words = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text).split()
    return " ".join("".join(words) if language in UNSPACED else words)


def _base(language: str) -> str:
    """The language alone of a tag such as ``en-us``."""
    return language.replace("_", "-").split("-")[0].lower()
