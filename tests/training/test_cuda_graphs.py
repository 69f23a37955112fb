"""Steps from recordings: what they compute is what plain steps compute; what is recorded, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from graph_recorder import FakeRecorder, needs_gpu, replayed_trainer
from run_state import state_of
from torch import Tensor, nn

from ttsfast.config import Config
from ttsfast.data.loading.batch import Batch
from ttsfast.errors import InputError
from ttsfast.training import buckets, cuda_graphs
from ttsfast.training.buckets import Bucket, Buckets, training_buckets
from ttsfast.training.cuda_graphs import CudaRecorder, Replays
from ttsfast.training.distributed.process_group import ProcessGroup
from ttsfast.training.setup import forever
from ttsfast.training.trainer import Trainer

MakeConfig = Callable[..., Config]
MakeModel = Callable[[], nn.Module]
needs_muon = pytest.mark.skipif(
    not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9"
)


def take(trainer: Trainer, steps: int, change: Callable[[Batch], Batch] = lambda batch: batch) -> Tensor:
    """Take steps; (steps, 4) adaptive factors after each."""
    batches, count = forever(trainer.loader), trainer.config.training.gradient_accumulation_steps
    factors = []
    while trainer.step < steps:
        trainer.train_step([change(batch) for batch in islice(batches, count)])
        factors.append(trainer.loss.adaptive.factors.clone())
    return torch.stack(factors)


def buckets_of(trainer: Trainer) -> Buckets:
    return training_buckets(trainer.config, trainer.store, trainer.loader.plan, trainer.reduction_factor)


class Padded:
    """Batches padded to their buckets by another way than slots."""

    def __init__(self, trainer: Trainer) -> None:
        self.buckets, self.silence = buckets_of(trainer), torch.as_tensor(trainer.store.silence)

    def __call__(self, batch: Batch) -> Batch:
        utterances, frames, symbols = self.buckets(batch)
        mel = self.silence.expand(utterances, frames, -1).clone()
        mel[:, : batch.mel.shape[1]] = batch.mel
        text = torch.zeros(utterances, symbols, dtype=torch.int64)
        text[:, : batch.text.shape[1]] = batch.text
        return Batch(**{**vars(batch), "mel": mel, "text": text})


@pytest.fixture
def short_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny corpus has 13 to 41 frames: several buckets, and padding in them."""
    monkeypatch.setattr(buckets, "FRAMES", 16)
    monkeypatch.setattr(buckets, "SYMBOLS", 16)


# A rate that float32 holds exactly, as the recorded step's tensor of it does.
RATE = {"training__learning_rate": 2.0**-7, "training__scheduler": "constant", "training__warmup_steps": 0}


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("muon", marks=needs_muon)])
def test_replayed_steps_are_plain_steps_bit_for_bit(
    optimizer: str, make_config: MakeConfig, make_model: MakeModel, tmp_path: Any, short_buckets: None
) -> None:
    """100 steps with dropout, two micro-batches, a moving average, a spike guard that acts, and adaptive
    weights that move."""
    seen = []
    for replayed in (False, True):
        config = make_config(
            **RATE,
            training__run_folder=str(tmp_path / str(replayed)),
            training__optimizer=optimizer,
            training__gradient_accumulation_steps=2,
            training__ema_decay=0.9,
            training__max_loss_spike_threshold=1.001,
            training__loss_smoothing_factor=1.0,
            training__max_steps=100,
            training__log_step=50,
        )
        torch.manual_seed(0)
        opened = replayed_trainer if replayed else Trainer
        with opened(config, model=make_model()) as trainer:
            change: Callable[[Batch], Batch] = (lambda batch: batch) if replayed else Padded(trainer)
            factors = take(trainer, 100, change)
            assert trainer.monitor.read() is None
            rows = trainer.monitor.take()
            seen.append((state_of(trainer), factors, rows))
    (plain, factors, rows), (replayed_bits, replayed_factors, replayed_rows) = seen
    assert {name for name in plain if not torch.equal(plain[name], replayed_bits[name])} == set()
    assert torch.equal(factors, replayed_factors)
    assert rows == replayed_rows
    assert len(factors.unique(dim=0)) > 90
    assert int(plain["spike_guard spikes"]) > 0
    passes: Any = trainer.forward_backward
    assert 2 <= passes.replays.recorded <= 12
    assert passes.replays.replayed + passes.replays.plain == 200
    update: Any = trainer.optimizer_step
    recordable = optimizer == "adamw"
    # The first step, and the hundredth, which is due to look closely, are taken plainly.
    assert update.replays.replayed == (98 if recordable else 0)


