"""Parameters and speed of both models, side by side in one process; writes bench/results/models.json.

Neither is trained: a step and a second of speech cost what they cost whatever the weights are. A step is of
16 utterances of up to 400 frames and 80 symbols. Speech is the mel of one text of 80 symbols, read in 400
frames; a vocoder comes on top, the same for both. Seconds are of one processor, which other work does not use
up. Where the CPU has tiles for bf16, steps are measured in it, too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from ttsfast.benchmarks import alignment_step, machine
from ttsfast.benchmarks.records import write_record
from ttsfast.data.features.contract import PRESETS
from ttsfast.devices import multiplies_in_bf16, torch_threads
from ttsfast.models.paralleltts import ParallelTTS

RECORD = Path(__file__).parent / "results" / "models.json"
CONTRACT = PRESETS["hifigan-22k"]
BF16 = "steps_per_second_bf16"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", default="nano,small,base")
    parser.add_argument("--output", type=Path, default=RECORD)
    chosen = parser.parse_args()
    sizes = chosen.sizes.split(",")
    with torch_threads(1):
        found = {size: measure(size, chosen.rounds) for size in sizes}
        record = {"machine": machine.describe(torch.device("cpu")), "rounds": chosen.rounds, "sizes": found}
    write_record(chosen.output, record)
    for size, models in found.items():
        for name, row in models.items():
            print(
                f"{size:<6}{name:<12}{row['parameters'] / 1e6:6.2f} M parameters "
                f"{row['steps_per_second']:7.2f} steps/s {row['x_real_time']:7.1f} x real time"
                + (f" {row[BF16]:7.2f} steps/s in bf16" if BF16 in row else "")
            )
    print(f"written to {chosen.output}")


def measure(size: str, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of turns, of each architecture."""
    turns: dict[tuple[str, str], Callable[[], float]] = {}
    found: dict[str, dict[str, float]] = {}
    for name in alignment_step.ARCHITECTURES:
        step = alignment_step.Step(name, torch.device("cpu"), size)
        turns[name, "steps_per_second"] = speed(step)
        turns[name, "x_real_time"] = speed(speech(step))
        if multiplies_in_bf16():
            turns[name, BF16] = speed(alignment_step.Step(name, torch.device("cpu"), size, half=True))
        found[name] = {"parameters": sum(p.numel() for p in step.model.parameters())}
    speeds: dict[tuple[str, str], list[float]] = {key: [] for key in turns}
    for turn in range(rounds + 1):
        for key, taken in turns.items():
            value = taken()
            # The first warms up.
            if turn:
                speeds[key].append(value)
    for (name, figure), values in speeds.items():
        found[name][figure] = median(values)
    return found


def speed(turn: Callable[[], object]) -> Callable[[], float]:
    """What a turn does in a second of one processor: itself once, or the seconds of speech that it gives."""

    def timed() -> float:
        began = time.process_time()
        done = turn()
        return (done if isinstance(done, float) else 1.0) / (time.process_time() - began)

    return timed


def speech(step: alignment_step.Step) -> Callable[[], float]:
    """Reads one text, and gives the seconds that it took."""
    text = step.batch.text[:1]
    lengths = torch.tensor([text.shape[1]])
    model = step.model

    def speak() -> float:
        if isinstance(model, ParallelTTS):
            # Untrained, a symbol lasts about a step of two frames.
            result = model.synthesize(text, lengths, max_frames=400, speed=0.4)
        else:
            # It never stops.
            result = model.synthesize(text, lengths, max_frames=400, stop_threshold=1.0)
        return int(result.mel_lengths[0]) * CONTRACT.hop_length / CONTRACT.sample_rate

    return speak


if __name__ == "__main__":
    main()
