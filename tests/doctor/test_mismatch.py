"""Wrong texts are heard, in a language whose letters are tones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import soundfile
import torch

from ttsfast.data.checks.check import Row, Subject
from ttsfast.data.checks.finding import NOTE, WARNING, Finding
from ttsfast.doctor import recognizer
from ttsfast.doctor.mismatch import Mismatch

RATE, LETTERS, CLIPS, SECONDS = 22050, "abcdefgh", 90, 0.06


@dataclass(frozen=True)
class Tones:
    """A corpus of them, and what is wrong with it."""

    subject: Subject
    swapped: tuple[str, str]
    cut: str


def spoken(text: str, noise: np.random.Generator) -> np.ndarray:
    """A tone for each letter, a breath for each space."""
    time = np.arange(round(SECONDS * RATE)) / RATE
    tones = [
        0.0 * time if c == " " else 0.3 * np.sin(2 * np.pi * 300 * 1.5 ** LETTERS.index(c) * time)
        for c in text
    ]
    wave = np.concatenate(tones)
    return (wave + 0.01 * noise.standard_normal(len(wave))).astype(np.float32)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Tones:
    """Two texts are swapped, and a recording lacks its last words."""
    folder, random, noise = tmp_path_factory.mktemp("tones"), Random(0), np.random.default_rng(0)
    rows = []
    for number in range(CLIPS):
        text = " ".join("".join(random.choices(LETTERS, k=4)) for _ in range(3))
        wave = spoken(text, noise)
        path = Path(folder) / f"{number}.wav"
        soundfile.write(path, wave[: len(wave) * 10 // 14] if number == 40 else wave, RATE)
        contract = Subject([]).contract
        rows.append(Row(f"{number}", text, text, frames=contract.frames(len(wave)), audio=str(path)))
    first, other = rows[10], rows[20]
    rows[10] = replace(first, text=other.text, symbols=other.text)
    rows[20] = replace(other, text=first.text, symbols=first.text)
    return Tones(Subject(rows), ("10", "20"), "40")


@pytest.fixture(scope="module")
def found(tones: Tones) -> list[Finding]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mismatch, "least", 10.0)
        patch.setattr(recognizer, "STEPS", (60, 60))
        patch.setattr(recognizer, "BATCH_FRAMES", 400)
        before = torch.get_rng_state()
        findings = list(Mismatch().find(tones.subject))
    assert torch.equal(torch.get_rng_state(), before)
    return findings


def test_swapped_texts_are_named_with_their_own(tones: Tones, found: list[Finding]) -> None:
    assert set(found[0].ids) == set(tones.swapped)
    said = {one.id: one.what for one in found[0].evidence}
    first, other = tones.swapped
    assert said[first].startswith(f"it says the text of {other!r}")
    assert said[other].startswith(f"it says the text of {first!r}")


def test_missing_words_are_named(tones: Tones, found: list[Finding]) -> None:
    assert [one.ids for one in found[1:]] == [(tones.cut,)]
    text = next(row.text for row in tones.subject.rows if row.id == tones.cut)
    assert found[1].evidence[0].what == f"{text.split()[2]!r} is not heard at its end"


def test_one_text_for_all_teaches_nothing(tones: Tones, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mismatch, "least", 10.0)
    rows = [replace(row, text="abc", symbols="abc") for row in tones.subject.rows]
    (finding,) = Mismatch().find(Subject(rows))
    assert finding.severity == WARNING
    assert "could not be learned" in finding.what


def test_too_little_to_learn_from_is_said(tones: Tones) -> None:
    (finding,) = Mismatch().find(tones.subject)
    assert finding.severity == NOTE
    assert "too few" in finding.what
