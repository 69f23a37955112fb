"""The plan: every utterance once, pure, cut alike for every rank, within the budget, mixed every epoch.

Mutants that these tests were seen to kill: the last utterance of an epoch dropped; a budget that counts valid
frames; ranks dealt in one direction only; sizes that are whole multiples of the number of ranks only; a
rotation that starts anew each epoch; quotas rounded down.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttsfast.data.loading.batch import padded_length
from ttsfast.data.loading.plan import BatchPlan, Cursor
from ttsfast.errors import InputError


def lengths(n: int, seed: int = 0) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(560, 190, n), 90, 870).astype(np.int64)


def assert_same_plan(left: list[np.ndarray], right: list[np.ndarray]) -> None:
    assert left is not right
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


@given(
    n=st.integers(1, 300),
    batch_size=st.integers(1, 50),
    world_size=st.integers(1, 5),
    budget=st.one_of(st.none(), st.integers(900, 20_000)),
    seed=st.integers(-5, 2**63),
    epoch=st.integers(0, 10**6),
)
@settings(max_examples=200, deadline=None)
def test_every_utterance_once_and_ranks_alike(
    n: int, batch_size: int, world_size: int, budget: int | None, seed: int, epoch: int
) -> None:
    frames = lengths(2 * n, seed % 1000)
    indices = np.arange(0, 2 * n, 2)
    ranks = [
        BatchPlan(
            frames,
            indices,
            batch_size=batch_size,
            seed=seed,
            frame_budget=budget,
            rank=rank,
            world_size=world_size,
        ).epoch(epoch)
        for rank in range(world_size)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    drawn = np.concatenate([batch for batches in ranks for batch in batches])
    assert set(drawn.tolist()) == set(indices.tolist())
    assert 0 <= len(drawn) - n < world_size
    if world_size == 1:
        assert len(drawn) == n
    for batches in zip(*ranks, strict=True):
        sizes = [len(batch) for batch in batches]
        assert 1 <= min(sizes) <= max(sizes) <= min(sizes) + 1
        assert max(sizes) <= batch_size
        if budget is not None:
            assert all(len(b) * padded_length(int(frames[b].max()), 8, 8) <= budget for b in batches)


def test_is_a_pure_function() -> None:
    frames = lengths(500)
    one = BatchPlan(frames, np.arange(500), batch_size=16, seed=3)
    other = BatchPlan(frames, np.arange(500), batch_size=16, seed=3)
    other.epoch(0)
    other.epoch(7)
    assert_same_plan(one.epoch(4), other.epoch(4))
    flat = np.concatenate(one.epoch(4))
    assert not np.array_equal(flat, np.concatenate(one.epoch(5)))
    reseeded = BatchPlan(frames, np.arange(500), batch_size=16, seed=4)
    assert not np.array_equal(flat, np.concatenate(reseeded.epoch(4)))


def test_stays_what_it_was() -> None:
    """A resumed run must meet the same plan after an update of numpy or of this code."""
    plan = BatchPlan(np.arange(10, 90, 10), np.arange(8), batch_size=3, seed=1)
    assert [batch.tolist() for batch in plan.epoch(2)] == [[5, 6, 7], [2, 3, 4], [0, 1]]
    wide = BatchPlan(np.full(6, 100), np.arange(6), batch_size=2, seed=9)
    assert [batch.tolist() for batch in wide.epoch(1)] == [[0, 2], [4, 3], [5, 1]]


@pytest.mark.parametrize("n", [397, 400, 7])
def test_ranks_share_the_global_batches_of_one_rank(n: int) -> None:
    frames = lengths(n)
    whole = BatchPlan(frames, np.arange(n), batch_size=24, seed=0).epoch(1)
    for world_size in (2, 4, 6):
        plans = [
            BatchPlan(
                frames, np.arange(n), batch_size=24 // world_size, seed=0, rank=rank, world_size=world_size
            )
            for rank in range(world_size)
        ]
        parts = [plan.epoch(1) for plan in plans]
        for step, batch in enumerate(whole):
            together = np.concatenate([part[step] for part in parts])
            assert sorted(together.tolist()) == sorted(batch.tolist())


@given(
    n=st.integers(1, 400),
    eighth=st.integers(1, 12),
    tightness=st.floats(1.0, 9.0),
    seed=st.integers(0, 99),
    balance=st.sampled_from([0.0, 0.5, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_a_changed_number_of_ranks_meets_the_same_global_batches(
    n: int, eighth: int, tightness: float, seed: int, balance: float
) -> None:
    """With a frame budget, with balanced speakers and with both, as long as the products are kept."""
    frames, speakers = lengths(n, seed), np.arange(n) ** 2 % 5
    budget = int(padded_length(int(frames.max()), 8, 8) * tightness)

    def steps_of(world_size: int) -> list[list[int]]:
        """The utterances of each global step, sorted."""
        parts = [
            BatchPlan(
                frames,
                np.arange(n),
                batch_size=8 * eighth // world_size,
                frame_budget=8 * budget // world_size,
                seed=seed,
                rank=rank,
                world_size=world_size,
                speakers=speakers,
                speaker_balance=balance,
            ).epoch(3)
            for rank in range(world_size)
        ]
        return [sorted(np.concatenate(step).tolist()) for step in zip(*parts, strict=True)]

    alone = steps_of(1)
    for world_size in (2, 4, 8):
        for step, together in zip(alone, steps_of(world_size), strict=True):
            # Where there are fewer utterances than ranks, some of the epoch's shortest are repeated.
            assert len(together) == max(len(step), world_size)
            assert together == step or (len(step) < world_size and set(step) <= set(together))


@given(
    n=st.integers(1, 120),
    batch=st.sampled_from([4, 12, 48]),
    budget=st.one_of(st.none(), st.integers(4 * 896, 20_000)),
    balance=st.sampled_from([0.0, 0.7]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_resuming_at_every_position_is_the_uninterrupted_order(
    n: int, batch: int, budget: int | None, balance: float, seed: int
) -> None:
    """By one rank's state on one rank, and on four: the same utterances at every step from there."""

    def cursors(world_size: int) -> list[Cursor]:
        return [
            Cursor(
                BatchPlan(
                    lengths(n, seed),
                    np.arange(n),
                    batch_size=batch // world_size,
                    frame_budget=budget and budget // world_size,
                    seed=seed,
                    rank=rank,
                    world_size=world_size,
                    speakers=np.arange(n) % 3,
                    speaker_balance=balance,
                )
            )
            for rank in range(world_size)
        ]

    def stream(ranks: list[Cursor]) -> list[set[int]]:
        """The utterances of each step, from where the ranks are to the end of the second epoch."""
        steps = []
        while ranks[0].place[0] < 2:
            parts = [c.batches(c.place[0])[c.place[1]] for c in ranks]
            steps.append(set(np.concatenate(parts).tolist()))
            for cursor in ranks:
                cursor.place = cursor.after(cursor.place)
        return steps

    budget = budget and budget // 4 * 4
    whole = stream(cursors(1))
    ahead = cursors(1)[0]
    for position in range(len(whole)):
        state = ahead.state_dict()
        for world_size in (1, 4):
            resumed = cursors(world_size)
            for cursor in resumed:
                cursor.load_state_dict(state)
            rest = stream(resumed)
            assert len(rest) == len(whole) - position
            for found, wanted in zip(rest, whole[position:], strict=True):
                assert found == wanted or (len(wanted) < world_size and wanted < found)
        ahead.place = ahead.after(ahead.place)


