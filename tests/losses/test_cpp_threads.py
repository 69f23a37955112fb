"""The C++ backend's threads: the same bits whatever the number, safe in forks and side by side."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cpp_checks import MISSING, WHY_MISSING, assert_same_bits, run
from loss_checks import leaves, make_batch, make_loss

from ttsfast import native

pytestmark = pytest.mark.skipif(MISSING, reason=WHY_MISSING)


@pytest.fixture(autouse=True, params=["pool", "team"])
def crew(request: pytest.FixtureRequest) -> Iterator[str]:
    """Whose threads compute: the extension's own, or those of torch's OpenMP."""
    before = torch.get_num_threads()
    if request.param == "pool":
        native.with_torch().join_team_of(None)
    elif not native.join_team():
        pytest.skip("this torch does not run on OpenMP")
    yield request.param
    torch.set_num_threads(before)
    native.join_team()


def make(**shape: Any) -> dict[str, Any]:
    return make_batch(
        [301, 77, 0, 512, 130], [9, 5, 4, 3, 8], bins=80, latents=64, per_frame=True, prior=True, pair=True,
        heads=2, **{"dtype": torch.float32, **shape},
    )  # fmt: skip


OPTIONS: list[dict[str, Any]] = [
    {},
    {"mel_smoothing": "noise", "kl_free_bits": 30.0, "normalization": "utterance"},
]


# In float64 the order of summation is not hidden by rounding to the result.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
def test_the_number_of_threads_changes_no_bit(options: dict[str, Any], dtype: torch.dtype, crew: str) -> None:
    batch = make(dtype=dtype)
    results = []
    for threads in (1, 2, 4, 1, 4):
        torch.set_num_threads(threads)
        results.append(run(batch, "cpp", **options))
    for other in results[1:]:
        assert_same_bits(results[0], other)
    if crew == "pool":
        assert native.core is not None
        assert native.core.pool_threads() >= 3


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs processor affinity")
def test_a_caller_confined_to_one_processor_computes_the_same() -> None:
    torch.set_num_threads(2)
    batch = make()
    expected = run(batch, "cpp")
    allowed = os.sched_getaffinity(0)
    try:
        for processor in sorted(allowed)[:2]:
            os.sched_setaffinity(0, {processor})
            assert_same_bits(run(batch, "cpp"), expected)
            assert os.sched_getaffinity(0) == {processor}
    finally:
        os.sched_setaffinity(0, allowed)
    assert_same_bits(run(batch, "cpp"), expected)


def test_callers_side_by_side() -> None:
    torch.set_num_threads(4)
    batches = [make(seed=seed) for seed in range(4)]
    expected = [run(batch, "cpp") for batch in batches]
    failures: list[BaseException] = []

    def call(index: int) -> None:
        # The number of threads is each thread's own in torch.
        torch.set_num_threads(4)
        try:
            for _ in range(5):
                assert_same_bits(run(batches[index], "cpp"), expected[index])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=call, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_computes_too() -> None:
    torch.set_num_threads(3)
    batch = make()
    expected = {name: value.clone() for name, value in run(batch, "cpp").items()}
    child = os.fork()
    if child == 0:
        # Autograd's own threads do not survive a fork, so the pass is asked directly.
        status = 1
        try:
            with torch.no_grad():
                out = make_loss(backend="cpp")(**batch)
            same = torch.equal(out.values, expected["values"]) and torch.equal(out.total, expected["total"])
            assert native.core is not None
            status = 0 if same and native.core.pool_threads() == 2 else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert_same_bits(run(batch, "cpp"), expected)


def test_two_runs_are_bitwise_equal() -> None:
    batch = make()
    assert_same_bits(run(batch, "cpp"), run(batch, "cpp"))
    assert all(leaf.grad is None for leaf in leaves(batch).values())
