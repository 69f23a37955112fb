from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_disk import leave
from torch import Tensor

from ttsfast.config import Config
from ttsfast.errors import InputError, TrainingError
from ttsfast.evaluation.log import read_log
from ttsfast.models.checkpoint import checkpoints, load_checkpoint
from ttsfast.training import resume, validation
from ttsfast.training.setup import tail_steps
from ttsfast.training.telemetry.log import Telemetry
from ttsfast.training.telemetry.timing import PHASES
from ttsfast.training.trainer import Trainer

MakeConfig = Callable[..., Config]
MakeModel = Callable[[], torch.nn.Module]


def weights_of(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def same_bits(a: Tensor, b: Tensor) -> bool:
    assert a.isfinite().all()
    assert b.isfinite().all()
    assert a.abs().sum() > 0
    return torch.equal(a, b)


@pytest.mark.pictures
def test_a_run_logs_validates_saves_and_restores_the_best(
    make_config: MakeConfig, make_model: MakeModel
) -> None:
    with Trainer(make_config(), model=make_model()) as trainer:
        result = trainer.fit()
    assert (result.step, result.reason) == (6, "max_steps")
    rows = read_log(result.run_folder)
    validations = [row for row in rows if row["kind"] == "validation"]
    assert [row["step"] for row in validations] == [3, 6]
    judged = trainer.monitor.convergence.state_dict()["held_out"]
    assert judged == [row["mel_l1"] for row in validations]
    train = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in train] == [2, 4, 6]
    for row in train:
        for name in (
            "total",
            "mel",
            "kl",
            "stop",
            "attention",
            "gradient_norm",
            "weight_mel",
            "frames_per_second",
        ):
            assert math.isfinite(row[name])
        shares = [row[f"percent_{phase}"] for phase in PHASES]
        assert all(0 <= share <= 100 for share in shares)
        assert sum(shares) == pytest.approx(100)
    assert result.checkpoint.name == f"step-{result.best_step:08d}"
    best = load_checkpoint(result.checkpoint).weights
    for name, parameter in trainer.model.state_dict().items():
        assert torch.equal(parameter, best[name])
    assert list((result.run_folder / "tensorboard").iterdir())


def test_the_loss_falls(make_config: MakeConfig, make_model: MakeModel) -> None:
    with Trainer(make_config(training__max_steps=60, training__val_step=60), model=make_model()) as trainer:
        trainer.fit()
    mels = [row["mel"] for row in read_log(trainer.run_folder) if row["kind"] == "train"]
    assert mels[-1] < 0.8 * mels[0]


def test_a_resumed_run_takes_the_same_steps(
    make_config: MakeConfig, make_model: MakeModel, tmp_path: Path
) -> None:
    whole = Trainer(make_config(training__early_stopping_restore_best_weights=False), model=make_model())
    whole.fit()
    part = make_config(
        training__run_folder=str(tmp_path / "part"), training__early_stopping_restore_best_weights=False
    )
    first = Trainer(part, model=make_model())
    first.fit()
    # As if killed after the checkpoint of step 4.
    for path in checkpoints(tmp_path / "part"):
        if int(path.name.split("-")[1]) > 4:
            shutil.rmtree(path)
    torch.manual_seed(99)
    second = Trainer(part, model=make_model(), resume=True)
    assert second.step == 4
    second.fit()
    assert same_bits(weights_of(second), weights_of(whole))
    steps = [row["step"] for row in read_log(tmp_path / "part") if row["kind"] == "train"]
    assert steps == sorted(set(steps))
    for trainer in (whole, first, second):
        trainer.close()


