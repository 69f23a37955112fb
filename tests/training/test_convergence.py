from __future__ import annotations

import importlib.util
import itertools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ttsfast.training.convergence import Convergence, certain_trend, swing

WINDOW = 160


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "verdicts.py"
    spec = importlib.util.spec_from_file_location("verdicts_bench", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("story", "least"),
    [
        ("still", 0.8),
        ("still, 150 utterances", 0.8),
        ("falls like a real run", 0.7),
        ("swings by 10% every 12 steps", 0.9),
        ("wanders by 10%", 0.7),
        ("rises by 10% a window", 0.9),
    ],
)
def test_known_truths_are_found(bench: ModuleType, story: str, least: float) -> None:
    """A sample of ``bench/verdicts.py``, of which the record holds more seeds."""
    told = bench.verdicts(bench.STORIES[story], 3, 1200)
    share = Counter(verdict for _, verdict, _ in told)[bench.STORIES[story].truth] / len(told)
    assert share >= least


def test_an_explosion_is_seen_within_a_quarter_of_a_window(bench: ModuleType) -> None:
    told = bench.verdicts(bench.STORIES["rises by 2% a step from step 1,000"], 5, 1050)
    assert [verdict for step, verdict, _ in told if step in (1000, 1050)] == ["plateau", "diverging"]


def judged(losses: Iterable[float], lengths: Iterable[float] | None = None) -> Convergence:
    convergence = Convergence(WINDOW, 0.95)
    for loss, length in zip(losses, itertools.repeat(200.0) if lengths is None else lengths, strict=False):
        convergence.add(loss, length, 1e-3)
    return convergence


def noise(seed: int, size: int = WINDOW, scale: float = 0.02) -> np.ndarray:
    return 1 + scale * np.random.default_rng(seed).normal(size=size)


