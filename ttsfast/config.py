"""The configuration: typed, strict, with its defaults and its documentation in one place.

The defaults below *are* the preset ``fast_convergence``; the other presets in ``configs/`` state only
what differs, and ``auto`` is chosen (``training/auto.py``). A value comes from, in rising precedence: the
defaults, a preset, the YAML file, the command line (``training.learning_rate=1e-3``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from ttsfast.errors import InputError
from ttsfast.options import Values, checked_values, option, overlaid, parse, shortened, shown_value

AUTO, DEFAULTS = "auto", "fast_convergence"
"""Two presets without a file: what is chosen for a machine and a store, and the defaults below."""
NONE = "none"
"""Of keys that name a path or parts of the model: there is none."""
PRESET = "preset"
"""The key, beside the sections of a YAML file, that names what the file leaves out."""


@dataclass(frozen=True)
class ModelConfig:
    """The acoustic model."""

    architecture: str = option(
        "convtts", "convtts, paralleltts, or package.module:factory for a model of your own"
    )
    size: str = option(
        "base", "of the built-in models: nano for a CPU, base for one GPU", choices=("nano", "small", "base")
    )
    reduction_factor: int = option(4, "mel frames made per decoder step", low=1, high=16)
    dropout: float = option(0.05, "dropout in the convolution blocks", low=0.0, high=0.9)
    prenet_dropout: float = option(
        0.2, "dropout on the fed-back frames, so that the decoder cannot just copy them", low=0.0, high=0.9
    )
    posterior: bool = option(
        True, "posterior encoder (a latent per utterance); without it the KL term is off"
    )
    latent_dim: int = option(16, "size of that latent", low=1, high=1024)
    pitch: bool = option(False, "paralleltts: learn each symbol's pitch, from the store's track of it")
    energy: bool = option(False, "paralleltts: likewise each symbol's energy")


@dataclass(frozen=True)
class TrainingConfig:
    """Losses, optimiser, schedule and what is watched."""

    run_folder: str = option("runs/voice", "checkpoints, logs and reports go here", path=True)
    seed: int = option(0, "seed of the weights, dropout and batch order", low=0, high=2**31 - 1)
    device: str = option("auto", "auto takes the GPU where there is one", choices=("auto", "cpu", "cuda"))
    max_steps: int = option(100_000, "optimiser steps", low=1)
    start_from: str = option(
        NONE, "a run or checkpoint whose weights a new run begins with (train --from)", path=True
    )
    freeze: str = option(NONE, "parts of the model that stay as they are, such as symbols,text_layers")

    mel_loss_weight: float = option(22.0, "weight of the mel distance", low=0.0)
    kl_loss_weight: float = option(1.8, "weight of the KL of the posterior", low=0.0)
    stop_loss_weight: float = option(1.5, "weight of the stop-token BCE", low=0.0)
    attention_loss_weight: float = option(0.3, "weight of guided attention", low=0.0)
    alignment_loss_weight: float = option(
        0.0, "weight of the forward-sum loss of a model that learns its alignment", low=0.0
    )
    binarization_loss_weight: float = option(
        0.0, "weight of what draws that alignment's probabilities to its hard path", low=0.0
    )
    attention_sigma: float = option(0.2, "width of guided attention's diagonal band", above=0.0)
    attention_fade_steps: int = option(0, "steps over which guided attention fades to 0; 0: never", low=0)
    use_huber_loss: bool = option(True, "Huber for the mel distance; false: L1")
    huber_delta: float = option(0.6, "where Huber turns from quadratic to linear", above=0.0)
    use_label_smoothing: bool = option(True, "smooth the mel and stop targets")
    mel_label_smoothing: float = option(
        0.025, "mel targets move this far toward the corpus mean", low=0.0, high=0.5
    )
    mel_smoothing: str = option(
        "mean", "kind of mel smoothing: toward the mean, or seeded noise", choices=("mean", "noise")
    )
    stop_label_smoothing: float = option(0.06, "label smoothing of the stop target", low=0.0, high=0.5)
    stop_token_positive_weight: float = option(4.0, "weight of the positive stop targets", above=0.0)
    stop_tail_frames: int = option(
        8, "frames after the end that still teach the stop token", low=0, high=1000
    )
    kl_normalization: str = option(
        "elbo", "elbo: nats per mel element; vector: nats per latent vector", choices=("elbo", "vector")
    )
    kl_free_bits: float = option(0.0, "nats per latent vector below which the KL does not press", low=0.0)
    loss_normalization: str = option(
        "frame", "average over frames, or over utterances' own averages", choices=("frame", "utterance")
    )
    loss_backend: str = option(
        "auto", "implementation of the loss", choices=("auto", "triton", "cpp", "torch")
    )
    use_adaptive_loss_weights: bool = option(True, "let adaptive_weighting move the weights; false: fixed")
    adaptive_weighting: str = option(
        "dwa",
        "dynamic weight averaging; learned uncertainty, which favours the terms that have fallen furthest",
        choices=("dwa", "uncertainty"),
    )
    loss_smoothing_factor: float = option(
        0.08, "moving average of the loss, for reports and the spike guard only", above=0.0, high=1.0
    )
    max_loss_spike_threshold: float = option(
        1.3, "a loss above this multiple of its average has its gradient scaled down", above=1.0
    )

    optimizer: str = option(
        "adamw",
        "AdamW; Adam with coupled decay; Muon for hidden matrices (torch 2.9); schedule-free (an extra)",
        choices=("adamw", "adam", "muon", "schedule_free"),
    )
    learning_rate: float = option(8e-5, "peak rate; a small model wants ten times this", above=0.0, high=1.0)
    beta1: float = option(0.9, "Adam's first moment", low=0.0, high=0.9999)
    beta2: float = option(0.999, "Adam's second moment", low=0.0, high=0.999999)
    eps: float = option(1e-8, "Adam's epsilon", above=0.0)
    weight_decay: float = option(5e-7, "weight decay (decoupled for adamw)", low=0.0)
    scheduler: str = option(
        "cosine_with_restarts",
        "learning-rate schedule after warm-up",
        choices=("cosine_with_restarts", "one_cycle", "noam", "constant"),
    )
    warmup_steps: int = option(1500, "linear warm-up", low=0)
    min_learning_rate: float = option(1e-7, "the rate never falls below this", above=0.0)
    restart_period: int = option(8000, "steps from one cosine restart to the next", low=1)
    restart_mult: float = option(0.8, "factor on the peak rate at each restart", above=0.0, high=1.0)
    auto_lr_reduction: bool = option(True, "reduce the rate when validation stalls")
    lr_reduction_factor: float = option(0.7, "factor of each such reduction", above=0.0, high=1.0)
    lr_reduction_patience: int = option(15, "validations without improvement before it", low=1)
    gradient_clip_norm: float = option(0.8, "clip the gradient to this norm", above=0.0)
    gradient_norm_threshold: float = option(2.5, "warn about and count norms above this", above=0.0)
    gradient_accumulation_steps: int = option(2, "micro-batches per optimiser step", low=1, high=10_000)
    amp_dtype: str = option(
        "auto",
        "precision under data.mixed_precision; auto: bf16 where the GPU, or a CPU with AMX, has it, else "
        "fp16 on a GPU, fp32 on a CPU",
        choices=("auto", "bf16", "fp16"),
    )

    preflight: bool = option(
        True, "look at the model for seconds before the first step; what ruins a voice ends the run there"
    )
    compile: bool = option(
        False, "torch.compile the model: the first step takes minutes; on a CPU the others gain nothing"
    )
    cuda_graphs: bool = option(
        False, "record a step's kernels once per bucket of shapes and replay them (one GPU only)"
    )
    tf32: bool = option(True, "let what stays in float32 be multiplied in TF32 (GPU only)")
    deterministic: bool = option(
        False, "the same operations and threads each time, so the same bits; slower (GPU: exact resume)"
    )
    ema_decay: float = option(
        0.0,
        "use a moving average of the weights with this decay, such as 0.999; 0: none",
        low=0.0,
        high=0.999999,
    )

    early_stopping: bool = option(True, "stop when validation no longer improves")
    early_stopping_patience: int = option(40, "validations without improvement before stopping", low=1)
    early_stopping_min_delta: float = option(5e-5, "what counts as improvement", low=0.0)
    early_stopping_restore_best_weights: bool = option(True, "finish with the best weights, not the last")
    monitor: str = option(
        "mcd_dtw_sl",
        "held-out metric to watch: of free-running speech and its length, of fed mels, or of lengths alone",
        choices=("mcd_dtw_sl", "mel_l1", "duration_error"),
    )
    convergence_window: int = option(
        200, "steps over which the log's convergence is judged", low=32, high=1_000_000
    )
    convergence_threshold: float = option(
        0.95,
        "what is called diverging or oscillating: a rise to 1 / this, swings of 1 - this of the loss",
        above=0.0,
        high=1.0,
    )
    val_step: int = option(1000, "steps between validations", low=1)
    val_utterances: int = option(48, "utterances spoken free-running at each validation", low=1)
    val_texts: str = option(
        "none", "a file of sentences of your own, one a line, to hear at each validation; none: no file"
    )
    save_step: int = option(2000, "steps between checkpoints", low=1)
    keep_checkpoints: int = option(3, "checkpoints kept beside the best one", low=1)
    log_step: int = option(50, "steps between log lines", low=1)
    rank_timeout: int = option(
        600, "seconds without a word from another rank that end a run of several", low=1, high=86_400
    )
    sharding: str = option(
        "none",
        "under torchrun; full: each rank keeps a part of the weights and the optimiser's state (FSDP2)",
        choices=("none", "full"),
    )
    wandb: str = option(
        "off", "report to Weights & Biases too (an extra)", choices=("off", "offline", "online")
    )


@dataclass(frozen=True)
class DataConfig:
    """The feature store and how batches are made from it."""

    store: str = option("data/store", "written by `ttsfast prepare`: a folder, or an address", path=True)
    batch_size: int = option(48, "utterances per micro-batch", low=1, high=65_536)
    frame_budget: int = option(0, "padded frames per micro-batch at most; 0: no limit", low=0)
    speaker_balance: float = option(
        0.0,
        "0: each utterance once an epoch; 1: each speaker as often, its utterances round and round",
        low=0.0,
        high=1.0,
    )
    num_workers: int = option(12, "batcher threads, capped at the cores there are", low=1)
    max_mel_frames: int = option(800, "longer utterances are left out, and listed", low=1)
    max_text_length: int = option(180, "utterances with more symbols are left out, and listed", low=1)
    pad_to_multiple: int = option(8, "batches are padded to whole multiples of this", low=1, high=1024)
    preprocessing_mode: str = option(
        "precompute",
        "precompute: features from the store; on_the_fly: computed again from the audio (slow)",
        choices=("precompute", "on_the_fly"),
    )
    enable_memory_mapping: bool = option(True, "leave features on disk; false: read them in at the start")
    corpus_on_device: str = option(
        "auto",
        "keep the features in GPU memory and make batches there; auto: if a quarter of what is free will do",
        choices=("auto", "always", "never"),
    )
    cache_verification: bool = option(True, "check each utterance's checksum when it is first read")
    pin_memory: bool = option(True, "page-locked batches (GPU only)")
    prefetch_to_gpu: bool = option(True, "copy the next batch while this one is computed (GPU only)")
    mixed_precision: bool = option(True, "train in training.amp_dtype")
    sample_rate: int = option(22050, "must be the store's", low=8000, high=192_000)
    n_mels: int = option(80, "must be the store's", low=1, high=512)


@dataclass(frozen=True)
class Config:
    """The whole configuration, one attribute per section of the YAML file."""

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        training = self.training
        if training.min_learning_rate > training.learning_rate:
            raise InputError(
                f"training.min_learning_rate {training.min_learning_rate:g} is above training.learning_rate "
                f"{training.learning_rate:g}: lower it"
            )
        if training.optimizer == "schedule_free" and (
            training.scheduler != "constant" or training.beta1 == 0
        ):
            raise InputError(
                "training.optimizer=schedule_free averages instead of lowering the rate: "
                "set training.scheduler=constant, and a training.beta1 above 0"
            )
        weights = [f.name for f in dataclasses.fields(training) if f.name.endswith("_loss_weight")]
        if not any(getattr(training, name) > 0 for name in weights):
            raise InputError(
                f"training.{', '.join(weights)} are all 0: nothing would be learnt; set one above 0"
            )

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain nested values, as the YAML file holds them."""
        return dataclasses.asdict(self)