def test_ranks_have_parts_of_like_length() -> None:
    frames = lengths(4000)
    parts = [
        BatchPlan(frames, np.arange(4000), batch_size=12, seed=0, rank=rank, world_size=4).epoch(0)
        for rank in range(4)
    ]
    for step in range(len(parts[0])):
        means = [frames[part[step]].mean() for part in parts]
        assert max(means) < 1.08 * min(means)
    totals = [sum(int(frames[batch].sum()) for batch in part) for part in parts]
    assert max(totals) < 1.006 * min(totals)


@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    balance=st.floats(0.01, 1.0),
    seed=st.integers(0, 99),
    epochs=st.integers(1, 5),
)
@settings(max_examples=80, deadline=None)
def test_balanced_speakers(counts: list[int], balance: float, seed: int, epochs: int) -> None:
    speakers = np.repeat(np.arange(len(counts)) * 3, counts)
    # Every other utterance of the store is of no concern.
    speakers = np.stack([speakers, np.full_like(speakers, 999)], axis=1).ravel()
    n = len(speakers) // 2
    plan = BatchPlan(
        lengths(2 * n),
        np.arange(0, 2 * n, 2),
        batch_size=7,
        seed=seed,
        speakers=speakers,
        speaker_balance=balance,
    )
    exact = np.array(counts) ** (1 - balance) * n / (np.array(counts) ** (1 - balance)).sum()
    drawn = [np.concatenate(plan.epoch(epoch)) for epoch in range(epochs)]
    times = np.zeros((epochs, 2 * n), dtype=int)
    for row, indices in zip(times, drawn, strict=True):
        assert len(indices) == n
        np.add.at(row, indices, 1)
    assert not times[:, 1::2].any()
    for number, quota in enumerate(exact):
        mine = times[:, speakers == 3 * number]
        assert (np.abs(mine.sum(axis=1) - quota) < 1 + 1e-5).all()
        for total in (*mine, *mine.cumsum(axis=0)):
            assert total.max() - total.min() <= 1


