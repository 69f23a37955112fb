"""From a configuration to the parts of a run: store, loaders, loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from ttsfast.config import Config, TrainingConfig
from ttsfast.data.loading.batch import Batch, collate
from ttsfast.data.loading.device_corpus import DeviceCorpus, fits_beside_a_model, needed_bytes
from ttsfast.data.loading.device_loader import DeviceLoader
from ttsfast.data.loading.loader import MelLoader
from ttsfast.data.loading.plan import BatchPlan
from ttsfast.data.loading.plan_loader import select
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError
from ttsfast.losses.backend import unavailable
from ttsfast.losses.module import TTSLoss
from ttsfast.progress import console
from ttsfast.training.distributed.global_counts import GlobalCounts
from ttsfast.training.distributed.process_group import ProcessGroup

Loader: TypeAlias = MelLoader | DeviceLoader
"""What makes batches of a split, on the host or on the device."""


def open_store(config: Config) -> Store:
    """Open the feature store and check that it is the one the configuration describes."""
    data = config.data
    store = Store.open(
        data.store,
        memory_map=data.enable_memory_mapping,
        verify=data.cache_verification,
        features="stored" if data.preprocessing_mode == "precompute" else "on_the_fly",
    )
    for key, found in (("sample_rate", store.contract.sample_rate), ("n_mels", store.contract.n_mels)):
        if getattr(data, key) != found:
            raise InputError(
                f"data.{key} is {getattr(data, key)}, but the store {data.store} was prepared with {found}: "
                f"set data.{key}={found} or prepare again"
            )
    return store


def open_loaders(
    config: Config,
    store: Store,
    device: torch.device,
    reduction_factor: int,
    ranks: ProcessGroup | None = None,
) -> tuple[Loader, Loader]:
    """The training and validation loaders; says what the length limits leave out.

    Each rank has its part of the training batches; the held-out ones are whole.

    Raises:
        InputError: a split is empty, there are more ranks than utterances, or no held-out clip has a true end
            while the stop term is on.
    """
    ranks = ranks or ProcessGroup()
    data = config.data
    loaders: list[Loader] = []
    for split in ("train", "validation"):
        indices, left_out = select(store, split, data.max_mel_frames, data.max_text_length)
        if left_out:
            names = ", ".join(item.id for item in left_out[:5]) + (", ..." if len(left_out) > 5 else "")
            console.print(
                f"{split}: {len(left_out)} of {len(left_out) + len(indices)} utterances left out, over "
                f"data.max_mel_frames={data.max_mel_frames} or data.max_text_length={data.max_text_length}: "
                f"{names}",
                markup=False,
            )
        if split == "validation":
            _check_true_end(store, indices, config.training)
        if split == "train" and ranks.size > len(indices):
            raise InputError(
                f"{ranks.size} ranks for {len(indices)} training utterances in {store.path}: "
                "use fewer ranks (--nproc-per-node, --nnodes), or prepare more data"
            )
        padding = padding_of(config, reduction_factor)
        # What is measured stays each held-out utterance once.
        balance = data.speaker_balance if split == "train" else 0.0
        whose = ranks if split == "train" else ProcessGroup()
        loaders.append(_loader(config, store, indices, device, padding, balance, whose))
    return loaders[0], loaders[1]


def forever(loader: Loader) -> Iterator[Batch]:
    """Epoch after epoch."""
    while True:
        yield from loader


def _check_true_end(store: Store, indices: np.ndarray, config: TrainingConfig) -> None:
    if not all(_is_truncated(store, int(i)) for i in indices):
        return
    without, other = "the stop threshold cannot be calibrated", "training.stop_loss_weight=0"
    if config.stop_loss_weight == 0:
        if config.monitor == "mel_l1":
            return
        without, other = f"there is nothing to watch by {config.monitor}", "training.monitor=mel_l1"
    raise InputError(
        f"{store.path}: every held-out clip is marked truncated, so {without}; hold whole clips out "
        f"(validation.txt), or set {other}"
    )


def _is_truncated(store: Store, index: int) -> bool:
    return store.entries[index].truncated


def _loader(
    config: Config,
    store: Store,
    indices: np.ndarray,
    device: torch.device,
    padding: dict[str, Any],
    speaker_balance: float,
    ranks: ProcessGroup,
) -> Loader:
    data = config.data
    plan = plan_batches(config, store, indices, padding, speaker_balance, ranks.rank, ranks.size)
    if _keep_on_device(config, store, indices, device):
        corpus = DeviceCorpus(store, indices, device)
        console.print(
            f"{len(indices)} utterances are kept in the memory of {device}: "
            f"{needed_bytes(store, indices) / 2**20:,.1f} MiB",
            markup=False,
        )
        return DeviceLoader(corpus, plan, **padding)
    on_gpu = device.type == "cuda"
    return MelLoader(
        store,
        plan,
        num_workers=data.num_workers,
        pin_memory=data.pin_memory and on_gpu,
        device=device if data.prefetch_to_gpu and on_gpu else None,
        **padding,
    )


def plan_batches(
    config: Config,
    store: Store,
    indices: np.ndarray,
    padding: dict[str, Any],
    speaker_balance: float,
    rank: int,
    ranks: int,
) -> BatchPlan:
    """The batches of these utterances, as the configuration says; ``padding`` is of :func:`padding_of`."""
    return BatchPlan(
        store.frames,
        indices,
        batch_size=config.data.batch_size,
        seed=config.training.seed,
        frame_budget=config.data.frame_budget or None,
        speakers=store.entries.speaker,
        speaker_balance=speaker_balance,
        rank=rank,
        world_size=ranks,
        **padding,
    )


def _keep_on_device(config: Config, store: Store, indices: np.ndarray, device: torch.device) -> bool:
    data = config.data
    if data.corpus_on_device == "auto":
        # Features that are to be computed at every read are not to be kept.
        return data.preprocessing_mode == "precompute" and fits_beside_a_model(store, indices, device)
    return data.corpus_on_device == "always"


def padding_of(config: Config, reduction_factor: int) -> dict[str, Any]:
    """How batches are padded, as the loader, its plan and ``collate`` take it."""
    tail_frames = tail_steps(config, reduction_factor) * reduction_factor
    return {"tail_frames": tail_frames, "pad_to_multiple": config.data.pad_to_multiple}


def collate_again(config: Config, store: Store, ids: Sequence[str], reduction_factor: int) -> Batch:
    """The training batch of these utterances, as the loader makes it."""
    index = {str(name): place for place, name in enumerate(store.entries.id)}
    padding = padding_of(config, reduction_factor)
    return collate([store[index[name]] for name in ids], pad_value=store.silence, **padding)


def tail_steps(config: Config, reduction_factor: int) -> int:
    """The stop term's tail in decoder steps, which is how the loss counts it: rounded up, never away."""
    return -(-config.training.stop_tail_frames // reduction_factor)


def count_over_ranks(
    config: Config,
    store: Store,
    plan: BatchPlan,
    reduction_factor: int,
    ranks: ProcessGroup,
    device: torch.device,
) -> GlobalCounts | None:
    """The normaliser over all ranks; None for a single GPU, which counts its batches by itself."""
    if ranks.size == 1 and device.type != "cpu":
        return None
    return GlobalCounts(plan, store, reduction_factor, tail_steps(config, reduction_factor))


def build_loss(config: Config, reduction_factor: int, rank: int = 0) -> TTSLoss:
    """The training loss. One decoder step makes ``reduction_factor`` frames."""
    training = config.training
    smoothing = training.use_label_smoothing
    reason = None if training.loss_backend == "auto" else unavailable(training.loss_backend)
    if reason is not None:
        raise InputError(f"training.loss_backend={training.loss_backend}: {reason}")
    return TTSLoss(
        mel_weight=training.mel_loss_weight,
        kl_weight=training.kl_loss_weight if config.model.posterior else 0.0,
        stop_weight=training.stop_loss_weight,
        attention_weight=training.attention_loss_weight,
        alignment_weight=training.alignment_loss_weight,
        binarization_weight=training.binarization_loss_weight,
        mel_loss="huber" if training.use_huber_loss else "l1",
        huber_delta=training.huber_delta,
        mel_label_smoothing=training.mel_label_smoothing if smoothing else 0.0,
        mel_smoothing=training.mel_smoothing if smoothing else "none",
        normalization=training.loss_normalization,
        kl_normalization=training.kl_normalization,
        kl_free_bits=training.kl_free_bits,
        stop_label_smoothing=training.stop_label_smoothing if smoothing else 0.0,
        stop_pos_weight=training.stop_token_positive_weight,
        stop_tail_frames=tail_steps(config, reduction_factor),
        attention_sigma=training.attention_sigma,
        weighting=training.adaptive_weighting if training.use_adaptive_loss_weights else "fixed",
        backend=training.loss_backend,
        seed=training.seed + rank,
        # Once per optimiser step, from all its micro-batches.
        update_in_forward=False,
    )