def test_what_lengths_explain_is_no_swing_and_hides_no_trend() -> None:
    """Lengths in long runs of long and short ones, as by chance they come; most of the noise is theirs."""
    generator = np.random.default_rng(2)
    lengths = np.repeat(generator.uniform(100, 500, WINDOW // 8), 8)
    of_lengths = 0.4 * np.log(lengths / 250)
    assert judged(noise(1) + of_lengths).verdict() == "oscillating"
    assert judged(noise(1) + of_lengths, lengths).verdict() == "plateau"
    falling = np.linspace(0.03, 0.0, WINDOW)
    assert judged(noise(1) + of_lengths + falling).verdict() == "oscillating"
    assert judged(noise(1) + of_lengths + falling, lengths).verdict() == "improving"


def test_single_outliers_move_nothing() -> None:
    losses = noise(4)
    losses[155] *= 50
    assert judged(losses).verdict() == "plateau"
    losses = noise(4) + np.linspace(0.05, 0.0, WINDOW)
    losses[[70, 155]] *= 50
    assert judged(losses).verdict() == "improving"


def test_it_is_warming_until_a_window_is_full_and_again_when_the_rate_is_raised() -> None:
    convergence = judged(noise(6, WINDOW - 1))
    assert convergence.verdict() == "warming"
    convergence.add(1.0, 200.0, 1e-3)
    assert convergence.verdict() == "plateau"
    convergence.add(1.0, 200.0, 1e-4)
    assert convergence.verdict() == "plateau"
    convergence.add(3.0, 200.0, 1e-3)
    assert convergence.verdict() == "warming"


@pytest.mark.parametrize(
    ("held_out", "verdict"),
    [
        ([0.44, 0.40, 0.399, 0.397], "plateau"),
        ([0.44, 0.40, 0.399, 0.397, 0.396], "improving"),
        ([0.40, 0.401, 0.399, 0.4, 0.4005, 0.3995, 0.4, 0.401], "plateau"),
        ([0.40, 0.401, 0.402, 0.403, 0.404, 0.405], "plateau"),
        ([0.40, 0.42, 0.43, 0.44, 0.45, 0.47], "diverging"),
    ],
)
def test_held_out_figures_tell_what_a_flat_window_does_not(held_out: list[float], verdict: str) -> None:
    convergence = judged(noise(7))
    for value in held_out:
        convergence.add_held_out(value)
    assert convergence.verdict() == verdict


def test_learning_by_heart_is_no_improvement() -> None:
    """The training loss falls, the held-out error rises."""
    convergence = judged(noise(8) + np.linspace(0.1, 0.0, WINDOW))
    assert convergence.verdict() == "improving"
    for value in (0.4, 0.401, 0.402, 0.403, 0.404, 0.405):
        convergence.add_held_out(value)
    assert convergence.verdict() == "plateau"


def test_what_a_window_cannot_tell_five_can() -> None:
    losses = noise(9, 5 * WINDOW) * np.exp(-0.008 * np.arange(5 * WINDOW) / WINDOW)
    assert judged(losses[-WINDOW:]).verdict() == "plateau"
    assert judged(losses).verdict() == "improving"


@pytest.mark.parametrize("count", range(7))
def test_a_certain_trend_is_one_in_a_hundred_random_orders(count: int) -> None:
    trends = [certain_trend(order) for order in itertools.permutations(range(count))]
    shares = [trends.count(sign) / len(trends) for sign in (-1, 1)]
    assert shares[0] == shares[1] <= 0.01
    assert (shares[0] > 0) == (count >= 5)


def test_a_trend_is_certain_beside_outliers_and_never_among_equals() -> None:
    assert certain_trend([5, 4, 3, 2, 9, 1, 0, -1]) == -1
    assert certain_trend([1, 2, 3, 99, 4, 5, 6, 7]) == 1
    assert certain_trend([1.0] * 16) == 0


@pytest.mark.parametrize("period", [2, 5, 20, 39])
def test_a_swing_is_the_root_mean_square_of_a_sine(period: int) -> None:
    sine = 0.1 * np.sin(2 * np.pi * (np.arange(160) + 0.5) / period)
    root_mean_square = float(np.sqrt((sine**2).mean()))
    assert swing(1 + sine) == pytest.approx(root_mean_square, rel=0.25)
    assert swing(1 + sine + np.linspace(0, 9, 160)) == pytest.approx(root_mean_square, rel=0.3)


def test_noise_is_no_swing() -> None:
    assert [swing(noise(seed, scale=0.3)) for seed in range(30)] == [0.0] * 30


@pytest.mark.parametrize("window", [32, 33, 200])
def test_any_window_judges(window: int) -> None:
    convergence = Convergence(window, 0.95)
    for step in range(6 * window):
        convergence.add(1 / (step + 30), 100 + 50 * (step % 3), 1e-3)
    assert convergence.verdict() == "improving"


def test_a_state_goes_on_exactly_and_can_be_json() -> None:
    losses = noise(10, 4 * WINDOW) * np.exp(-0.02 * np.arange(4 * WINDOW) / WINDOW)
    whole, part = judged(losses), judged(losses[: 3 * WINDOW + 50])
    part.add_held_out(0.5)
    whole.add_held_out(0.5)
    resumed = Convergence(WINDOW, 0.95)
    resumed.load_state_dict(json.loads(json.dumps(part.state_dict())))
    for loss in losses[3 * WINDOW + 50 :]:
        resumed.add(loss, 200.0, 1e-3)
    assert resumed.state_dict() == whole.state_dict()
    assert len(part.state_dict()["steps"]) == WINDOW


def replayed(name: str, *, rate_is_told: bool = True) -> dict[int, str]:
    """Verdicts by step, every 50 steps, of a log in ``recorded/``: what each file is stands in its README."""
    convergence = Convergence(200, 0.95)
    with np.load(Path(__file__).parent / "recorded" / f"{name}.npz") as log:
        held_out = {int(step): float(error) for step, error in log["held_out"]}
        steps = zip(log["loss"].tolist(), log["length"].tolist(), log["rate"].tolist(), strict=True)
    words = {}
    for step, (loss, length, rate) in enumerate(steps, start=1):
        convergence.add(loss, length, rate if rate_is_told else 1e-3)
        if step in held_out:
            convergence.add_held_out(held_out[step])
        if step % 50 == 0 and (word := convergence.verdict()) != "warming":
            words[step] = word
    return words


@pytest.mark.parametrize("name", ["nano", "nano-prenet-dropout"])
def test_a_recorded_run_that_improves_does_not_oscillate(name: str) -> None:
    words = replayed(name)
    assert len(words) == 15
    assert set(words.values()) == {"improving"}


def test_a_recorded_plateau_is_one() -> None:
    """Of a model too small to learn more after some 700 steps, on the same speech."""
    words = replayed("rate-raised")
    assert [words[step] for step in range(1300, 1601, 50)] == ["plateau"] * 7
    assert "oscillating" not in words.values()


def test_a_recorded_rate_that_is_too_large_diverges() -> None:
    """The same log, as though nobody had raised the rate at steps 1,601 and 2,001 on purpose."""
    words = replayed("rate-raised", rate_is_told=False)
    assert words[1650] == words[2050] == "diverging"