SECTIONS: dict[str, type] = {"model": ModelConfig, "training": TrainingConfig, "data": DataConfig}


def preset_names() -> list[str]:
    """The presets by name; all but ``auto`` are fixed values."""
    files = resources.files("ttsfast.configs").iterdir()
    return sorted([AUTO, DEFAULTS, *(Path(f.name).stem for f in files if f.name.endswith(".yaml"))])


def check_preset(name: object, where: str) -> str:
    """``name`` where a preset is called that; raises InputError where none is."""
    if name not in preset_names():
        raise InputError(f"{where}: no preset {shortened(name)}: there are {', '.join(preset_names())}")
    return str(name)


def preset_values(name: str) -> Values:
    """What a preset of fixed values says other than the defaults."""
    if name == DEFAULTS:
        return {}
    text = (resources.files("ttsfast.configs") / f"{name}.yaml").read_text(encoding="utf-8")
    return checked_values(parse(text, f"preset {name}"), SECTIONS, f"preset {name}")


def read_settings(path: Path | None, overrides: Iterable[str]) -> tuple[Values, str | None]:
    """What a YAML file and the command line set, and the preset that the file names, if any.

    Raises:
        InputError: an unknown section, key or preset (with the nearest valid name), a duplicate key, a value
            of the wrong type or out of range; always with the file and key.
    """
    values: Values = {}
    preset = None
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as a configuration ({error})") from error
        content = parse(text, str(path))
        if isinstance(content, dict) and PRESET in content:
            preset = check_preset(content.pop(PRESET), str(path))
        values = checked_values(content, SECTIONS, str(path))
    for override in overrides:
        name, equals, value = override.partition("=")
        section, dot, key = name.partition(".")
        if not (equals and dot):
            raise InputError(f"{override!r} on the command line: write section.key=value")
        parsed = parse(value, f"{name} on the command line") if value else ""
        given = checked_values({section: {key: parsed}}, SECTIONS, "the command line")
        values = overlaid(values, given)
    return values, preset