def test_padding_up_to_the_bucket_changes_no_number(
    make_config: MakeConfig, make_model: MakeModel, tmp_path: Any, short_buckets: None
) -> None:
    """Against the batches as the loader pads them, in double precision, where only rounding differs."""
    seen = []
    for replayed in (False, True):
        config = make_config(**RATE, training__run_folder=str(tmp_path / str(replayed)), data__batch_size=2)
        model = make_model()
        model.dropout.p = 0.0  # type: ignore[union-attr,assignment]
        opened = replayed_trainer if replayed else Trainer
        with opened(config, model=model) as trainer:
            model.double()
            torch.manual_seed(0)
            buckets, padded = buckets_of(trainer), 0

            def as_double(batch: Batch, buckets: Buckets = buckets) -> Batch:
                nonlocal padded
                padded += buckets(batch)[1:] != (batch.mel.shape[1], batch.text.shape[1])
                return Batch(**{**vars(batch), "mel": batch.mel.double()})

            take(trainer, 100, as_double)
            seen.append(state_of(trainer))
    assert 50 < padded < 100
    for name, value in seen[0].items():
        torch.testing.assert_close(seen[1][name], value, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize("weighting", ["dwa", "uncertainty"])
def test_what_a_recorded_step_reads_and_moves_stays_in_its_place(
    weighting: str, make_config: MakeConfig, make_model: MakeModel, short_buckets: None
) -> None:
    """A recording knows addresses, which a stand-in for it on a CPU would not miss."""
    config = make_config(training__adaptive_weighting=weighting, training__attention_fade_steps=9)
    with replayed_trainer(config, model=make_model()) as trainer:
        passes: Any = trainer.forward_backward

        def places() -> dict[str, int]:
            adam = trainer.optimizers.torch_optimizers["adam"]
            held = {
                **{f"model {name}": value for name, value in trainer.model.state_dict().items()},
                **{f"loss {name}": value for name, value in trainer.loss.named_buffers()},
                **{f"gradient {n}": p.grad for n, p in trainer.model.named_parameters()},
                **{
                    f"guard {name}": value
                    for name, value in trainer.optimizer_step.guard.state_dict().items()
                },
                **{
                    f"optimizer {place} {name}": value
                    for place, state in enumerate(adam.state.values())
                    for name, value in state.items()
                },
                **{f"rate {place}": group["lr"] for place, group in enumerate(adam.param_groups)},
                "frozen": trainer.optimizer_step.found_inf,
                "scale": trainer.scaler.tensor,
                "normalizer": passes.normalizer,
                "sums": passes.stats.sums,
                "weights": passes.stats.weights,
            }
            return {name: value.data_ptr() for name, value in held.items()}

        take(trainer, 3)
        before, moved = places(), state_of(trainer)
        take(trainer, 9)
        assert places() == before
        still = {name for name, value in state_of(trainer).items() if torch.equal(value, moved[name])}
    assert not {"model write.weight", "loss adaptive.slow.mel", "spike_guard sum"} & still


def test_a_key_runs_plainly_then_is_recorded_then_replayed_and_the_rest_stays_plain() -> None:
    done: list[tuple[str, int]] = []

    def fill(slots: list[int], given: int) -> None:
        slots[:] = [given]

    recorder = FakeRecorder()
    replays = Replays(recorder, most=2)
    for number, key in enumerate("ababacccd"):
        replays.run(
            key,
            number,
            make_slots=lambda: [0],
            fill=fill,
            work=lambda slots, key=key: done.append((key, slots[0])),  # type: ignore[misc]
        )
    # Every run happened once, with what it was given: recording ran nothing.
    assert done == [(key, number) for number, key in enumerate("ababacccd")]
    assert recorder.recorded == replays.recorded == 2
    assert (replays.plain, replays.replayed) == (6, 3)


class Knowing(FakeRecorder):
    """A recording of an update knows the gradients that there were when it was made."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        def given() -> set[str]:
            return {name for name, p in self._model.named_parameters() if p.grad is not None}

        known = given()

        def replay() -> None:
            assert given() == known
            work()

        return replay


def test_a_part_whose_first_gradient_comes_late_is_moved_by_recordings_too(
    make_config: MakeConfig, make_model: MakeModel, short_buckets: None
) -> None:
    model: Any = make_model()
    model.late = nn.Linear(80, 80)
    as_ever, begun = model.forward, False

    def forward(*args: Any, **named: Any) -> Any:
        output = as_ever(*args, **named)
        if begun:
            output.mel = output.mel + model.late(output.mel)
        return output

    model.forward = forward
    with replayed_trainer(make_config(**RATE), model=model) as trainer:
        update: Any = trainer.optimizer_step
        update.replays = Replays(Knowing(model))
        take(trainer, 5)
        before, early, begun = model.late.weight.clone(), update.replays.recorded, True
        take(trainer, 10)
    assert not (model.late.weight == before).any()
    assert (early, update.replays.recorded, update.replays.plain) == (1, 2, 2)


def test_buckets_round_up_to_the_corpus_and_no_further() -> None:
    buckets = Buckets(frames=64, symbols=32, most_frames=808, most_symbols=184)

    def batch(utterances: int, frames: int, symbols: int) -> Any:
        class Shapes:
            mel, text = torch.empty(utterances, frames, 2), torch.empty(utterances, symbols)

        return Shapes

    assert buckets(batch(3, 64, 32)) == Bucket(3, 64, 32)
    assert buckets(batch(3, 65, 33)) == Bucket(3, 128, 64)
    assert buckets(batch(2, 800, 168)) == Bucket(2, 808, 184)
    assert buckets(batch(1, 900, 200)) == Bucket(1, 900, 200)
    frames = np.arange(8, 809, 8)
    found = {buckets(batch(4, int(n), 8)).frames for n in frames}
    assert len(found) == 13
    assert all(buckets(batch(4, int(n), 8)).frames >= n for n in frames)


def test_the_log_counts_recordings(
    make_config: MakeConfig, make_model: MakeModel, short_buckets: None
) -> None:
    with replayed_trainer(make_config(), model=make_model()) as trainer:
        take(trainer, 6)
        counted = trainer.forward_backward.figures()
    passes: Any = trainer.forward_backward
    assert counted == {"graphs": passes.replays.recorded, "plain_passes": passes.replays.plain}
    assert passes.replays.plain + passes.replays.replayed == 6


def test_a_recorded_run_resumes_to_the_same_bits(
    make_config: MakeConfig, make_model: MakeModel, tmp_path: Any, short_buckets: None
) -> None:
    """The learning rate is a tensor then, and a checkpoint holds a number; plain runs can go on from it."""

    def run(folder: str, steps: int, resume: bool = False, replayed: bool = True) -> dict[str, Tensor]:
        config = make_config(
            **RATE,
            training__run_folder=str(tmp_path / folder),
            training__max_steps=steps,
            training__early_stopping_restore_best_weights=False,
        )
        opened = replayed_trainer if replayed else Trainer
        with opened(config, model=make_model(), resume=resume) as trainer:
            trainer.fit()
            (group, _) = trainer.optimizers.torch_optimizers["adam"].param_groups
            assert isinstance(group["lr"], Tensor if replayed else float)
            assert group["capturable"] is replayed
            return state_of(trainer)

    whole = run("whole", 6)
    run("parts", 3)
    parts = run("parts", 6, resume=True)
    assert {name for name in whole if not torch.equal(whole[name], parts[name])} == set()
    run("mixed", 3)
    run("mixed", 6, resume=True, replayed=False)


def test_cuda_graphs_are_refused_where_there_are_none(make_config: MakeConfig, make_model: MakeModel) -> None:
    config = make_config(training__cuda_graphs=True, training__device="cpu")
    with pytest.raises(InputError, match=r"^training\.cuda_graphs needs a CUDA device.*on cpu"):
        Trainer(config, model=make_model())

    class Two(ProcessGroup):
        size = 2

    with pytest.raises(InputError, match=r"^training\.cuda_graphs works in one process.*2 ranks"):
        cuda_graphs.refuse_cuda_graphs(config, torch.device("cuda"), Two())


def test_a_recording_that_fails_tells_why_it_began_to(monkeypatch: pytest.MonkeyPatch) -> None:
    class Graph:
        """Ends as torch's does."""

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __enter__(self) -> None: ...

        def __exit__(self, kind: Any, *_: Any) -> None:
            if kind is not None:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", Graph)
    recorder = CudaRecorder.__new__(CudaRecorder)
    recorder._stream = recorder._pool = None  # type: ignore[assignment]

    def work() -> None:
        raise RuntimeError("operation not permitted when stream is capturing.\nMore")

    with pytest.raises(InputError, match=r"recorded \(operation not permitted when .* capturing\);"):
        recorder.record(work)


@pytest.fixture
def cuda_trainers(make_config: MakeConfig, tmp_path: Any) -> Iterator[Callable[..., Trainer]]:
    opened: list[Trainer] = []

    def make(name: str, kind: Callable[..., Trainer] = Trainer, **changes: Any) -> Trainer:
        config = make_config(
            **{
                **RATE,
                "model__size": "nano",
                "training__learning_rate": 2.0**-10,
                "training__device": "cuda",
                "training__deterministic": True,
                "training__gradient_accumulation_steps": 2,
                "training__max_steps": 1000,
                "training__run_folder": str(tmp_path / name),
                **changes,
            }
        )
        opened.append(kind(config))
        return opened[-1]

    yield make
    for trainer in opened:
        trainer.close()
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param({"data__mixed_precision": False}, marks=needs_gpu),
        pytest.param({"training__amp_dtype": "bf16"}, marks=needs_gpu),
        pytest.param({"training__amp_dtype": "fp16"}, marks=needs_gpu),
    ],
)
def test_cuda_graphs_replay_what_plain_steps_compute(
    setting: dict[str, Any], cuda_trainers: Callable[..., Trainer]
) -> None:
    """100 steps with dropout and adaptive weights that move; the same batches, padded as much, plainly."""
    plain = cuda_trainers("plain", replayed_trainer, **setting)
    factors = take(plain, 100)
    recorded = cuda_trainers("recorded", training__cuda_graphs=True, **setting)
    replayed_factors = take(recorded, 100)
    a, b = state_of(plain), state_of(recorded)
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-5, atol=1e-7, msg=name)
    torch.testing.assert_close(replayed_factors, factors, rtol=1e-5, atol=1e-7)
    assert len(factors.unique(dim=0)) > 90
    passes: Any = recorded.passes
    assert passes.replays.replayed > 100


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none")
def test_what_cannot_be_recorded_is_bad_input() -> None:
    here = torch.ones((), device="cuda")
    with pytest.raises(InputError, match=r"^training\.cuda_graphs: the step cannot be recorded"):
        CudaRecorder(torch.device("cuda")).record(lambda: print(here.item()))
