"""The benchmark beside busy neighbours: its figures and its table; never its speed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from ttsfast.benchmarks import neighbours
from ttsfast.benchmarks.neighbours import ADAPTIVE, PLAIN, Turn, busy, summary, table, variants_of
from ttsfast.cli import app


def turns(*speeds: float, threads: int = 2) -> list[Turn]:
    """Of ten seconds."""
    return [Turn(round(10 * speed), 10.0, threads) for speed in speeds]


def test_the_trainer_is_held_to_the_best_number_under_the_usual_policy() -> None:
    found = summary(
        {
            ADAPTIVE: [*turns(5_000), *turns(9_000, 8_000, threads=1)],
            "1 thread": turns(10_000, 1, 10_000),
            "2 threads": turns(4_000, 4_000, 4_000),
            "2 threads, passive": turns(30_000, 30_000, 30_000),
            PLAIN: turns(2_000, 2_000, 50_000),
        }
    )
    assert found["frames_per_second"][ADAPTIVE] == 8_000
    assert found["best_fixed"] == "1 thread"
    assert found["over_best_fixed"] == pytest.approx(0.8)
    assert found["over_plain_loop"] == pytest.approx(4)
    assert found["threads_chosen"] == [2, 1, 1]


@pytest.mark.parametrize(("cores", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_fixed_numbers_go_up_to_all_cores(cores: int, counts: list[int]) -> None:
    usual = [name for name in variants_of(cores) if name.endswith(("thread", "threads"))]
    assert [int(name.split()[0]) for name in usual] == counts


def test_neighbours_are_busy_and_end_with_the_block() -> None:
    with busy(2) as processes:
        assert len(processes) == 2
        assert all(process.poll() is None for process in processes)
    assert all(process.returncode is not None for process in processes)


def test_a_table_shows_every_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the processes: each variant is a number."""

    class Still:
        def __init__(self, variant: str) -> None:
            self.variant = variant

        def __enter__(self):  # type: ignore[no-untyped-def]
            return lambda seconds: Turn(1_000, seconds, 2)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(neighbours, "_process", lambda variant, *_: Still(variant))
    monkeypatch.setattr(neighbours, "make_store", lambda *_: None)
    monkeypatch.setattr(neighbours, "available_cores", lambda: 2)
    result = json.loads(json.dumps(neighbours.run((0, 1), rounds=2)))
    assert set(result["neighbours"]) == {"0", "1"}
    assert result["neighbours"]["1"]["seconds_until_all_threads_again"] == 0
    shown = table(result)
    assert all(variant in shown for variant in variants_of(2))
    assert "all again 0 s after they left" in shown


def test_numbers_that_are_none_are_refused() -> None:
    result = CliRunner().invoke(app, ["bench", "train", "--neighbours", "0,some"])
    assert "0,1,2,4" in str(result.exception)
