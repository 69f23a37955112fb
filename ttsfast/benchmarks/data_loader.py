"""The loader beside one ``.npy`` per utterance through ``DataLoader``; its first batch, memory and cost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from ttsfast.benchmarks import machine
from ttsfast.benchmarks.data_corpus import tile_store
from ttsfast.benchmarks.npy_files import NpyFiles, usual_collate
from ttsfast.config import load_config
from ttsfast.data.loading.batch import TEXT_MULTIPLE, Batch, collate
from ttsfast.data.loading.device_corpus import DeviceCorpus
from ttsfast.data.loading.device_loader import DeviceLoader
from ttsfast.data.loading.loader import MelLoader
from ttsfast.data.loading.plan import BatchPlan
from ttsfast.data.store.store import Store
from ttsfast.training.trainer import Trainer

BATCH = 48
WARM_UP, TIMED = 8, 48
"""Batches of a turn: the first fill what is made ahead, and are not timed."""
EPOCHS = 10
"""Over which memory is watched."""
STEPS = 15
"""Of the training."""
LARGE = 13_100
"""Utterances of a store whose first batch is waited for: as many as LJ Speech has."""


def run(store: Store, small: Store, folder: Path, *, device: torch.device, rounds: int) -> dict[str, Any]:
    """Measure.

    Args:
        store: what is loaded.
        small: a store as short as the demo's, which its model is trained on.
        folder: for the ``.npy`` files.
        device: where batches are delivered, and the training runs.
        rounds: turns of each variant.

    Returns:
        A dictionary that ``json`` can write; :func:`table` shows it.
    """
    return {
        "utterances": len(store),
        "frames": float(np.mean(store.frames)),
        "batch_size": BATCH,
        "throughput": _throughput(store, folder, device, rounds),
        "first_batch_ms": _first_batch(Path(store.path), rounds),
        "large_utterances": LARGE,
        "large_first_batch_ms": _first_batch(tile_store(store, folder / "large", LARGE), rounds),
        "memory": _memory(Path(store.path)),
        "training": _training(small, folder, device),
    }


def _plan(store: Store) -> BatchPlan:
    return BatchPlan(store.frames, np.arange(len(store)), batch_size=BATCH, seed=1)


def _throughput(store: Store, folder: Path, device: torch.device, rounds: int) -> dict[str, Any]:
    """Batches per second, in turns; a variant whose first batch differs from ours has no figure."""
    turn = WARM_UP + TIMED
    plan = _plan(store)
    planned = list(itertools.islice(_endless(plan), turn))
    truth = collate([store[int(i)] for i in planned[0]], pad_value=store.silence)
    with ExitStack() as stack:
        streams: dict[str, Callable[[], Iterator[Batch]]] = {}
        usual = partial(usual_collate, text_multiple=TEXT_MULTIPLE)
        ways: Sequence[tuple[type, Sequence[Callable[..., Batch]]]] = (
            (np.float32, (usual, collate)),
            (np.float16, (collate,)),
        )
        for dtype, collates in ways:
            files = NpyFiles(folder / dtype.__name__, store, np.arange(len(store)), dtype)
            for joined, workers in itertools.product(collates, (0, 1, 2)):
                loader = _data_loader(
                    files, planned, partial(joined, pad_value=store.silence), workers, device
                )
                name = "-fast-collate" if joined is collate else ""
                streams[f"npy-{dtype.__name__}{name}-{workers}"] = partial(_delivered, loader, device)
        # Worker processes are started before there are any threads of ours to be forked with.
        seen = {name: _first_of_all(stream()) for name, stream in streams.items()}
        for workers in (1, 2):
            ours = stack.enter_context(MelLoader(store, plan, num_workers=workers, device=device))
            seen[f"MelLoader-{workers}"] = next(iter(ours))
            streams[f"MelLoader-{workers}"] = partial(_forever, ours)
        if device.type == "cuda":
            on_device = DeviceLoader(DeviceCorpus(store, np.arange(len(store)), device), plan)
            seen["DeviceLoader"] = next(iter(on_device))
            streams["DeviceLoader"] = partial(_forever, on_device)
        correct = {name: _same(batch.to("cpu"), truth) for name, batch in seen.items()}
        speeds: dict[str, list[float]] = {name: [] for name in streams if correct[name]}
        for _ in range(rounds):
            for name, found in speeds.items():
                found.append(_turn(streams[name](), device))
    return {
        name: {"correct": ok, "batches_per_s": median(speeds[name]) if ok else None}
        for name, ok in correct.items()
    }


def _data_loader(
    files: NpyFiles,
    batches: Sequence[np.ndarray],
    collate_fn: Callable[..., Batch],
    workers: int,
    device: torch.device,
) -> DataLoader[Any]:
    """As good as it gets: workers that stay, and the same batches."""
    return DataLoader(
        files,
        batch_sampler=[batch.tolist() for batch in batches],
        collate_fn=collate_fn,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )


def _delivered(loader: DataLoader[Any], device: torch.device) -> Iterator[Batch]:
    return (batch.to(device, non_blocking=True) for batch in loader)


def _first_of_all(stream: Iterator[Batch]) -> Batch:
    """The first batch; the others too are taken, so that worker processes have nothing left to do."""
    first = next(stream)
    for _ in stream:
        pass
    return first


def _endless(plan: BatchPlan) -> Iterator[np.ndarray]:
    return itertools.chain.from_iterable(plan.epoch(epoch) for epoch in itertools.count())


def _forever(loader: MelLoader | DeviceLoader) -> Iterator[Batch]:
    while True:
        yield from loader


def _same(batch: Batch, truth: Batch) -> bool:
    if batch.ids != truth.ids:
        return False
    return all(torch.equal(tensor, truth.tensors()[name]) for name, tensor in batch.tensors().items())


def _turn(stream: Iterator[Batch], device: torch.device) -> float:
    """Batches per second of one turn."""
    for _ in range(WARM_UP):
        next(stream)
    machine.synchronize(device)
    begin = time.perf_counter()
    for _ in range(TIMED):
        next(stream)
    machine.synchronize(device)
    seconds = time.perf_counter() - begin
    return TIMED / seconds


def _first_batch(path: Path, rounds: int) -> dict[str, float]:
    """Milliseconds from a folder's name to a batch, with files and code in memory already."""
    seconds, cpu, opened = [], [], []
    for _ in range(3 + 2 * rounds):
        begin, busy = time.perf_counter(), time.process_time()
        store = Store.open(path)
        opened.append(time.perf_counter() - begin)
        with MelLoader.open(store, batch_size=BATCH) as loader:
            next(iter(loader))
            seconds.append(time.perf_counter() - begin)
            cpu.append(time.process_time() - busy)
    found = {
        "median": median(seconds[3:]),
        "best": min(seconds[3:]),
        "cpu": median(cpu[3:]),
        "of_opening": median(opened[3:]),
    }
    return {name: 1e3 * value for name, value in found.items()}


