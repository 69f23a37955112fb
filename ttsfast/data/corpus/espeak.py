"""espeak-ng through ctypes: speech for the demo corpus and phonemes for the text front end.

The library and its voices come from the PyPI package ``espeakng-loader``; the system needs nothing.

espeak-ng keeps hidden state from one utterance to the next (pitch flutter, noise, glottal phase), so the
same text spoken twice gives different samples. To speak, the library is therefore loaded afresh, about 4 ms.
Phonemes depend on nothing but the text, and each loading leaves 4 KB behind that espeak-ng never frees: to
read, it stays loaded until another language is read or something is spoken.
"""

from __future__ import annotations

import atexit
import ctypes
import re
import threading
from _ctypes import dlclose
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ttsfast.data.corpus.sentences import ends_no_sentence
from ttsfast.errors import InputError
from ttsfast.progress import track

SAMPLE_RATE = 22050
VOICES = {"en": "en-us", "fa": "fa"}
"""espeak-ng voice per language code; any other code is handed to espeak-ng as it is."""

# Constants of espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_POS_CHARACTER = 1
_PARAMETER_RATE = 1
_PHONEMES_IPA = 0x02
# espeak-ng copies the data folder's path into a buffer of this size.
_LONGEST_DATA_PATH = 150
# Texts that take about a second.
_WORTH_A_BAR = 2000

_LAST_EVENT, _WORD_EVENT = 0, 1


class _Event(ctypes.Structure):
    """espeak_EVENT."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
_lock = threading.Lock()

# A comma or a point between digits belongs to the number.
_PUNCTUATION = re.compile(r"\s*(?:[.,:](?!\d)|(?<!\d)[.,:]|[;!?…،؛؟«»\"“”()\[\]—–])\s*")
# Unicode's normal form puts a vowel before shadda; espeak-ng wants it after, and else reads the mark's name.
_VOWEL_BEFORE_SHADDA = re.compile("([\u064b-\u0650\u0652\u0670]+)\u0651")
# espeak-ng marks a word it reads by another language's rules: "(en)hello(fa)", "(base)". Brackets of the text
# are not in what it is given.
_LANGUAGE_SWITCH = re.compile(r"\([a-z][a-z0-9-]*\)")


def available() -> bool:
    """Whether the package that brings espeak-ng is installed."""
    try:
        import espeakng_loader  # noqa: F401
    except ImportError:
        return False
    return True


@dataclass(frozen=True)
class Spoken:
    """A text as espeak-ng speaks it."""

    samples: np.ndarray
    """(samples,) float32 in [-1, 1] at 22,050 Hz"""
    words: tuple[tuple[int, float], ...]
    """Which word of the text, counted from 0 as spaces part them, begins after how many seconds; of words
    that are run together, such as "in the", only the first is there."""


def speak(text: str, language: str = "en", *, rate: int = 175) -> np.ndarray:
    """The samples of :func:`speak_words`."""
    return speak_words(text, language, rate=rate).samples


def speak_words(text: str, language: str = "en", *, rate: int = 175) -> Spoken:
    """Speak ``text``, the same way every time, and say when each word begins.

    ``rate`` is in words per minute (espeak-ng takes 80 to 450). Raises InputError when espeak-ng is not
    installed, when it has no such voice, or when the text gives no sound.
    """
    if not text.strip():
        raise InputError("there is no text to speak; give at least one word")
    chunks: list[np.ndarray] = []
    marks: list[tuple[int, float]] = []

    def collect(samples: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        number = 0
        while events and events[number].type != _LAST_EVENT:
            if (event := events[number]).type == _WORD_EVENT:
                # It counts characters from 1, and gives the audio's position in whole milliseconds, too.
                marks.append((event.text_position - 1, event.sample / SAMPLE_RATE))
            number += 1
        return 0

    callback = _Callback(collect)
    encoded = _encode(text)
    with _to_speak(language) as library:
        library.espeak_SetSynthCallback(callback)
        library.espeak_SetParameter(_PARAMETER_RATE, rate, 0)
        status = library.espeak_Synth(
            encoded, ctypes.c_size_t(len(encoded)), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None
        )
    if status != 0 or not chunks:
        raise InputError(f"espeak-ng gave no sound for {text!r} in language {language!r}; check the text")
    firsts = [match.start() for match in re.finditer(r"\S+", text)]
    words = tuple((firsts.index(place), seconds) for place, seconds in marks if place in firsts)
    return Spoken(np.concatenate(chunks).astype(np.float32) / 32768.0, words)


def phonemize(texts: Sequence[str], language: str = "en") -> list[str]:
    """Turn each text into IPA with stress marks, words parted by one space.

    Punctuation stays where it was, Persian «،», «؛» and «؟» included: espeak-ng itself would drop it, and it
    is what teaches a voice to pause. A full stop that only shortens a word is read with it. Raises InputError
    when espeak-ng is not installed or lacks the language.
    """
    long = len(texts) > _WORTH_A_BAR
    with _to_read(language) as library:
        todo = track(texts, "reading as phonemes", len(texts)) if long else texts
        return [_phonemize(library, text, language) for text in todo]


def _phonemize(library: ctypes.CDLL, text: str, language: str) -> str:
    text = _VOWEL_BEFORE_SHADDA.sub("\u0651\\1", text)
    pieces = []
    end = 0
    for match in _PUNCTUATION.finditer(text):
        if match.group().strip() == ".":
            before, after = text[end : match.start()], text[match.end() :]
            inside = match.group() == "." and after[:1].isalpha()
            if inside or ends_no_sentence(before, after, language):
                continue
        pieces += [_phonemes_of(library, text[end : match.start()]), match.group()]
        end = match.end()
    pieces.append(_phonemes_of(library, text[end:]))
    return re.sub(r"\s+", " ", "".join(pieces)).strip()


def _phonemes_of(library: ctypes.CDLL, text: str) -> str:
    if not text.strip():
        return ""
    buffer = ctypes.create_string_buffer(_encode(text))
    pointer = ctypes.c_void_p(ctypes.addressof(buffer))
    clauses = []
    # One clause a call; the pointer is advanced and becomes null at the end.
    while pointer.value:
        result = library.espeak_TextToPhonemes(ctypes.byref(pointer), _CHARS_UTF8, _PHONEMES_IPA)
        clauses.append(result.decode("utf-8") if result else "")
    return _LANGUAGE_SWITCH.sub("", " ".join(clauses)).strip()


def _encode(text: str) -> bytes:
    if "\0" in text:
        raise InputError(f"{text!r} holds a NUL character; remove it")
    return text.encode("utf-8") + b"\0"


class _Kept:
    """The library that stays loaded, with the voice it has."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._key: tuple[str, ...] = ()
        self._library: ctypes.CDLL | None = None

    def library(self, language: str) -> ctypes.CDLL:
        """It, with the voice of that language; loaded where it is not."""
        key = language, *_places()
        if self._library is None or self._key != key:
            self.close()
            self._library, self._key = self._stack.enter_context(_loaded(language)), key
        return self._library

    def close(self) -> None:
        """Unload it, where it is loaded."""
        self._library = None
        self._stack.close()


