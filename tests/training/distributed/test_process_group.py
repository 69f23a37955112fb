"""Two ranks are one rank with the whole batch, leave together, and resume exactly."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_runs import WORKER, ended, errors_of, job, start, torchrun, weights
from rank_worker import MovingModel, SmallParallel, tiny_model
from tiny_model import TinyModel

from ttsfast.config import Config
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError, RankLost
from ttsfast.evaluation.log import read_log
from ttsfast.models.checkpoint import checkpoints, load_checkpoint
from ttsfast.training.distributed.consistency import check_run_folder
from ttsfast.training.distributed.global_counts import GlobalCounts
from ttsfast.training.distributed.process_group import ProcessGroup, _fresh_store, join_ranks
from ttsfast.training.setup import forever, open_loaders
from ttsfast.training.trainer import Trainer

MakeConfig = Callable[..., Config]


def test_two_ranks_are_one_with_the_whole_batch_and_resume_exactly(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """16 utterances in global batches of 5, 5 and 6: the ranks' parts differ in number and in length."""

    def config(name: str, batch_size: int, **changes: Any) -> Config:
        values: dict[str, Any] = {
            "training__run_folder": str(tmp_path / name),
            "training__early_stopping_restore_best_weights": False,
            "training__max_steps": 7,
            "training__val_step": 4,
            "data__batch_size": batch_size,
            "training__device": "cpu",
            **changes,
        }
        return make_config(**values)

    settings: dict[str, dict[str, Any]] = {
        "plain": {},
        "accumulated": {"training__gradient_accumulation_steps": 2},
        "moving": {"training__gradient_accumulation_steps": 2, "training__weight_decay": 0.5},
        "utterances": {
            "training__loss_normalization": "utterance",
            "training__adaptive_weighting": "uncertainty",
            "training__kl_normalization": "vector",
        },
    }
    jobs = [
        job(name, config(f"{name}2", 3, **more), model="MovingModel" if name == "moving" else "TinyModel")
        for name, more in settings.items()
    ]
    jobs[0]["other_weights"] = True
    random = {"training__max_steps": 6, "training__val_step": 3, "training__save_step": 2}
    jobs += [
        job("whole", config("whole", 3, **random), dropout=0.3),
        job("part", config("part", 3, **{**random, "training__max_steps": 4}), dropout=0.3),
        job("resumed", config("part", 3, **random), dropout=0.3, resume=True),
    ]
    assert [code for code, _ in ended(start(jobs, tmp_path))] == [0, 0]

    for name, more in settings.items():
        alone_config = config(f"{name}1", 6, **more)
        kind = MovingModel if name == "moving" else TinyModel
        with Trainer(alone_config, model=tiny_model(alone_config.data.store, 0.0, kind)) as alone:
            alone.fit()
        first, second = weights(tmp_path, name, 0), weights(tmp_path, name, 1)
        for key, expected in alone.model.named_parameters():
            assert torch.equal(first[key], second[key]), (name, key)
            torch.testing.assert_close(first[key], expected, rtol=1e-4, atol=2e-5, msg=f"{name} {key}")
        rows = {
            size: [row for row in read_log(tmp_path / f"{name}{size}") if row["kind"] == "train"]
            for size in (1, 2)
        }
        assert [row["step"] for row in rows[2]] == [row["step"] for row in rows[1]] == [2, 4, 6, 7]
        for one, two in zip(rows[1], rows[2], strict=True):
            for figure in ("total", "mel", "stop", "gradient_norm", "weight_mel", "weight_stop"):
                assert two[figure] == pytest.approx(one[figure], rel=1e-4), (name, figure)
        assert rows[1][-1]["weight_mel"] != 22.0
    # A step begins with the first rank's buffers.
    seen = [torch.load(tmp_path / f"moving-{rank}-seen.pt") for rank in (0, 1)]
    assert torch.equal(seen[0][::2], seen[1][::2])
    assert seen[0][-1] > 20

    for rank in (0, 1):
        whole, resumed = weights(tmp_path, "whole", rank), weights(tmp_path, "resumed", rank)
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    saved = load_checkpoint(checkpoints(tmp_path / "part")[-1])
    assert saved.state["ranks"] == 2
    streams = saved.training
    assert not torch.equal(streams["random.rank0.cpu"], streams["random.rank1.cpu"])

    # The same folder goes on with one rank, if that takes the same batches.
    more_steps = {**random, "training__max_steps": 8}
    store = jobs[0]["config"]["data"]["store"]
    with pytest.raises(InputError, match=r"is of 2 ranks, this run has 1, .*set data\.batch_size=6\)"):
        Trainer(config("part", 3, **more_steps), model=tiny_model(store, 0.0), resume=True)
    with Trainer(config("part", 6, **more_steps), model=tiny_model(store, 0.0), resume=True) as alone:
        assert alone.fit().step == 8


