"""Every configuration key is read: changing it changes what a run does, or says."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ttsfast.config import SECTIONS, Config, config_from_dict
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError, RankLost
from ttsfast.evaluation.log import read_log
from ttsfast.models.build import build_model
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.training import compilation, precision, setup
from ttsfast.training.distributed import process_group
from ttsfast.training.objective import Objective
from ttsfast.training.telemetry.log import RunTelemetry, Telemetry
from ttsfast.training.trainer import Trainer

TIMING = ("frames_per_second", "loader_wait_percent", "percent_", "memory_gib")


@dataclasses.dataclass
class Change:
    """Another value for a key, and the setting in which it shows."""

    value: Any
    setting: dict[str, Any] = dataclasses.field(default_factory=dict)


RUN: dict[str, Change] = {
    "training.run_folder": Change("elsewhere"),
    "training.seed": Change(3),
    "training.max_steps": Change(5),
    "training.start_from": Change("no-such-voice"),
    "training.freeze": Change("embed"),
    "training.mel_loss_weight": Change(2.0),
    "training.kl_loss_weight": Change(30.0),
    "training.stop_loss_weight": Change(9.0),
    "training.attention_loss_weight": Change(7.0),
    "training.alignment_loss_weight": Change(0.5),
    "training.binarization_loss_weight": Change(0.5),
    "training.attention_sigma": Change(0.05),
    "training.attention_fade_steps": Change(4),
    "training.use_huber_loss": Change(False),
    "training.huber_delta": Change(0.1),
    "training.use_label_smoothing": Change(False),
    "training.mel_label_smoothing": Change(0.4),
    "training.mel_smoothing": Change("noise"),
    "training.stop_label_smoothing": Change(0.4),
    "training.stop_token_positive_weight": Change(9.0),
    "training.stop_tail_frames": Change(0),
    "training.kl_normalization": Change("vector"),
    "training.kl_free_bits": Change(5.0),
    "training.loss_normalization": Change("utterance"),
    "training.use_adaptive_loss_weights": Change(False),
    "training.adaptive_weighting": Change("uncertainty"),
    "training.loss_smoothing_factor": Change(0.9),
    "training.max_loss_spike_threshold": Change(1.0001, {"training.learning_rate": 0.5}),
    "training.optimizer": Change("adam", {"training.weight_decay": 0.5}),
    "training.learning_rate": Change(3e-3),
    "training.beta1": Change(0.5),
    "training.beta2": Change(0.5),
    "training.eps": Change(1e-2),
    "training.weight_decay": Change(0.5),
    "training.scheduler": Change("constant"),
    "training.warmup_steps": Change(0),
    "training.min_learning_rate": Change(8e-3),
    "training.restart_period": Change(2),
    "training.restart_mult": Change(0.1, {"training.restart_period": 2}),
    "training.auto_lr_reduction": Change(
        False, {"training.lr_reduction_patience": 1, "training.early_stopping_min_delta": 9.0}
    ),
    "training.lr_reduction_factor": Change(
        0.1,
        {
            "training.lr_reduction_patience": 1,
            "training.early_stopping_min_delta": 9.0,
            "training.val_step": 1,
        },
    ),
    "training.lr_reduction_patience": Change(
        1, {"training.early_stopping_min_delta": 9.0, "training.val_step": 1}
    ),
    "training.gradient_clip_norm": Change(1e-4, {"training.eps": 1e-2}),
    "training.gradient_norm_threshold": Change(1e-6),
    "training.gradient_accumulation_steps": Change(2),
    "training.amp_dtype": Change("bf16"),
    "training.preflight": Change(False, {"training.preflight": True}),
    "training.deterministic": Change(True),
    "training.cuda_graphs": Change(True),
    "training.ema_decay": Change(0.9),
    "training.early_stopping": Change(
        False,
        {
            "training.early_stopping_patience": 1,
            "training.early_stopping_min_delta": 9.0,
            "training.val_step": 1,
        },
    ),
    "training.early_stopping_patience": Change(
        1, {"training.early_stopping_min_delta": 9.0, "training.val_step": 1}
    ),
    "training.early_stopping_min_delta": Change(
        9.0, {"training.early_stopping_patience": 1, "training.val_step": 1, "training.monitor": "mel_l1"}
    ),
    "training.early_stopping_restore_best_weights": Change(False, {"training.early_stopping_min_delta": 9.0}),
    "training.monitor": Change("duration_error"),
    "training.convergence_window": Change(100, {"training.max_steps": 34, "training.val_step": 34}),
    "training.convergence_threshold": Change(
        0.01,
        {
            "training.max_steps": 60,
            "training.val_step": 60,
            "training.warmup_steps": 60,
            "training.learning_rate": 1.0,
        },
    ),
    "training.val_step": Change(2),
    "training.val_texts": Change("no-such-file.txt"),
    "training.val_utterances": Change(1),
    "training.save_step": Change(1),
    "training.keep_checkpoints": Change(1),
    "training.log_step": Change(1),
    "training.wandb": Change("offline"),
    "training.device": Change("cuda"),
    "training.loss_backend": Change("torch"),
    "data.store": Change("no-such-store"),
    "data.batch_size": Change(3),
    "data.frame_budget": Change(64),
    "data.speaker_balance": Change(1.0),
    "data.corpus_on_device": Change("always"),
    "data.num_workers": Change(2),
    "data.max_mel_frames": Change(25),
    "data.max_text_length": Change(12),
    "data.pad_to_multiple": Change(64),
    "data.preprocessing_mode": Change("on_the_fly"),
    "data.enable_memory_mapping": Change(False),
    "data.cache_verification": Change(False),
    "data.mixed_precision": Change(False, {"training.amp_dtype": "bf16"}),
    "data.sample_rate": Change(16000),
    "data.n_mels": Change(40),
}
BUILD: dict[str, Change] = {
    "model.architecture": Change("examples.fastspeech_style:build"),
    "model.size": Change("small"),
    "model.reduction_factor": Change(2),
    "model.dropout": Change(0.3),
    "model.prenet_dropout": Change(0.4),
    "model.posterior": Change(False),
    "model.latent_dim": Change(8),
    "model.pitch": Change(True, {"model.architecture": "paralleltts"}),
    "model.energy": Change(True, {"model.architecture": "paralleltts"}),
}
ON_GPU: dict[str, Change] = {
    "data.pin_memory": Change(False, {"data.corpus_on_device": "never"}),
    "data.prefetch_to_gpu": Change(False, {"data.corpus_on_device": "never"}),
}


def test_every_key_is_here() -> None:
    keys = {f"{name}.{f.name}" for name, section in SECTIONS.items() for f in dataclasses.fields(section)}
    apart = {"training.tf32", "training.compile", "training.rank_timeout", "training.sharding"}
    assert keys == {*RUN, *BUILD, *ON_GPU, *apart}


def test_tf32_is_set_on_a_gpu(make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    for tf32 in (True, False):
        training = make_config(training__tf32=tf32).training
        precision.set_up_arithmetic(training, torch.device("cuda"))
        assert torch.backends.cudnn.allow_tf32 is tf32
    torch.backends.cudnn.allow_tf32 = True
    assert asked == ["high", "highest"]


@pytest.mark.parametrize("wanted", [False, True])
def test_compile_is_asked_of_torch(
    wanted: bool,
    make_config: Callable[..., Config],
    make_model: Callable[[], torch.nn.Module],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[torch.nn.Module] = []
    if wanted and torch.__version__ < compilation.OLDEST_TORCH:
        pytest.skip(f"training.compile needs torch 2.11, and this is {torch.__version__}")
    monkeypatch.setattr(torch, "compile", lambda model, **_: asked.append(model) or model)
    with Trainer(make_config(training__compile=wanted), model=make_model()) as trainer:
        assert asked == [trainer.model][: int(wanted)]


def test_compile_on_an_old_torch_is_refused_in_one_line(
    make_config: Callable[..., Config],
    make_model: Callable[[], torch.nn.Module],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.6.0"))
    with pytest.raises(
        InputError, match=r"^training\.compile needs torch 2\.11 or newer, and this is 2\.6\.0: .*false$"
    ):
        Trainer(make_config(training__compile=True), model=make_model())


def changed(config: Config, values: dict[str, Any]) -> Config:
    nested = config.to_dict()
    for name, value in values.items():
        section, key = name.split(".")
        nested[section][key] = value
    return config_from_dict(nested)


def test_the_rank_timeout_is_that_of_the_process_group(
    make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Store:
        def check(self, keys: list[str]) -> bool:
            return False

    seen: list[float] = []

    def open_group(backend: str, timeout: datetime.timedelta, **kwargs: Any) -> None:
        seen.append(timeout.total_seconds())
        raise RuntimeError("nobody there")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(process_group, "SECONDS_FOR_A_CAUSE", 0.0)
    monkeypatch.setattr(process_group, "_fresh_store", lambda store, *rest: store)
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda *args, **kwargs: iter([(Store(), 1, 2)]))
    monkeypatch.setattr(torch.distributed, "init_process_group", open_group)
    config = make_config(training__rank_timeout=7, training__device="cpu")
    with (
        pytest.raises(RankLost, match=r"gone or silent.*nobody there"),
        process_group.join_ranks(config.training),
    ):
        pass
    assert seen == [7.0]


def test_sharding_wants_several_processes_and_an_optimiser_of_single_weights(
    make_config: Callable[..., Config], make_model: Callable[[], torch.nn.Module]
) -> None:
    class Two(process_group.ProcessGroup):
        size = 2

        def all_gather_object(self, value: Any) -> list[Any]:
            return [value, value]

    with pytest.raises(InputError, match="shards a model among processes, and there is one"):
        Trainer(make_config(training__sharding="full"), model=make_model())
    config = make_config(training__sharding="full", training__optimizer="muon")
    with pytest.raises(InputError, match=r"does not go with training\.optimizer=muon"):
        Trainer(config, model=make_model(), ranks=Two())


class Witness:
    """Runs a configuration and tells what could be seen of it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, make_model: Callable[[], torch.nn.Module], folder: Path
    ) -> None:
        self.monkeypatch, self.make_model, self.folder, self.runs = monkeypatch, make_model, folder, 0

    def see(self, config: Config) -> dict[str, Any]:
        self.runs += 1
        root = self.folder / str(self.runs)
        seen: dict[str, Any] = {"said": [], "batches": [], "calls": []}
        config = changed(config, {"training.run_folder": str(root / config.training.run_folder)})
        with self.monkeypatch.context() as patch:
            # Asking for what is not installed shows; and where it is, a test needs no W&B run.
            patch.setitem(sys.modules, "wandb", None)
            # The status line tells speeds, which differ from run to run.
            patch.setattr(RunTelemetry, "status", lambda _, text: None)
            patch.setattr(Telemetry, "say", lambda _, message: seen["said"].append(message))
            spy(patch, seen, Store, "open")
            spy(patch, seen, setup, "MelLoader")
            spy(patch, seen, setup, "TTSLoss")
            original = Objective.forward

            def forward(objective: Objective, batch: Any, *rest: Any) -> Any:
                seen["batches"].append((batch.ids, tuple(batch.mel.shape)))
                return original(objective, batch, *rest)

            patch.setattr(Objective, "forward", forward)
            try:
                with Trainer(config, model=self.make_model()) as trainer:
                    trainer.fit()
            except InputError as error:
                seen["error"] = str(error).replace(str(root), "")
                return seen
            finally:
                seen["deterministic"] = torch.are_deterministic_algorithms_enabled()
                torch.use_deterministic_algorithms(False)
        seen["said"] = [line.replace(str(root), "") for line in seen["said"]]
        seen["log"] = [
            {k: v for k, v in row.items() if not k.startswith(TIMING)} for row in read_log(trainer.run_folder)
        ]
        seen["files"] = sorted(str(p.relative_to(root)) for p in root.rglob("*.safetensors"))
        weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
        seen["weights"] = hashlib.sha256(weights.numpy().tobytes()).hexdigest()
        return seen


