"""Every planted fault is found, by its own check first, at the severity that was written down for it."""

from __future__ import annotations

from functools import cache
from random import Random

import audio_faults
import numpy as np
import pairing_faults
import pytest
import text_faults
from further_faults import FURTHER
from spoken import FAULTS, Fault, clean, subject

from ttsfast.data.checks.durations import Pace
from ttsfast.data.checks.run import run_checks

PLANTED = (audio_faults, pairing_faults, text_faults)
# Each fault in one of its languages, by turns.
CASES = [(fault, fault.languages[n % len(fault.languages)]) for n, fault in enumerate(FAULTS)]
# Of the further ones, those that were not found at first, and are now.
MENDED = ("the_texts_of_a_paragraph_in_one", "ids_for_texts", "utf8_read_as_windows_1256")
CASES += [(fault, fault.languages[-1]) for fault in FURTHER if fault.name in MENDED]


@cache
def found_in_clean(language: str) -> frozenset[tuple[str, str]]:
    return frozenset((f.check, f.severity) for f in run_checks(subject(clean(language))).findings)


@pytest.mark.parametrize("language", ["en", "fa"])
def test_a_clean_corpus_has_one_warning(language: str) -> None:
    """Two minutes of speech are little."""
    findings = run_checks(subject(clean(language))).findings
    assert [(f.severity, f.check) for f in findings if f.severity != "note"] == [("warning", "little data")]


@pytest.mark.parametrize(("fault", "language"), CASES, ids=[f"{f.name}-{lang}" for f, lang in CASES])
def test_fault_is_found(fault: Fault, language: str) -> None:
    before = found_in_clean(language)
    findings = run_checks(subject(fault.plant(clean(language), Random(fault.name)))).findings
    new = [(f.check, f.severity) for f in findings if (f.check, f.severity) not in before]
    assert (fault.check, fault.severity) in new
    assert new[0][0] == fault.check, "another cause comes first"


def test_a_page_of_text_does_not_set_the_pace() -> None:
    """Four hundred letters with a recording of two seconds, among forty sentences."""
    random = np.random.default_rng(0)
    words = random.integers(3, 12, 40)
    counts = np.column_stack([5 * words + random.integers(-3, 4, 40), words, np.ones(40)]).astype(float)
    seconds = (0.2 + counts @ [0.07, 0.02, 0.1]) * random.uniform(0.95, 1.05, 40)
    counts, seconds = np.vstack([counts, [400.0, 80.0, 8.0]]), np.append(seconds, 2.0)
    found = Pace.of(counts, seconds)
    assert found.scatter < 0.06
    assert found.expected(counts[-1:])[0] > 20
