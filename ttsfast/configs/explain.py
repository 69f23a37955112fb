"""``ttsfast config --explain``: what a key does, when a person would change it, what the presets give it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from ttsfast.config import AUTO, DEFAULTS, SECTIONS, config_of, preset_names, preset_values
from ttsfast.errors import InputError
from ttsfast.options import nearest, shown_value

WHEN = {
    "model.architecture": "convtts for a latent of each recording, or your own: docs/models.md",
    "model.size": "smaller when the run takes too long; larger when validation still improves at its end",
    "model.reduction_factor": "lower when consonants blur; higher when training or speech is too slow",
    "model.dropout": "higher when the training loss falls and the held-out error rises",
    "model.prenet_dropout": "higher when speech repeats, skips or runs on, though its mel_l1 is good",
    "model.posterior": "false when every reading of a text should sound the same and speech is flat anyway",
    "model.latent_dim": "higher for a corpus of many styles, lower for one even voice",
    "model.pitch": "when paralleltts speaks flat, and for --pitch; prepare the store with --pitch",
    "model.energy": "when stress is lost; prepare the store with --energy",
    "training.run_folder": "for a second run on the same store",
    "training.seed": "to see how much of a difference is chance",
    "training.device": "to leave a GPU to others",
    "training.max_steps": "higher when validation still improves at the end; lower for a first look",
    "training.start_from": "to make a voice of little speech out of one that there is: docs/finetuning.md",
    "training.freeze": "when a small corpus spoils what the voice it starts from knew",
    "training.mel_loss_weight": "hardly ever: it sets the scale of the total, and others are relative to it",
    "training.kl_loss_weight": "higher when free-running speech is far worse than teacher-forced",
    "training.stop_loss_weight": "higher when speech does not end; 0 for a model that knows its durations",
    "training.attention_loss_weight": "higher when the alignment stays a smear after some hundred steps",
    "training.alignment_loss_weight": "above 0 for a model that gives alignment_log_probs",
    "training.binarization_loss_weight": "higher when durations are good and the soft alignment is a smear",
    "training.attention_sigma": "wider when pauses are long or texts have many silent symbols",
    "training.attention_fade_steps": "when long texts lose their place, once the alignment stands",
    "training.use_huber_loss": "false to compare with a recipe that has L1",
    "training.huber_delta": "lower when few loud frames dominate the loss",
    "training.use_label_smoothing": "false to compare with a recipe that has none",
    "training.mel_label_smoothing": "lower when speech sounds muffled",
    "training.mel_smoothing": "noise when a small corpus is learnt by heart",
    "training.stop_label_smoothing": "lower when the stop fires late",
    "training.stop_token_positive_weight": "higher when speech runs on, lower when it is cut",
    "training.stop_tail_frames": "higher when speech runs on after its end",
    "training.kl_normalization": "vector to compare with a recipe that averages over latent vectors",
    "training.kl_free_bits": "above 0 when the posterior's KL falls to 0 and the latent is unused",
    "training.loss_normalization": "utterance when short utterances should count as much as long ones",
    "training.loss_backend": "to compare backends, or where one of them fails",
    "training.use_adaptive_loss_weights": "false when the weights in the log wander to their bounds",
    "training.adaptive_weighting": "to compare: uncertainty favours terms that have fallen",
    "training.loss_smoothing_factor": "lower when smoothed_loss is too restless to read",
    "training.max_loss_spike_threshold": "higher when the log counts spikes all the time",
    "training.optimizer": "to compare; the rates of the presets are for adamw",
    "training.learning_rate": "lower when the loss jumps or turns NaN; --find-lr suggests one for your model",
    "training.beta1": "lower when the gradient's direction changes fast, as with tiny batches",
    "training.beta2": "0.98 is usual with large batches or transformers",
    "training.eps": "higher when updates explode after long quiet",
    "training.weight_decay": "higher when a small corpus is learnt by heart",
    "training.scheduler": "one_cycle for a run of fixed length, constant for schedule_free",
    "training.warmup_steps": "higher when the first hundreds of steps are unstable",
    "training.min_learning_rate": "lower when the end of the run is still restless",
    "training.restart_period": "to end a run at a low rate: max_steps less warmup_steps",
    "training.restart_mult": "lower when each restart undoes what was learnt",
    "training.auto_lr_reduction": "false when the schedule alone should decide",
    "training.lr_reduction_factor": "lower to react faster to a stall",
    "training.lr_reduction_patience": "higher when validation is noisy",
    "training.gradient_clip_norm": "lower when steep_steps keeps rising",
    "training.gradient_norm_threshold": "higher when the warning is no news",
    "training.gradient_accumulation_steps": "higher when a batch does not fit the GPU's memory",
    "training.amp_dtype": "to force a precision; fp16 needs a loss scale, bf16 does not",
    "training.preflight": "false to train a model all the same that it refuses",
    "training.compile": "for a long run on a GPU; measure it with ttsfast bench train",
    "training.cuda_graphs": "for a small model on a GPU that waits for its host",
    "training.tf32": "false when float32 on a GPU must be float32",
    "training.deterministic": "when a run must resume to the same bits, on a GPU or on a CPU that others use",
    "training.ema_decay": "0.999 when validation jumps from one time to the next",
    "training.early_stopping": "false for a run of fixed length",
    "training.early_stopping_patience": "lower to save time, higher when validation is noisy",
    "training.early_stopping_min_delta": "higher when tiny gains keep a run alive",
    "training.early_stopping_restore_best_weights": "false when the last weights are wanted",
    "training.monitor": "to choose the best checkpoint by another figure",
    "training.convergence_window": "longer when the verdict says plateau while held-out figures still fall",
    "training.convergence_threshold": "nearer to 1 to be warned of smaller rises and swings",
    "training.val_step": "lower for a closer look, higher when validation takes much of the time",
    "training.val_utterances": "higher when free-running figures jump from one validation to the next",
    "training.val_texts": "to hear the same sentences in TensorBoard as the voice learns",
    "training.save_step": "lower when a machine may be taken away at any time",
    "training.keep_checkpoints": "higher to go back further, lower on a full disk",
    "training.log_step": "1 to see every step, higher when logs grow too long",
    "training.rank_timeout": "higher when ranks wait for a slow file system or a compiler",
    "training.sharding": "when the weights and the optimiser's state do not fit one GPU",
    "training.wandb": "when you keep your runs there",
    "data.store": "always: it is what the run learns from",
    "data.batch_size": "lower when memory runs out; the learning rate goes with it",
    "data.frame_budget": "lower when memory runs out, higher when a GPU is not busy",
    "data.speaker_balance": "above 0 when few speakers have most of the recordings",
    "data.num_workers": "higher when loader_wait_percent is above 1",
    "data.max_mel_frames": "higher when good utterances are left out; lower when memory runs out",
    "data.max_text_length": "the same, for texts",
    "data.pad_to_multiple": "64 for kernels that want it; it costs padding",
    "data.preprocessing_mode": "hardly ever: on_the_fly proves a store's features by its recordings",
    "data.enable_memory_mapping": "false when the store lies on a slow disk and fits in memory",
    "data.corpus_on_device": "never when the GPU's memory is short",
    "data.cache_verification": "false when a store was verified and every second counts",
    "data.pin_memory": "false when locked memory is limited (ulimit -l)",
    "data.prefetch_to_gpu": "false when the GPU's memory is short",
    "data.mixed_precision": "false when a loss is not finite and you want to know whether precision is why",
    "data.sample_rate": "with the store: 22,050 unless it was prepared for another rate",
    "data.n_mels": "with the store: 80 unless it was prepared with another number",
}
"""By ``section.key``: when somebody would set it to something else."""


def explained(name: str, chosen: Collection[str]) -> dict[str, str]:
    """Of a key: what it does, when to change it, what each preset gives it. Of a section: what its keys do.

    Args:
        name: ``section.key``, or a section.
        chosen: the keys that the preset ``auto`` chooses.

    Raises:
        InputError: there is no such key; the nearest one is named.
    """
    fields = {f"{s}.{f.name}": f for s, cls in SECTIONS.items() for f in dataclasses.fields(cls)}
    if name in SECTIONS:
        return {key: f.metadata["help"] for key, f in fields.items() if key.startswith(f"{name}.")}
    if name not in fields:
        # People remember a key more often than its section.
        alike = [key for key in fields if key.partition(".")[2] == name]
        hint = (
            f"; did you mean {alike[0]}?"
            if alike
            else nearest(name, fields, f"or one of {', '.join(SECTIONS)}")
        )
        raise InputError(f"--explain {name}: there is no such key{hint}")
    does = fields[name].metadata
    limits = f" ({', '.join(does['choices'])})" if does["choices"] else _range(does)
    section, _, key = name.partition(".")
    gives = {}
    for preset in preset_names():
        values = preset_values(DEFAULTS if preset == AUTO else preset)
        gives[preset] = shown_value(getattr(getattr(config_of(values), section), key))
    if name in chosen:
        gives[AUTO] = "chosen for the machine and the store; ttsfast config STORE shows it"
    return {name: f"{does['help']}{limits}", "change it": WHEN[name], **gives}


def _range(limits: Mapping[str, Any]) -> str:
    words = {"low": "at least", "above": "above", "high": "at most"}
    said = [f"{words[name]} {limits[name]:g}" for name in words if limits[name] is not None]
    return f" ({', '.join(said)})" if said else ""
