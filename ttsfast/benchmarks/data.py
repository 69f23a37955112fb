"""The data path on this machine: features, assembly of batches, the loader, planning; in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ttsfast.benchmarks import data_assembly, data_features, data_loader, data_planning, machine
from ttsfast.benchmarks.data_corpus import about_the_middle, make_store
from ttsfast.errors import InputError

SECTIONS = ("features", "assembly", "planning", "loader")

LONG, SHORT = (2.3, 9.3), (1.0, 3.5)
"""Seconds of a recording: 200 to 800 frames, 500 on average, and the demo's."""


def run_data_bench(
    sections: Sequence[str] = SECTIONS,
    *,
    device: str | torch.device = "cpu",
    utterances: int = 576,
    rounds: int = 7,
    memory: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure, on synthetic corpora in a temporary folder.

    Args:
        sections: what to measure, of SECTIONS.
        device: where batches are delivered, and the training runs.
        utterances: of the store that is loaded.
        rounds: turns of each variant.
        memory: also prepare corpora of 1,000 and 20,000 utterances, and watch what that takes; for minutes.
        progress: told what is being done.

    Returns:
        A dictionary that ``json`` can write; :func:`table` shows it.

    Raises:
        InputError: a section is unknown.
    """
    unknown = [name for name in sections if name not in SECTIONS]
    if unknown:
        raise InputError(f"no section {unknown[0]!r}: there are {', '.join(SECTIONS)}")
    device = torch.device(device)
    result: dict[str, Any] = {"machine": machine.describe(device), "rounds": rounds}
    with tempfile.TemporaryDirectory(prefix="ttsfast-bench-") as name:
        folder = Path(name)
        for section in sections:
            progress(section)
            if section == "features":
                sizes = data_features.SIZES if memory else ()
                result[section] = data_features.run(rounds=rounds, sizes=sizes, progress=progress)
            elif section == "assembly":
                result[section] = data_assembly.run(rounds=rounds)
            elif section == "planning":
                result[section] = data_planning.run(rounds=rounds)
            elif section == "loader":
                store = make_store(folder / "long", about_the_middle(utterances, LONG))
                small = make_store(folder / "short", about_the_middle(160, SHORT, seed=1))
                result[section] = data_loader.run(store, small, folder, device=device, rounds=rounds)
    return result


_TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "features": data_features.table,
    "assembly": data_assembly.table,
    "planning": data_planning.table,
    "loader": data_loader.table,
}


def table(result: dict[str, Any]) -> str:
    """The figures in columns, section by section."""
    shown = [_TABLES[name](result[name]) for name in SECTIONS if name in result]
    shown.append(machine.summary(result["machine"]))
    return "\n\n".join(shown)
