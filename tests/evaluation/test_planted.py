"""Voices with a fault that a careless figure would not see: none of them gets a pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from parrot import Corpus, Parrot, make_corpus, voice_of
from tiny_model import TinyModel
from torch import Tensor, nn

from ttsfast.config import ModelConfig
from ttsfast.evaluation.evaluate import evaluate
from ttsfast.evaluation.result import Evaluation
from ttsfast.evaluation.verdict import State
from ttsfast.models.build import build_model
from ttsfast.models.interface import AcousticOutput

HELD_OUT = 40
"""More than the 35 that it takes for a share of utterances."""


@pytest.fixture(scope="module")
def held_out() -> Corpus:
    letters, random = np.array(list("abcdefghij ")), np.random.default_rng(0)
    texts = {"".join(random.choice(letters, random.integers(8, 24))).strip() for _ in range(HELD_OUT + 5)}
    corpus = make_corpus(sorted(texts))
    splits = ["validation"] * HELD_OUT + ["train"] * (len(texts) - HELD_OUT)
    return replace(corpus, splits=splits)


@pytest.fixture(scope="module")
def measure(held_out: Corpus) -> Callable[[nn.Module], Evaluation]:
    def measured(model: nn.Module) -> Evaluation:
        voice = voice_of(held_out, model)
        return evaluate(
            voice,
            held_out,
            untrained=TinyModel(len(held_out.symbols)),
            samples=0,
            worst=0,
            copy_synthesis_utterances=0,
            batch_size=HELD_OUT,
        )

    return measured


@pytest.fixture
def parrot(held_out: Corpus) -> Parrot:
    return Parrot(held_out.utterances)


def states(found: Evaluation) -> dict[str, State | None]:
    return {verdict.name: verdict.state for verdict in found.verdicts}


def test_a_voice_without_fault_passes(measure: Any, parrot: Parrot) -> None:
    parrot.offset = 0.1
    found = measure(parrot)
    assert set(states(found).values()) <= {None, State.PASS, State.WORTHLESS}
    assert found.verdict is State.PASS
    assert found.to_dict()["passed"] is True


def test_an_untrained_model(measure: Any, held_out: Corpus) -> None:
    torch.manual_seed(1)
    found = measure(build_model(ModelConfig(size="nano"), voice_of(held_out, nn.Identity())))
    assert State.PASS not in states(found).values()
    assert found.verdict is not State.PASS


def silence(corpus: Corpus, frames: int) -> Tensor:
    return torch.from_numpy(corpus.silence).expand(frames, -1)


def test_one_that_is_mute(measure: Any, parrot: Parrot, held_out: Corpus) -> None:
    """Its attention, its stop and its teacher-forced mels are perfect."""
    parrot.says = lambda mel: silence(held_out, len(mel))
    found = measure(parrot)
    assert states(found)["heard"] is State.MISSED
    assert states(found)["coverage"] is State.PASS
    assert found.verdict is State.MISSED


def test_one_that_never_stops(measure: Any, parrot: Parrot) -> None:
    parrot.stops = False
    found = measure(parrot)
    assert found.figures["ran_on"] > 0.5
    for name in ("right_length", "duration_error"):
        assert states(found)[name] is State.MISSED, name
    assert found.verdict is State.MISSED


def test_one_that_speaks_the_first_half(measure: Any, parrot: Parrot) -> None:
    """Its attention claims to have read it all, and it ends by itself."""
    parrot.says = lambda mel: mel[: len(mel) // 2]
    found = measure(parrot)
    assert found.figures["cut_short"] == found.figures["stop_rate"] == 1.0
    for name in ("right_length", "duration_error"):
        assert states(found)[name] is State.MISSED, name
    assert states(found)["heard"] is not State.PASS
    assert found.verdict is State.MISSED


def test_one_that_speaks_the_first_half_and_is_silent_for_the_rest(
    measure: Any, parrot: Parrot, held_out: Corpus
) -> None:
    parrot.says = lambda mel: torch.cat([mel[: len(mel) // 2], silence(held_out, len(mel) - len(mel) // 2)])
    found = measure(parrot)
    assert states(found)["duration_error"] is State.PASS
    assert states(found)["heard"] is State.MISSED
    assert found.verdict is State.MISSED


def test_one_that_says_something_else(measure: Any, parrot: Parrot, held_out: Corpus) -> None:
    parrot.says = lambda mel: mel.flip(0)
    found = measure(parrot)
    assert states(found)["heard"] is State.MISSED
    assert found.verdict is State.MISSED


def test_one_that_knows_its_durations_has_no_stop_rate(measure: Any, parrot: Parrot) -> None:
    forward = parrot.forward

    def without_stop(*inputs: Tensor, speaker: Tensor) -> AcousticOutput:
        return replace(forward(*inputs, speaker=speaker), stop_logits=None)

    parrot.forward = without_stop
    found = measure(parrot)
    assert "stop_rate" not in found.figures
    assert found.to_dict()["stop_rate"] is None
    assert found.verdict is State.PASS