def test_full_balance_draws_each_speaker_as_often() -> None:
    speakers = np.repeat([0, 1, 2], [900, 90, 10])
    plan = BatchPlan(
        lengths(1000), np.arange(1000), batch_size=16, seed=1, speakers=speakers, speaker_balance=1.0
    )
    drawn = [np.concatenate(plan.epoch(epoch)) for epoch in range(3)]
    for indices in drawn:
        assert np.bincount(speakers[indices]).tolist() == [334, 333, 333]
    # Three epochs reach each of the 900 at least once, and no two thirds of them are the same.
    assert len(set(np.concatenate(drawn)[speakers[np.concatenate(drawn)] == 0])) == 900


def test_buckets_save_padding_but_mix() -> None:
    frames = lengths(13_000)
    plan = BatchPlan(frames, np.arange(13_000), batch_size=48, seed=0)
    batches = plan.epoch(0)
    padded = sum(len(b) * padded_length(int(frames[b].max()), 8, 8) for b in batches)
    assert frames.sum() / padded > 0.92
    place = np.empty((2, 13_000), dtype=int)
    for epoch in range(2):
        for number, batch in enumerate(plan.epoch(epoch)):
            place[epoch, batch] = number
    together = place[:, :500, None] == place[:, None, :]
    assert (together[0] & together[1]).sum() < 0.15 * together[0].sum()
    # No sawtooth: the mean length of a batch says nothing of the next one's.
    means = np.array([frames[b].mean() for b in batches])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2


def test_no_tiny_last_batch() -> None:
    sizes = [len(b) for b in BatchPlan(lengths(97), np.arange(97), batch_size=48, seed=0).epoch(0)]
    assert sorted(sizes) == [32, 32, 33]


def test_a_budget_is_filled_to_the_last_frame() -> None:
    frames = np.full(50, 100)
    plan = BatchPlan(frames, np.arange(50), batch_size=48, seed=0, frame_budget=8 * 112)
    assert sorted(map(len, plan.epoch(0))) == [2, 8, 8, 8, 8, 8, 8]
    halves = [
        BatchPlan(frames, np.arange(3), batch_size=4, seed=0, frame_budget=168, rank=rank, world_size=2)
        for rank in (0, 1)
    ]
    # All three would fit the two budgets together, but one rank's share would not fit its own.
    assert [[len(batch) for batch in plan.epoch(0)] for plan in halves] == [[1, 1], [1, 1]]