def spy(patch: pytest.MonkeyPatch, seen: dict[str, Any], owner: Any, name: str) -> None:
    """Record the keyword arguments of every call."""
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        seen["calls"].append((name, {k: str(v) for k, v in kwargs.items()}))
        return original(*args, **kwargs)

    patch.setattr(owner, name, call)


@pytest.fixture
def witness(
    monkeypatch: pytest.MonkeyPatch, make_model: Callable[[], torch.nn.Module], tmp_path: Path
) -> Witness:
    return Witness(monkeypatch, make_model, tmp_path)


@pytest.fixture(scope="module")
def seen_before() -> dict[str, dict[str, Any]]:
    """What was seen in the settings that keys are changed from: most share one."""
    return {}


@pytest.mark.parametrize("key", RUN)
def test_changing_a_key_changes_the_run(
    key: str, witness: Witness, make_config: Callable[..., Config], seen_before: dict[str, dict[str, Any]]
) -> None:
    change = RUN[key]
    base = changed(make_config(training__run_folder="run"), change.setting)
    setting = repr(change.setting)
    if setting not in seen_before:
        seen_before[setting] = witness.see(base)
    assert seen_before[setting] != witness.see(changed(base, {key: change.value}))


def test_the_same_configuration_is_seen_the_same(
    witness: Witness, make_config: Callable[..., Config]
) -> None:
    """Without this, the test above would prove nothing."""
    config = make_config(training__run_folder="run")
    assert witness.see(config) == witness.see(config)


@pytest.mark.parametrize("key", BUILD)
def test_changing_a_model_key_changes_the_model(
    key: str, make_config: Callable[..., Config], store_path: Path
) -> None:
    statistics = {"pitch": (180.0, 40.0), "energy": (2.0, 0.5)}
    voice = dataclasses.replace(VoiceInfo.of_store(Store.open(store_path)), tracks=statistics)
    base = changed(make_config(), BUILD[key].setting)
    models = [build_model(c.model, voice) for c in (base, changed(base, {key: BUILD[key].value}))]
    assert repr(models[0]) != repr(models[1])


@pytest.mark.parametrize("key", ON_GPU)
def test_changing_a_gpu_key_changes_the_loader(
    key: str, make_config: Callable[..., Config], store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(setup, "MelLoader", lambda *args, **kwargs: seen.append(kwargs))
    store = Store.open(store_path)
    base = changed(make_config(), ON_GPU[key].setting)
    for config in (base, changed(base, {key: ON_GPU[key].value})):
        setup.open_loaders(config, store, torch.device("cuda"), 2)
    assert len(seen) == 4
    assert seen[0] != seen[2]