def test_two_ranks_find_the_durations_that_one_finds(make_config: MakeConfig, tmp_path: Path) -> None:
    """The parallel model: its aligner's terms and its own loss are divided by what all ranks have."""

    def config(name: str, batch_size: int) -> Config:
        return make_config(
            training__run_folder=str(tmp_path / name),
            training__device="cpu",
            # Adam takes a gradient of nothing but rounding for one.
            training__eps=1e-3,
            training__early_stopping_restore_best_weights=False,
            training__max_steps=4,
            training__val_step=9,
            training__save_step=9,
            training__kl_loss_weight=0.0,
            training__stop_loss_weight=0.0,
            training__attention_loss_weight=0.0,
            training__alignment_loss_weight=1.0,
            training__binarization_loss_weight=0.1,
            data__batch_size=batch_size,
        )

    jobs = [job("parallel", config("two", 3), model="SmallParallel")]
    assert [code for code, _ in ended(start(jobs, tmp_path))] == [0, 0]
    one_rank = config("one", 6)
    with Trainer(one_rank, model=tiny_model(one_rank.data.store, 0.0, SmallParallel)) as alone:
        alone.fit()
    first, second = weights(tmp_path, "parallel", 0), weights(tmp_path, "parallel", 1)
    for key, expected in alone.model.named_parameters():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], expected, rtol=1e-3, atol=1e-4, msg=key)
    one, two = (
        [row for row in read_log(tmp_path / name) if row["kind"] == "train"] for name in ("one", "two")
    )
    assert [row["step"] for row in two] == [row["step"] for row in one] == [2, 4]
    for row, other in zip(one, two, strict=True):
        assert row["alignment"] > 0
        for figure in ("total", "mel", "alignment", "binarization", "gradient_norm", "weight_alignment"):
            assert other[figure] == pytest.approx(row[figure], rel=1e-3), figure


@pytest.mark.parametrize(
    ("what", "codes", "said"),
    [
        ("kill", (1, -signal.SIGKILL), ["rank 0 ends because another rank is gone or silent"]),
        ("hang", (1, None), ["rank 0 ends because another rank is gone or silent"]),
        (
            "bad input",
            (1, 2),
            ["rank 0 ends because rank 1 failed first: utterance u07: damaged", "utterance u07: damaged"],
        ),
        ("nan", (1, 1), ["first in the output of read (Linear)"]),
        ("term", (75, 75), ["stopped by SIGTERM at step"]),
    ],
)
def test_ranks_end_together_with_the_first_cause(
    what: str, codes: tuple[int, int | None], said: list[str], make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(
        training__device="cpu", training__max_steps=200, training__val_step=500, training__rank_timeout=4
    )
    ranks = start([job("run", config, happens=(1, what))], tmp_path)
    if what == "hang":
        text = ranks[0].communicate(timeout=280)
        ranks[1].kill()
        results = [(ranks[0].returncode, text), (None, "")]
    else:
        results = [*ended(ranks)]
    assert tuple(code for code, _ in results) == codes, results
    lines = [line for _, text in results for line in errors_of(text)]
    assert len(lines) == len(said), results
    for line, part in zip(lines, said, strict=True):
        assert part in line
    assert "terminate called" not in "".join(text for _, text in results)
    if what == "term":
        (last,) = checkpoints(tmp_path / "run")[-1:]
        assert f"at step {int(last.name[5:13])}, whose checkpoint is written" in lines[0]
        assert int(last.name[5:13]) <= 5


def test_torchrun_trains_and_one_process_writes(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(training__max_steps=2, training__val_step=2)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()), encoding="utf-8")
    done = torchrun("-m", "ttsfast", "train", path, "training.device=cpu", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 2
    assert done.stderr.count("done at step 2") == 1
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


def test_torchrun_restarts_a_run_whose_rank_was_killed(make_config: MakeConfig, tmp_path: Path) -> None:
    def config(name: str) -> Config:
        return make_config(
            training__device="cpu",
            training__run_folder=str(tmp_path / name),
            training__early_stopping_restore_best_weights=False,
        )

    jobs = [job("cut", config("cut"), happens=(1, "kill once"), resume=True, dropout=0.3)]
    jobs.append(job("whole", config("whole"), dropout=0.3))
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps(jobs), encoding="utf-8")
    done = torchrun("--max-restarts=1", "--monitor-interval=0.1", WORKER, path)
    assert done.returncode == 0, done.stderr
    assert "resuming at step 2" in done.stderr
    # Although torchrun sends SIGTERM to a rank that outlives another.
    assert "rank 0 ends because another rank is gone or silent" in done.stderr
    for rank in (0, 1):
        cut, whole = weights(tmp_path, "cut", rank), weights(tmp_path, "whole", rank)
        assert all(torch.equal(cut[key], whole[key]) for key in whole)