def _memory(path: Path) -> dict[str, Any]:
    """Anonymous memory of this process after each epoch, in MiB."""
    after = []
    with MelLoader.open(path, batch_size=BATCH) as loader:
        for _ in range(EPOCHS):
            for _batch in loader:
                pass
            after.append(_anonymous_mib())
    return {"after_epoch_mib": after, "growth_mib": after[-1] - after[0]}


def _anonymous_mib() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024


def _training(store: Store, folder: Path, device: torch.device) -> dict[str, float]:
    """What the loader costs a step of training ConvTTS, in its own and in the consumer's time."""
    overrides = [
        f"data.store={store.path}",
        f"training.run_folder={folder / 'run'}",
        f"training.device={device.type}",
        "data.corpus_on_device=never",
    ]
    with Trainer(load_config(overrides=overrides, preset="convtts")) as trainer:
        stream = _forever(trainer.loader)
        times, cpu_times, waits = [], [], []
        for _ in range(3 + STEPS):
            wall, cpu, waited = time.perf_counter(), time.process_time(), trainer.loader.wait_seconds
            trainer.train_step([next(stream)])
            machine.synchronize(device)
            times.append(time.perf_counter() - wall)
            cpu_times.append(time.process_time() - cpu)
            waits.append(trainer.loader.wait_seconds - waited)
        cpu = time.process_time()
        for _ in range(10 * STEPS):
            next(stream)
        own = (time.process_time() - cpu) / (10 * STEPS)
    step = median(times[3:])
    return {
        "step_ms": step * 1e3,
        "step_cpu_ms": median(cpu_times[3:]) * 1e3,
        "loader_cpu_ms": own * 1e3,
        "loader_cpu_percent_of_step": 100 * own / step,
        "loader_cpu_percent_of_step_cpu": 100 * own / median(cpu_times[3:]),
        "loader_wait_percent": 100 * sum(waits[3:]) / sum(times[3:]),
    }


def table(result: dict[str, Any]) -> str:
    """The figures in columns; speeds against the best ``.npy`` variant with the collation that recipes have,
    and against the best with ours."""
    rows = result["throughput"]
    speeds = {name: row["batches_per_s"] for name, row in rows.items() if row["correct"]}
    files = {name: speed for name, speed in speeds.items() if name.startswith("npy")}
    best = max(files.values(), default=None)
    usual = max((speed for name, speed in files.items() if "fast-collate" not in name), default=None)
    lines = [
        f"loader: batches of {result['batch_size']}, {result['frames']:.0f} frames on average, "
        f"{result['utterances']} utterances",
        f"  {'variant':<28}{'batches/s':>11}{'x usual npy':>13}{'x best npy':>12}",
    ]
    for name in rows:
        if name not in speeds:
            lines.append(f"  {name:<28}wrong batches, no figures")
            continue
        ratios = [f"{speeds[name] / other:.1f}" if other else "-" for other in (usual, best)]
        lines.append(f"  {name:<28}{speeds[name]:>11.1f}{ratios[0]:>13}{ratios[1]:>12}")
    memory, training = result["memory"], result["training"]
    for name, count in (
        ("first_batch_ms", result["utterances"]),
        ("large_first_batch_ms", result["large_utterances"]),
    ):
        first = result[name]
        lines.append(
            f"  first batch of a warm store of {count:,}: {first['median']:.1f} ms, of which opening takes "
            f"{first['of_opening']:.1f} (best {first['best']:.1f}, CPU {first['cpu']:.1f})"
        )
    lines += [
        f"  anonymous memory over {len(memory['after_epoch_mib'])} epochs: "
        f"{memory['after_epoch_mib'][0]:.1f} MiB after the first, {memory['growth_mib']:+.1f} to the last",
        f"  demo's training: {training['step_ms']:.1f} ms a step ({training['step_cpu_ms']:.1f} of CPU); "
        f"loader {training['loader_cpu_ms']:.2f} ms of CPU ({training['loader_cpu_percent_of_step']:.1f}% of "
        f"the step), waited for {training['loader_wait_percent']:.2f}%",
    ]
    return "\n".join(lines)
