"""A small synthetic corpus in LJ Speech layout, spoken by espeak-ng or flite, for demos and tests.

Few words in simple frames: a model of two million parameters learns to speak them in minutes on a CPU, and a
held-out sentence still has to be read, since its words never came in that order.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ttsfast.data.corpus.audio import read_audio, sounding, write_wav
from ttsfast.data.corpus.espeak import SAMPLE_RATE, Spoken, available, speak_words
from ttsfast.data.corpus.word_times import NAME as WORD_TIMES
from ttsfast.data.corpus.word_times import write_word_times
from ttsfast.errors import InputError
from ttsfast.files import atomic_write
from ttsfast.progress import track

ENGINES = ("espeak", "flite")
_MARKER = "demo_corpus.json"
_WORDS_PER_MINUTE = 190

_WORDS: dict[str, dict[str, list[str]]] = {
    "en": {
        "digit": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
        "number": ["two", "three", "four", "five", "six", "seven", "ten", "eleven", "twelve", "twenty"],
        "day": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
        "colour": ["red", "green", "blue", "white", "black", "yellow"],
        "noun": ["book", "house", "tree", "apple", "car", "door", "bird", "horse"],
        "person": ["my mother", "my father", "the teacher", "our friend", "the child"],
        "verb": ["sees", "has", "wants", "finds", "likes"],
        "place": ["garden", "city", "kitchen", "school", "street"],
    },
    "fa": {
        "digit": ["صفر", "یک", "دو", "سه", "چهار", "پنج", "شش", "هفت", "هشت", "نه"],
        "number": ["دو", "سه", "چهار", "پنج", "شش", "هفت", "ده", "یازده", "دوازده", "بیست"],
        "day": ["شنبه", "یکشنبه", "دوشنبه", "سه\u200cشنبه", "چهارشنبه", "پنج\u200cشنبه", "جمعه"],
        "colour": ["سرخ", "سبز", "آبی", "سفید", "سیاه", "زرد"],
        "noun": ["کتاب", "خانه", "درخت", "سیب", "ماشین", "پنجره", "گل", "اسب"],
        "person": ["مادر من", "پدر من", "معلم", "دوست ما", "کودک"],
        "verb": ["می\u200cبیند", "دارد", "می\u200cخواهد", "می\u200cخرد", "می\u200cفروشد"],
        "place": ["باغ", "شهر", "آشپزخانه", "مدرسه", "خیابان"],
    },
}
_FRAMES: dict[str, list[str]] = {
    "en": [
        "{digit} {digit} {digit} {digit}.",
        "{digit} {digit} {digit} {digit}, {digit}.",
        "{digit} {digit} {digit}, {digit} {digit} {digit} {digit}.",
        "{day}, at {number}.",
        "{person} {verb} the {colour} {noun}.",
        "{person} {verb} {number} {colour} {noun}s.",
        "on {day} {person} {verb} the {noun}.",
        "the {colour} {noun} is in the {place}.",
        "where is the {colour} {noun}?",
        "on {day} {person} {verb} {number} {noun}s and {number} {noun}s.",
        "is the {noun} in the {place}, or in the {place}?",
        "{person} {verb} the {colour} {noun}, and {person} {verb} the {colour} {noun}.",
    ],
    "fa": [
        "{digit} {digit} {digit} {digit}.",
        "{digit} {digit} {digit} {digit}، {digit}.",
        "{digit} {digit} {digit}، {digit} {digit} {digit} {digit}.",
        "{day}، ساعت {number}.",
        "{person} {noun} {colour} {verb}.",
        "{person} {number} {noun} {colour} {verb}.",
        "{day} {person} {noun} {verb}.",
        "{noun} {colour} در {place} است.",
        "آیا {noun} {colour} در {place} است؟",
        "{day} {person} {number} {noun} و {number} {noun} {verb}.",
        "{person} {day} به {place} می\u200cرود؛ {day} به {place}.",
        "{person} {noun} {colour} {verb}، و {person} {noun} {colour} {verb}.",
    ],
}
LANGUAGES = tuple(_FRAMES)


@dataclass(frozen=True)
class DemoCorpus:
    """What a demo corpus folder holds."""

    folder: Path
    utterances: int
    held_out: int
    seconds: float
    """Audio in all, held-out utterances included."""
    written: int
    """Recordings this call made; 0 when the folder was complete."""


@dataclass(frozen=True)
class _Recipe:
    """All that shapes the corpus; kept in the folder so that a later call knows whether it may finish it."""

    language: str
    utterances: int
    held_out: int
    seed: int
    engine: str
    version: int = 1


def demo_sentences(language: str, utterances: int, held_out: int, seed: int) -> tuple[list[str], list[str]]:
    """The texts (training, held-out): all distinct; every held-out word occurs in training.

    A pure function of its arguments. Raises InputError for an unknown language or impossible counts.
    """
    if language not in _FRAMES:
        raise InputError(f"no demo corpus in language {language!r}; use one of {', '.join(LANGUAGES)}")
    if utterances < 1 or held_out < 0:
        raise InputError(
            f"a demo corpus needs utterances >= 1 and held_out >= 0, got {utterances}, {held_out}"
        )
    generator = random.Random(f"{language} {seed}")
    training: list[str] = []
    held: list[str] = []
    seen: set[str] = set()
    words: set[str] = set()
    draws = 0
    while len(training) < utterances or len(held) < held_out:
        draws += 1
        if draws > 1000 + 100 * (utterances + held_out):
            raise InputError(
                f"found no {utterances} + {held_out} distinct sentences with the held-out words in training; "
                "use more utterances or fewer held-out ones"
            )
        sentence = _sentence(language, generator)
        if sentence in seen or (len(training) == utterances and not _words_of(sentence) <= words):
            continue
        seen.add(sentence)
        if len(training) < utterances:
            training.append(sentence)
            words |= _words_of(sentence)
        else:
            held.append(sentence)
    return training, held


def write_demo_corpus(
    folder: Path | str,
    language: str = "en",
    *,
    utterances: int = 520,
    held_out: int = 40,
    seed: int = 0,
    engine: str = "espeak",
) -> DemoCorpus:
    """Write ``metadata.csv``, ``validation.txt`` (held-out ids) and ``wavs/`` (22,050 Hz, 16-bit, trimmed);
    of espeak-ng's speech also ``words.json``, which says when each word begins.

    The same arguments give the same bytes. Each file appears complete or not at all and ``metadata.csv``
    comes last, so a call after an interruption makes what is missing and a call on a complete folder does
    nothing. Raises InputError when the engine is missing, and when the folder holds anything but this corpus.
    """
    folder = Path(folder)
    recipe = _Recipe(language, utterances, held_out, seed, engine)
    training, held = demo_sentences(language, utterances, held_out, seed)
    synthesise = _engine(engine, language)
    _claim(folder, recipe)
    texts = {f"{language}-{number:04d}": text for number, text in enumerate(training + held, start=1)}
    (folder / "wavs").mkdir(exist_ok=True)
    missing = [name for name in texts if not (folder / "wavs" / f"{name}.wav").is_file()]
    timed = engine != "espeak" or (folder / WORD_TIMES).is_file()
    todo = missing if timed else list(texts)
    starts = {}
    for name in track(todo, f"speaking ({engine})", len(todo)) if todo else ():
        spoken = synthesise(texts[name])
        part = sounding(spoken.samples, SAMPLE_RATE)
        # An engine may start and end in mid-sound; a short silence gives the stop token something to see.
        silence = SAMPLE_RATE // 50
        wave, path = np.pad(spoken.samples[part], silence), folder / "wavs" / f"{name}.wav"
        if name in missing:
            write_wav(path, wave, SAMPLE_RATE)
        elif _samples_in(path) != len(wave):
            continue  # Another version of the engine spoke it.
        shift = (silence - part.start) / SAMPLE_RATE
        starts[name] = [(word, max(0.0, seconds + shift)) for word, seconds in spoken.words]
    if not timed:
        write_word_times(folder, starts)
    _write_once(folder / "validation.txt", "".join(f"{name}\n" for name in list(texts)[len(training) :]))
    _write_once(folder / "metadata.csv", "".join(f"{name}|{text}|{text}\n" for name, text in texts.items()))
    return DemoCorpus(folder, len(training), len(held), _seconds(folder, texts), len(missing))


def _sentence(language: str, generator: random.Random) -> str:
    def pick(options: list[str]) -> str:
        # random() alone is promised to give the same numbers in every Python version.
        return options[int(generator.random() * len(options))]

    words = _WORDS[language]
    parts = pick(_FRAMES[language]).split("{")
    text = parts[0]
    for part in parts[1:]:
        kind, rest = part.split("}")
        text += pick(words[kind]) + rest
    return text[0].upper() + text[1:]


def _words_of(sentence: str) -> set[str]:
    return {word.strip(".,?،؛؟").lower() for word in sentence.split()}


def _claim(folder: Path, recipe: _Recipe) -> None:
    """Mark the folder as this corpus, or raise InputError when it already is something else."""
    marker = folder / _MARKER
    expected = json.dumps(asdict(recipe), indent=2) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    if marker.is_file():
        if marker.read_text(encoding="utf-8") != expected:
            raise InputError(
                f"{folder}: holds a demo corpus of other settings ({_MARKER}); use another folder"
            )
    elif any(folder.iterdir()):
        raise InputError(f"{folder}: holds other files; give the demo corpus a folder of its own")
    else:
        _write_once(marker, expected)


def _write_once(path: Path, text: str) -> None:
    content = text.encode("utf-8")
    if not path.is_file() or path.read_bytes() != content:
        with atomic_write(path) as handle:
            handle.write(content)


def _seconds(folder: Path, texts: dict[str, str]) -> float:
    return sum(_samples_in(folder / "wavs" / f"{name}.wav") for name in texts) / SAMPLE_RATE


def _samples_in(path: Path) -> int:
    import soundfile

    return int(soundfile.info(path).frames)


def _engine(engine: str, language: str) -> Callable[[str], Spoken]:
    """The function that speaks a text."""
    if engine == "espeak":
        if not available():
            raise InputError("the demo corpus needs espeak-ng; run: pip install -e '.[demo]'")
        return lambda text: speak_words(text, language, rate=_WORDS_PER_MINUTE)
    if engine == "flite":
        if language != "en":
            raise InputError(f"flite speaks English only, not {language!r}; use the espeak engine")
        binary = shutil.which("flite")
        if binary is None:
            raise InputError(
                "flite is not installed (Debian: apt install flite); use the espeak engine instead"
            )
        return lambda text: Spoken(_flite(binary, text), ())
    raise InputError(f"unknown speech engine {engine!r}; use one of {', '.join(ENGINES)}")


def _flite(binary: str, text: str) -> np.ndarray:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "speech.wav"
        run = subprocess.run(
            [binary, "-voice", "slt", "-t", text, "-o", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != 0 or not path.is_file():
            raise InputError(
                f"flite failed on {text!r} ({' '.join(run.stderr.split())}); use the espeak engine"
            )
        return read_audio(path, SAMPLE_RATE, resample=True)