def test_counts_from_the_plan_are_those_of_all_ranks_batches(make_config: MakeConfig) -> None:
    class Rank(ProcessGroup):
        def __init__(self, rank: int) -> None:
            self.rank, self.size = rank, 3

    config = make_config(data__batch_size=1, training__loss_backend="torch")
    store = Store.open(Path(config.data.store))
    # One is truncated: it has no tail.
    store.entries.truncated[store.indices("train")[0]] = True
    loaders = [open_loaders(config, store, torch.device("cpu"), 2, Rank(rank))[0] for rank in range(3)]
    counts = GlobalCounts(loaders[1].plan, store, 2, tail_steps=4)
    place = loaders[0].state_dict()
    streams = [forever(loader) for loader in loaders]
    steps = len(loaders[0]) + 3
    assert steps > 6
    found = []
    for _ in range(steps):
        batches = [next(stream) for stream in streams]
        lengths = torch.cat([batch.mel_lengths for batch in batches])
        decoder = (lengths + 1) // 2
        tails = int((~torch.cat([batch.truncated for batch in batches])).sum()) * 4
        found.append((int(lengths.sum()), int(decoder.sum()) + tails, int(decoder.sum()), len(lengths)))
    assert tuple(counts.of(place, steps)) == tuple(map(sum, zip(*found, strict=True)))
    assert tuple(counts.of(place, 1)) == found[0]
    for loader in loaders:
        loader.close()


def test_what_an_earlier_start_left_in_the_store_is_not_read() -> None:
    store = torch.distributed.HashStore()
    store.set("ttsfast/hello/1", "of a rank that is dead")
    store.set("ttsfast/cause", "1 InputError: of a rank that is dead")
    with ThreadPoolExecutor(3) as pool:
        met = list(pool.map(lambda rank: _fresh_store(store, rank, 3, 5.0), range(3)))
    met[1].set("key", "value")
    assert met[0].get("key") == met[2].get("key") == b"value"
    assert not met[0].check(["ttsfast/cause"])


def test_a_rank_that_never_comes_is_named() -> None:
    store = torch.distributed.HashStore()
    with pytest.raises(RuntimeError, match="no word from rank 1, 2 of 3"):
        _fresh_store(store, 0, 3, 0.05)


def test_a_stranger_at_the_first_ranks_address_is_not_waited_for(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(stranger.getsockname()[1])}
        for name, value in {**address, "WORLD_SIZE": "2", "RANK": "1"}.items():
            monkeypatch.setenv(name, value)
        joined = join_ranks(make_config(training__rank_timeout=1).training)
        with pytest.raises(RankLost, match=f"listens at 127.0.0.1:{address['MASTER_PORT']} .* another port"):
            joined.__enter__()


def test_a_process_of_several_is_refused_unless_it_joins(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="one of WORLD_SIZE=2"):
        Trainer(make_config())


def test_more_ranks_than_utterances_are_refused(make_config: MakeConfig) -> None:
    class Many(ProcessGroup):
        size = 99

    config = make_config()
    store = Store.open(Path(config.data.store))
    with pytest.raises(InputError, match=r"99 ranks for \d+ training utterances"):
        open_loaders(config, store, torch.device("cpu"), 2, Many())


def test_ranks_that_would_train_something_else_are_refused(make_config: MakeConfig) -> None:
    class Two(ProcessGroup):
        size = 2

        def all_gather_object(self, value: Any) -> list[Any]:
            return [value, {**value, "training.seed": 3, "the store's fingerprint": "0"}]

    with pytest.raises(
        InputError, match=r"rank 1 .*training\.seed is 3 there and 0 on rank 0; the store's"
    ) as e:
        Trainer(make_config(), ranks=Two())
    assert "data.num_workers" not in str(e.value)


def test_a_run_folder_that_is_not_shared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Second(ProcessGroup):
        rank, size = 1, 2

        def all_gather_object(self, value: Any) -> list[Any]:
            return [True, value]

    monkeypatch.setattr("ttsfast.training.distributed.consistency.SECONDS_FOR_A_FILE", 0.1)
    with pytest.raises(InputError, match=r"run: rank 1 does not see what rank 0 writes there"):
        check_run_folder(tmp_path / "run", Second())
