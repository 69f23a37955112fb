"""The split: stable when the corpus grows, no text on both sides, the corpus's own list honoured."""

import random

import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from ttsfast.data.corpus.split import TEST, TRAIN, VALIDATION, split_of, text_key
from ttsfast.errors import InputError

SENTENCES = [f"sentence number {number}" for number in range(4000)]


def test_the_fraction_is_kept_in_expectation() -> None:
    for fraction in (0.01, 0.05, 0.3):
        held = split_of(SENTENCES, fraction=fraction).count(VALIDATION)
        deviation = (len(SENTENCES) * fraction * (1 - fraction)) ** 0.5
        assert abs(held - len(SENTENCES) * fraction) < 4 * deviation


def test_the_split_is_the_same_on_every_machine_and_follows_the_seed() -> None:
    # Written down once: a change of the hash would hand trained texts to validation.
    assert [n for n, split in enumerate(split_of(SENTENCES[:60])) if split == VALIDATION] == [8, 38, 44]
    assert split_of(SENTENCES, seed=1) != split_of(SENTENCES, seed=0)
    tested = split_of(SENTENCES[:60], test_fraction=0.1)
    assert [n for n, split in enumerate(tested) if split == TEST] == [10, 15, 22, 35, 37, 41]


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.3])
def test_validation_and_test_do_not_move_each_other(fraction: float) -> None:
    without = split_of(SENTENCES, fraction=fraction)
    tested = split_of(SENTENCES, fraction=fraction, test_fraction=0.1)
    assert 320 < tested.count(TEST) < 480
    assert all(new == old for new, old in zip(tested, without, strict=True) if new != TEST)
    assert VALIDATION not in {old for new, old in zip(tested, without, strict=True) if new == TEST}


@given(st.lists(st.integers(0, 300), min_size=2, max_size=40), st.integers(0, 40), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_growth_never_holds_a_trained_text_out(numbers: list[int], cut: int, seed: int) -> None:
    texts = [f"text {number}" for number in numbers]
    before = texts[: max(2, min(cut, len(texts)))]
    assume(len(set(before)) > 1)
    try:
        drawn = split_of(before, fraction=0.1, test_fraction=0.2, seed=seed)
        small = dict(zip(before, drawn, strict=True))
    except InputError:
        # So few texts that all were drawn.
        reject()
    drawn = split_of(texts, fraction=0.1, test_fraction=0.2, seed=seed)
    grown = dict(zip(texts, drawn, strict=True))
    moved = [text for text in small if small[text] != grown[text]]
    assert all(small[text] == VALIDATION for text in moved)
    # Only the one that was held out for want of another.
    assert len(moved) <= 1
    if moved:
        assert list(small.values()).count(VALIDATION) == 1


def test_order_and_repetition_do_not_matter() -> None:
    expected = dict(zip(SENTENCES, split_of(SENTENCES), strict=True))
    shuffled = SENTENCES + SENTENCES[::3]
    random.Random(0).shuffle(shuffled)
    assert dict(zip(shuffled, split_of(shuffled), strict=True)) == expected


def test_readings_of_one_text_stay_together() -> None:
    texts = [f"sentence {number // 4}" + ["", ".", "!", " ,"][number % 4] for number in range(800)]
    splits = split_of(texts, fraction=0.3)
    assert {TRAIN, VALIDATION} == set(splits)
    for start in range(0, 800, 4):
        assert len(set(splits[start : start + 4])) == 1


def test_two_texts_are_enough_to_hold_one_out() -> None:
    for seed in range(200):
        assert sorted(split_of(["one", "two"], fraction=0.001, seed=seed)) == [TRAIN, VALIDATION]
        assert split_of(["one", "One.", "one"], fraction=0.9, seed=seed) == [TRAIN] * 3
    assert split_of(["one", "two", "three"], fraction=0.0) == [TRAIN] * 3
    assert split_of([]) == []


def test_the_corpus_own_list_goes_before_the_hash() -> None:
    listed = [VALIDATION if number % 7 == 0 else TRAIN for number in range(100)]
    assert split_of(SENTENCES[:100], listed, fraction=0.5) == listed
    # A list without a held-out text is a list all the same.
    assert split_of(["a", "b"], [TRAIN, TRAIN], fraction=0.5) == [TRAIN, TRAIN]
    mixed = split_of(SENTENCES[:100], [TRAIN, VALIDATION] + [None] * 98, fraction=0.3)
    assert mixed[:2] == [TRAIN, VALIDATION]
    assert mixed[2:] == split_of(SENTENCES[:100], fraction=0.3)[2:]


def test_what_is_added_is_drawn_and_what_is_known_stays() -> None:
    known = {text_key(text): split for text, split in zip(SENTENCES, [TEST, TRAIN, VALIDATION], strict=False)}
    drawn = split_of(SENTENCES[:60], test_fraction=0.1, known=known)
    assert drawn[:3] == [TEST, TRAIN, VALIDATION]
    assert drawn[3:] == split_of(SENTENCES[:60], test_fraction=0.1)[3:]


def test_a_text_listed_on_both_sides_is_held_out_whole() -> None:
    texts = ["Call her.", "call her", "another", "call her!"]
    assert split_of(texts, [TRAIN, VALIDATION, TRAIN, None]) == [VALIDATION, VALIDATION, TRAIN, VALIDATION]
    # What reports goes before what chooses.
    assert split_of(texts, [TEST, VALIDATION, TRAIN, None]) == [TEST, TEST, TRAIN, TEST]


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_an_impossible_fraction_is_named(fraction: float) -> None:
    with pytest.raises(InputError, match="validation_fraction is"):
        split_of(["a", "b"], fraction=fraction)
    with pytest.raises(InputError, match=r"test_fraction 0\.5"):
        split_of(["a", "b"], fraction=0.5, test_fraction=0.5)


def test_nothing_left_for_training_is_an_error() -> None:
    with pytest.raises(InputError, match="all 2 distinct texts"):
        split_of(["a", "b"], [VALIDATION, VALIDATION])
    with pytest.raises(ValueError, match="'dev'"):
        split_of(["a", "b"], [TRAIN, "dev"])


def test_text_keys() -> None:
    assert text_key("Don't  stop, now!") == text_key("dont stop now") == "dontstopnow"
    assert text_key("می\u200cروم؛") == text_key("میروم") != text_key("می\u200cروی")
    assert text_key("خانهٔ من") != text_key("خانه من")
    assert text_key("?!") == "?!"
