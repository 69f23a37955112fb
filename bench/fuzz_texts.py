"""Texts of all kinds, at length: python bench/fuzz_texts.py --output bench/results/fuzz-texts.json

Words, numbers, dates, money, abbreviations, quotes, marks of direction, emoji, halves of characters, and
texts of many sentences in ten languages are read by a voice of letters whose model reads a symbol a step;
for some texts it is told to stop early, never to stop, or not to come to the end. Every case must end

- in one line that names the symbol or the text, with no file written;
- or with each sentence whole: what was spoken has the letters of what the whole text reads, in order;
- or in an utterance that says what was not read, and has no file.

Exit code 1, with the case, if anything is not as promised.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ttsfast.data.corpus.spelling import Spelling
from ttsfast.errors import InputError
from ttsfast.models.voice import Voice
from ttsfast.synthesis.lines import given_lines
from ttsfast.synthesis.reader import Reader
from ttsfast.synthesis.speech import write_speech
from ttsfast.synthesis.vocoder import Vocoder

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from fuzz_corpora import record_cases
from voices import walking_voice

LETTERS = {
    "en": "abcdefghijklmnopqrstuvwxyz",
    "de": "abcdefghijklmnopqrstuvwxyzäöüß",
    "fr": "abcdefghijklmnopqrstuvwxyzàâæçéèêëîïôœùûüÿ",
    "tr": "abcçdefgğhıijklmnoöprsştuüvyzqwx",
    "es": "abcdefghijklmnopqrstuvwxyzáéíñóúü",
    "fa": "آابپتثجچحخدذرزژسشصضطظعغفقکگلمنوهیءئؤأٔ\u200c",
    "ru": "абвгдежзийклмнопрстуфхцчшщъыьэюяё",
    "el": "αβγδεζηθικλμνξοπρστυφχψωςάέήίόύώϊϋΐΰ",
    "hi": "अआइईउऊएऐओऔकखगघचछजझटठडढणतथदधनपफबभमयरलवशषसहाािीुूृेैोौ्ंँः़",
    "zh": "你好今天很是吗我们他的书在这里",
}
MARKS = " .,!?;:'\"()-—«»،؛؟।。！？"
WORDS = {
    "en": [
        "the",
        "Dr.",
        "Mrs. Hill",
        "5 p.m.",
        "U.S.",
        "e.g.",
        "Rock'n'roll",
        "$3.50",
        "1st",
        "No. 5",
        "50%",
    ],
    "de": ["Straße", "z.B.", "3. Mai", "Größe", "12,5 €", "ÜBER", "d.h."],
    "fr": ["l'été", "M. Dupont", "œuvre", "3 500 €", "Voilà\u00a0!", "1er"],
    "tr": ["IŞIK", "İstanbul", "ılık", "3. kat", "%20"],
    "es": ["¿Qué?", "niño", "Sr. Ruiz", "1.500 €", "n.º 4"],
    "fa": ["کتاب", "می‌رود", "۳٫۵", "۱۲٬۵۰۰", "دکتر م. رضایی", "ه.ش.", "خانهٔ", "كتاب ي", "مُدَّت"],
    "ru": ["Проф. Иванов", "т.е.", "ёлка", "5 руб.", "Москва"],
    "el": ["Τι κάνεις;", "ΟΔΟΣ", "άνθρωπος", "κ. Νίκος"],
    "hi": ["नमस्ते।", "क़लम", "हैं?", "डॉ. शर्मा"],
    "zh": ["你好。", "今天很好！", "是吗？", "我们"],
}
TAME = [
    *"0123456789.,!?;:'\"()$€%-", *"٠٣۳६½…—‘’“”«»،؛؟٪٬٫",
    "\n", "\n\n", "\u00a0", "\u200b", "\u200c", "\u202e",
    "2024-03-15", "12:30", "1,234.56", "1990s", "9" * 30, "...", "?!", "Mr.", "IV", "3/4", "20°C", "1-2",
]  # fmt: skip
WILD = [
    *TAME, *"[]{}<>/\\|#@&£°+=*_~^`²™©–„–", "\t", "\r\n", "\u200d", "\u200e", "\ufeff", "\u00ad", "\x00",
    "\x07", "ﬁ", "Ａ", "а", "e\u0301", "\u0301", "🙂", "👩‍👩‍👧", "한", "[[", "]]", "[[a]]", "\udcff", "1e9",
    "http://a.b/c?d=e", "x@y.org",
]  # fmt: skip
FATES = ("whole", "whole", "whole", "stops early", "never stops", "never ends")
HOP = 256
"""Samples of a frame, of a vocoder that makes silence of each."""


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, str, str, str]:
    """Language, text, what the model does with it, and what unknown symbols do."""
    language = draw(st.sampled_from(sorted(LETTERS)))
    signs = draw(st.sampled_from([TAME, TAME, WILD]))
    word = st.one_of(
        st.sampled_from(WORDS[language]),
        st.sampled_from(WORDS[language]),
        st.text(st.sampled_from(LETTERS[language] + LETTERS[language].upper()), min_size=1, max_size=9),
        st.lists(st.sampled_from(signs), max_size=4).map("".join),
        st.sampled_from(signs),
        st.text(max_size=3 if signs is WILD else 0),
    )
    end = st.sampled_from([" ", " ", " ", "", ". ", ".", "! ", "? ", ", ", "\n\n", "。"])
    text = "".join(a + b for a, b in draw(st.lists(st.tuples(word, end), min_size=1, max_size=40)))
    return (
        language,
        text,
        draw(st.sampled_from(FATES)),
        draw(st.sampled_from(["error", "skip", "skip", "skip"])),
    )


def voice_of(language: str, fate: str) -> Voice:
    """A voice of that language's letters."""
    early = fate == "stops early"
    return walking_voice(
        stop=lambda symbols: None if fate == "never stops" else max(1, symbols // 2 if early else symbols),
        last=(lambda symbols: max(0, symbols - 6)) if fate in ("never ends", "never stops") else None,
        characters=LETTERS[language] + MARKS,
        language=language,
    )


def letters(text: str) -> str:
    """What must not be lost."""
    return "".join(character for character in text if character.isalnum())


def run(count: int) -> Counter[str]:
    """How many cases ended in what; raises what is not as promised."""
    outcomes: Counter[str] = Counter()
    voices = {(language, fate): voice_of(language, fate) for language in LETTERS for fate in set(FATES)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "spoken"

        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(cases())
        def each(case: tuple[str, str, str, str]) -> None:
            language, text, fate, unknown = case
            try:
                outcomes[_case(folder, voices[language, fate], text, fate, unknown)] += 1
            except Exception as error:
                raise AssertionError(f"{case!a}: {str(error)!a}") from error

        each()
    return outcomes


def _case(folder: Path, voice: Voice, text: str, fate: str, unknown: str) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    spelling = Spelling(unknown=unknown)
    vocoder = Vocoder("silence", voice.contract, lambda mel: np.zeros(HOP * mel.shape[-1], np.float32))
    reader = Reader(voice=voice, vocoder=vocoder, spelling=spelling)
    try:
        (entry,) = write_speech(reader, given_lines([text]), folder)
    except InputError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert "\n" not in refusal, "more than one line"
        assert not folder.exists(), "refused, and something was written"
        return "refused"
    sentences = entry["sentences"]
    for sentence in sentences:
        made = spelling(sentence["text"], "text", voice.frontend, voice.symbols)
        assert sentence["spoken"] == made, f"{sentence['spoken']} for {made}"
    whole, spoken = (
        letters(part)
        for part in (
            spelling(text, "text", voice.frontend, voice.symbols),
            "".join(sentence["spoken"] for sentence in sentences),
        )
    )
    # "2." is an ordinal within a sentence, and a number at its end.
    if not any(character.isdecimal() for character in text):
        assert spoken == whole, f"spoken {spoken}, whole {whole}"
    if fate == "whole" and all(len(sentence["spoken"]) <= voice.max_frames for sentence in sentences):
        assert not entry["fault"], entry["fault"]
    if entry["fault"]:
        assert entry["file"] is None
        assert [path.name for path in folder.iterdir()] == ["speech.json"], "an unread text has a file"
        return "said not to be whole"
    assert all(sentence["read"] == 1.0 for sentence in sentences)
    return "spoken"


if __name__ == "__main__":
    sys.exit(record_cases(run, __doc__ or ""))