def test_bad_input() -> None:
    frames = np.array([100, 900, 50])
    with pytest.raises(InputError, match=r"no utterance.*relax"):
        BatchPlan(frames, np.array([], dtype=int), batch_size=2, seed=0)
    with pytest.raises(InputError, match=r"900 frames, padded to 912.*budget of 911.*data\.frame_budget"):
        BatchPlan(frames, np.arange(3), batch_size=2, seed=0, frame_budget=911)
    BatchPlan(frames, np.arange(3), batch_size=2, seed=0, frame_budget=912)
    for arguments in (
        {"indices": np.array([0, 0])},
        {"indices": np.array([3])},
        {"indices": np.array([-1])},
        {"batch_size": 0},
        {"rank": 2, "world_size": 2},
        {"length_noise": 1.0},
        {"speaker_balance": 0.5},
        {"speaker_balance": 1.5, "speakers": np.zeros(3, dtype=int)},
    ):
        with pytest.raises(ValueError):
            BatchPlan(frames, **({"indices": np.arange(3), "batch_size": 2, "seed": 0} | arguments))


def test_a_batch_far_larger_than_the_corpus_is_planned_at_once() -> None:
    frames = np.arange(1, 20)
    for budget in (None, 10**12):
        plan = BatchPlan(frames, np.arange(19), batch_size=10**10, seed=0, frame_budget=budget, world_size=2)
        (batch,) = plan.global_epoch(0)
        assert sorted(batch) == list(range(19))


@given(
    n=st.integers(1, 120),
    left=st.integers(1, 120),
    batch_size=st.integers(1, 50),
    world_size=st.integers(1, 3),
    budget=st.one_of(st.none(), st.integers(900, 20_000)),
)
@settings(max_examples=60, deadline=None)
def test_an_epoch_that_is_cut_short_holds_what_is_left_once_and_no_larger_batches(
    n: int, left: int, batch_size: int, world_size: int, budget: int | None
) -> None:
    frames, indices = lengths(2 * n, n), np.arange(0, 2 * n, 2)
    wanted = np.random.default_rng(left).permutation(indices)[:left]
    plans = [
        BatchPlan(
            frames,
            indices,
            batch_size=batch_size,
            seed=7,
            frame_budget=budget,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    whole = plans[0].epoch(4)
    for plan in plans:
        plan.leave(3, wanted.tolist())
    batches = [batch for plan in plans for batch in plan.epoch(3)]
    drawn = np.concatenate(batches)
    assert set(drawn.tolist()) == set(wanted.tolist())
    assert 0 <= len(drawn) - len(wanted) < world_size
    rows, _ = plans[0].largest()
    assert max(map(len, batches)) <= rows
    assert_same_plan(plans[0].epoch(4), whole)
    plans[0].leave(3, None)
    assert_same_plan(
        plans[0].global_epoch(3),
        BatchPlan(
            frames, indices, batch_size=batch_size, seed=7, frame_budget=budget, world_size=world_size
        ).global_epoch(3),
    )


@pytest.mark.parametrize("left", [[], [0, 0], [5], [-1]])
def test_what_is_left_of_an_epoch_is_of_the_plan(left: list[int]) -> None:
    plan = BatchPlan(lengths(6), np.arange(5), batch_size=2, seed=0)
    with pytest.raises(InputError, match=r"left of epoch 0, \d are in its plan"):
        plan.leave(0, left)
    with pytest.raises(InputError, match="loader state"):
        Cursor(plan).load_state_dict({"epoch": 0, "position": 0, "left": ["a"]})