def test_a_run_whose_checkpoints_do_not_fit_is_not_begun(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(training__keep_checkpoints=2, training__ema_decay=0.9)
    # Two and the best one, and one that is being written; in each the weights, their average, two moments.
    needed = 4 * 4 * sum(value.nbytes for value in make_model().state_dict().values())
    leave(needed - 1, monkeypatch)
    with pytest.raises(InputError, match=r"run: keeping the run's checkpoints takes about"):
        Trainer(config, model=make_model())
    assert not Path(config.training.run_folder).exists()
    leave(needed, monkeypatch)
    with Trainer(config, model=make_model()) as trainer:
        assert trainer.step == 0


def test_resuming_a_finished_run_changes_nothing(make_config: MakeConfig, make_model: MakeModel) -> None:
    with Trainer(make_config(), model=make_model()) as trainer:
        trainer.fit()
    before = {p: p.stat().st_mtime_ns for p in (trainer.run_folder / "checkpoints").rglob("*")}
    with Trainer(make_config(), model=make_model(), resume=True) as again:
        assert again.fit().step == 6
    assert {p: p.stat().st_mtime_ns for p in (trainer.run_folder / "checkpoints").rglob("*")} == before


def test_resume_without_a_checkpoint_starts_and_says_so(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Telemetry, "say", lambda _, message: said.append(message))
    with Trainer(make_config(), model=make_model(), resume=True) as trainer:
        assert trainer.fit().step == 6
    assert any(message.endswith("starting at step 0") for message in said)
    shutil.rmtree(trainer.run_folder / "checkpoints")
    with Trainer(make_config(), model=make_model(), resume=True) as trainer:
        trainer.fit()
    assert any("no checkpoint to resume" in message and " 6 logged steps" in message for message in said)


def test_a_step_is_saved_once_even_when_it_is_the_best(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    original = resume.save_checkpoint

    def save(folder: Path, step: int, **named: Any) -> None:
        saved.append(step)
        original(folder, step, **named)

    monkeypatch.setattr(resume, "save_checkpoint", save)
    with Trainer(make_config(training__val_step=2), model=make_model()) as trainer:
        trainer.fit()
    assert saved == [2, 4, 6]


def test_resuming_in_another_precision_works(make_config: MakeConfig, make_model: MakeModel) -> None:
    for steps, changes in (
        (2, {"data__mixed_precision": False}),
        (4, {"training__amp_dtype": "fp16"}),
        (6, {"training__amp_dtype": "bf16"}),
    ):
        with Trainer(
            make_config(training__max_steps=steps, **changes), model=make_model(), resume=True
        ) as trainer:
            assert trainer.fit().step == steps


def test_another_watched_metric_starts_its_own_record(make_config: MakeConfig, make_model: MakeModel) -> None:
    with Trainer(make_config(training__monitor="duration_error"), model=make_model()) as trainer:
        trainer.fit()
    config = make_config(training__max_steps=7, training__val_step=7)
    with Trainer(config, model=make_model(), resume=True) as trainer:
        result = trainer.fit()
    (row,) = [r for r in read_log(trainer.run_folder) if r["kind"] == "validation" and r["step"] == 7]
    assert result.best_metric == row["mcd_dtw_sl"]
    assert result.best_step == 7


def test_held_out_clips_without_an_end_are_refused_before_training(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ttsfast.training.setup._is_truncated", lambda store, index: True)
    with pytest.raises(InputError, match="every held-out clip is marked truncated"):
        Trainer(make_config(), model=make_model())
    unstopped = make_config(training__stop_loss_weight=0.0)
    with pytest.raises(InputError, match=r"nothing to watch.* training\.monitor=mel_l1"):
        Trainer(unstopped, model=make_model())
    with Trainer(
        make_config(training__stop_loss_weight=0.0, training__monitor="mel_l1"), model=make_model()
    ) as trainer:
        trainer.fit()


def test_a_backend_that_is_not_there_is_bad_input(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ttsfast.training.setup.unavailable", lambda name: "no such device; use auto")
    with pytest.raises(InputError, match=r"training\.loss_backend=triton: no such device"):
        Trainer(make_config(training__loss_backend="triton"), model=make_model())


@pytest.mark.parametrize(("frames", "r", "steps"), [(8, 4, 2), (3, 4, 1), (8, 16, 1), (0, 4, 0), (5, 1, 5)])
def test_the_stop_tail_is_never_rounded_away(
    frames: int, r: int, steps: int, make_config: MakeConfig
) -> None:
    assert tail_steps(make_config(training__stop_tail_frames=frames), r) == steps


@pytest.mark.parametrize("content", [b"\xff\xfe\n", b"[]\n", b"{}\n", b'{"step": "x"}\n', b"no\n"])
def test_a_damaged_log_is_named(content: bytes, make_config: MakeConfig, make_model: MakeModel) -> None:
    with Trainer(make_config(), model=make_model()) as trainer:
        trainer.fit()
    (trainer.run_folder / "log.jsonl").write_bytes(content)
    with (
        pytest.raises(InputError, match=r"log\.jsonl"),
        Trainer(make_config(), model=make_model(), resume=True) as again,
    ):
        again.fit()


def test_an_existing_run_is_not_overwritten(make_config: MakeConfig, make_model: MakeModel) -> None:
    with Trainer(make_config(), model=make_model()) as trainer:
        trainer.fit()
    with pytest.raises(InputError, match="--resume"):
        Trainer(make_config(), model=make_model())


def test_resuming_with_another_model_says_what_differs(
    make_config: MakeConfig, make_model: MakeModel
) -> None:
    with Trainer(make_config(), model=make_model()) as trainer:
        trainer.fit()
    with pytest.raises(InputError, match=r"model\.dropout 0\.05 there, 0\.3 here"):
        Trainer(make_config(model__dropout=0.3), model=make_model(), resume=True)


def test_accumulated_micro_batches_equal_one_large_batch(
    make_config: MakeConfig, make_model: MakeModel, tmp_path: Path
) -> None:
    """Lengths differ between the micro-batches, so averages of averages would show."""
    weights = []
    for parts in (1, 2, 4):
        config = make_config(
            training__run_folder=str(tmp_path / str(parts)), training__optimizer="adam", training__eps=1e-3
        )
        with Trainer(config, model=make_model()) as trainer:
            trainer.model.dropout.p = 0.0  # type: ignore[union-attr]
            indices = trainer.store.indices("train")[:8]
            from ttsfast.data.loading.batch import collate

            utterances = [trainer.store[int(i)] for i in indices]
            size = -(-len(utterances) // parts)
            for _ in range(3):
                trainer.train_step(
                    [
                        collate(utterances[s : s + size], pad_value=trainer.store.silence)
                        for s in range(0, len(utterances), size)
                    ]
                )
            weights.append((weights_of(trainer), trainer.loss.adaptive.factors.clone()))
    for others, factors in weights[1:]:
        assert torch.allclose(others, weights[0][0], rtol=0, atol=1e-6)
        assert torch.allclose(factors, weights[0][1], rtol=0, atol=1e-6)
    assert not torch.equal(weights[0][1], torch.ones(4))


def test_a_model_that_hides_its_reduction_factor_is_refused(
    make_config: MakeConfig, make_model: MakeModel
) -> None:
    model = make_model()
    model.reduction_factor = 1  # type: ignore[assignment]
    with pytest.raises(InputError, match="reduction_factor"):
        Trainer(make_config(), model=model)


@pytest.mark.parametrize("reduction_factor", [1, 3, 4])
def test_convtts_tells_the_trainer_its_reduction_factor(
    reduction_factor: int, make_config: MakeConfig
) -> None:
    config = make_config(
        model__reduction_factor=reduction_factor, training__max_steps=1, training__val_step=1
    )
    with Trainer(config) as trainer:
        trainer.fit()
        assert trainer.reduction_factor == reduction_factor


def test_a_non_finite_loss_stops_the_run_with_step_and_utterances(
    make_config: MakeConfig, make_model: MakeModel
) -> None:
    model = make_model()
    with Trainer(make_config(), model=model) as trainer:
        steps = 0

        def poison(module: torch.nn.Module, args: object, output: Tensor) -> Tensor | None:
            nonlocal steps
            steps += module.training
            return output * math.nan if module.training and steps == 4 else None

        model.write.register_forward_hook(poison)  # type: ignore[union-attr]
        with pytest.raises(TrainingError) as caught:
            trainer.fit()
    message = str(caught.value)
    assert "\n" not in message
    assert "total, mel" in message or "mel, total" in message
    assert "u0" in message or "u1" in message
    # No checkpoint holds what came after.
    for path in checkpoints(trainer.run_folder):
        assert all(value.isfinite().all() for value in load_checkpoint(path).weights.values())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_close_to_full(
    precision: str, make_config: MakeConfig, make_model: MakeModel, tmp_path: Path
) -> None:
    losses = {}
    for name, changes in (
        ("fp32", {"data__mixed_precision": False}),
        (precision, {"training__amp_dtype": precision}),
    ):
        config = make_config(
            training__run_folder=str(tmp_path / name),
            training__max_steps=20,
            training__val_step=20,
            **changes,
        )
        with Trainer(config, model=make_model()) as trainer:
            trainer.fit()
            assert trainer.precision.scales_loss == (name == "fp16")
        losses[name] = [row["mel"] for row in read_log(tmp_path / name) if row["kind"] == "train"][-1]
    assert losses[precision] != losses["fp32"]
    assert losses[precision] == pytest.approx(losses["fp32"], rel=0.05)


def test_every_validation_reads_the_same_batches_in_the_same_order(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums in another order round differently, which a resumed run would show."""
    read: list[list[tuple[str, ...]]] = []
    original = validation.teacher_forced

    def teacher_forced(model: torch.nn.Module, batches: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        kept = list(batches)
        read.append([batch.ids for batch in kept])
        return original(model, kept, *args, **kwargs)

    monkeypatch.setattr(validation, "teacher_forced", teacher_forced)
    config = make_config(training__val_step=1, data__batch_size=1)
    with Trainer(config, model=make_model()) as trainer:
        trainer.fit()
    assert len(read) == 6
    assert len(read[0]) > 1
    assert all(ids == read[0] for ids in read)


def test_early_stopping_ends_the_run(make_config: MakeConfig, make_model: MakeModel) -> None:
    config = make_config(
        training__max_steps=50,
        training__val_step=2,
        training__early_stopping_patience=2,
        training__early_stopping_min_delta=100.0,
    )
    with Trainer(config, model=make_model()) as trainer:
        result = trainer.fit()
    assert result.reason == "early_stopping"
    assert result.step == 6
    assert result.best_step == 2


def test_a_checkpoint_holds_no_pickle(make_config: MakeConfig, make_model: MakeModel) -> None:
    with Trainer(make_config(), model=make_model()) as trainer:
        result = trainer.fit()
    for path in result.checkpoint.iterdir():
        assert path.suffix in {".json", ".safetensors"}
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