def load_config(path: Path | None = None, overrides: Iterable[str] = (), preset: str | None = None) -> Config:
    """Read a configuration of fixed values; one that is chosen for a machine and a store, as the command line
    does it, comes from :func:`ttsfast.training.configure.configure`.

    Args:
        path: a YAML file; what it does not name comes from a preset.
        overrides: ``section.key=value`` strings, as on the command line.
        preset: one of :func:`preset_names` but ``auto``. None: the one that the file names, or without a file
            the defaults.

    Raises:
        InputError: as :func:`read_settings` does; or no fixed preset is named.
    """
    values, named = read_settings(path, overrides)
    preset = preset or named or (AUTO if path else DEFAULTS)
    if check_preset(preset, "preset") == AUTO:
        raise InputError(
            f"{path or 'preset'}: the preset {AUTO} chooses for a machine and a store: use "
            f"ttsfast.training.configure.configure, or name a preset of fixed values, such as "
            f"`{PRESET}: {DEFAULTS}`"
        )
    return config_of(overlaid(preset_values(preset), values))


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """Build a :class:`Config` from nested values; raise InputError as :func:`load_config` does."""
    return config_of(checked_values(values, SECTIONS, "configuration"))


def config_of(values: Values) -> Config:
    """The configuration with these checked values, and else the defaults."""
    return Config(**{name: section(**values.get(name, {})) for name, section in SECTIONS.items()})


def render(config: Config, *, title: str, preset: str = DEFAULTS) -> str:
    """The configuration as a commented YAML file that :func:`load_config` reads back.

    ``preset`` is where values come from again that somebody takes out of it.
    """
    lines = [f"# {line}" for line in title.splitlines()]
    lines += [f"{PRESET}: {preset}  # what is not named below comes from it"]
    for section, cls in SECTIONS.items():
        lines += ["", f"{section}:  # {(cls.__doc__ or '').strip()}"]
        values = getattr(config, section)
        for item in dataclasses.fields(cls):
            value = shown_value(getattr(values, item.name))
            lines.append(f"  {item.name}: {value}  # {item.metadata['help']}{_limits_text(item.metadata)}")
    return "\n".join(lines) + "\n"


def _limits_text(limits: Mapping[str, Any]) -> str:
    if limits["choices"]:
        return f" ({', '.join(limits['choices'])})"
    return ""