_kept = _Kept()
atexit.register(_kept.close)


@contextmanager
def _to_read(language: str) -> Iterator[ctypes.CDLL]:
    """The library with the voice set; its state is global, so one user at a time."""
    with _lock:
        try:
            yield _kept.library(language)
        except KeyboardInterrupt:
            # A text that was left midway would be gone on with in the next.
            _kept.close()
            raise


@contextmanager
def _to_speak(language: str) -> Iterator[ctypes.CDLL]:
    """Likewise, and as if nothing had been spoken or read before."""
    with _lock:
        # The system would else give the same one again, with its state.
        _kept.close()
        with _loaded(language) as library:
            yield library


def _places() -> tuple[str, str]:
    """Where the library is, and where its data."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise InputError("espeak-ng is not installed; run: pip install 'ttsfast[phonemes]'") from error
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


@contextmanager
def _loaded(language: str) -> Iterator[ctypes.CDLL]:
    """A freshly loaded library with the voice set, unloaded at the end."""
    path, given = _places()
    voice = VOICES.get(language, language)
    with TemporaryDirectory() as temporary:
        data = Path(given)
        if len(str(data).encode()) > _LONGEST_DATA_PATH:
            data = Path(temporary) / "data"
            data.symlink_to(given)
        library = ctypes.CDLL(path)
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        try:
            rate = library.espeak_Initialize(
                _AUDIO_OUTPUT_SYNCHRONOUS, 0, str(data).encode(), _INITIALIZE_DONT_EXIT
            )
            if rate != SAMPLE_RATE:
                raise InputError(f"espeak-ng cannot use its data in {data}; install espeakng-loader again")
            if library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise InputError(f"espeak-ng has no voice {voice!r}; use a code such as 'en', 'fa' or 'de'")
            yield library
            library.espeak_Terminate()
        finally:
            # Unloading is what forgets the state.
            dlclose(library._handle)
