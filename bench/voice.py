"""From a folder of recordings to words that are heard: four commands, each timed as a person waits for it.

    python bench/voice.py CORPUS FOLDER --asr MODEL --output bench/results/voice-kathleen.json \\
        --prepare="--language en --phonemes --trim"

The commands are `ttsfast prepare`, `verify`, `train` and `evaluate --asr`, in processes of their own;
training is told nothing but the store. The record has their times and every figure of metrics.json, those of
the recordings and of their copies among them.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.evaluation.log import read_log

LEFT_OUT = {"by_utterance", "utterance_figures", "samples"}
"""Of metrics.json: what is one entry for each utterance, and is not a result but its material."""


def without_utterances(value: Any) -> Any:
    """Figures alone, at any depth."""
    if isinstance(value, dict):
        return {key: without_utterances(item) for key, item in value.items() if key not in LEFT_OUT}
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("folder", type=Path, help="new or empty: the store and the run go there")
    parser.add_argument("--asr", required=True)
    parser.add_argument("--prepare", default="", help="options of ttsfast prepare")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    store, run = Path("data") / options.corpus.name, Path("runs") / options.corpus.name
    corpus, asr = options.corpus.resolve(), options.asr
    if Path(asr).is_dir():
        asr = str(Path(asr).resolve())
    commands = [
        ["prepare", str(corpus), str(store), *shlex.split(options.prepare)],
        ["verify", str(store)],
        ["train", str(store)],
        ["evaluate", str(run), "--asr", asr],
    ]
    options.folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"machine": describe(torch.device("cpu")), "commands": []}
    for command in commands:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "ttsfast", *command], cwd=options.folder, check=True)
        shown = [options.corpus.name if part == str(corpus) else part for part in command]
        shown = ["MODEL" if part == asr else part for part in shown]
        result["commands"].append(
            {"command": shlex.join(["ttsfast", *shown]), "seconds": round(time.perf_counter() - began, 1)}
        )
    run = options.folder / run
    result["settings"] = yaml.safe_load((run / "config.yaml").read_text())
    result["validations"] = [row for row in read_log(run) if row["kind"] == "validation"]
    result["metrics"] = without_utterances(json.loads((run / "metrics.json").read_text()))
    write_record(options.output, result)


if __name__ == "__main__":
    main()
