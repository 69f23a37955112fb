"""Logs of real runs, and what is known of each beside its log."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.config import Config, config_from_dict, render
from ttsfast.doctor.run.reading import run_of
from ttsfast.doctor.run.subject import Corpus, Run
from ttsfast.options import overlaid

RECORDED = Path(__file__).parent / "recorded"
CLEAN = ("kathleen", "kathleen-a", "demo-a", "kathleen-b", "kathleen-c", "demo-b")
"""Of models with attention; thresholds were chosen on the first half of them."""
PARALLEL = ("parallel-demo", "parallel-kathleen", "parallel-persian")
"""Of models of durations; thresholds of their own checks were chosen on the first two."""


@dataclass(frozen=True)
class Log:
    """A run's log, its configuration and its corpus."""

    rows: list[dict[str, Any]]
    config: Config
    corpus: Corpus

    @property
    def run(self) -> Run:
        """What checks see of it."""
        return run_of(self.rows, self.config, self.corpus)

    @property
    def last(self) -> int:
        """Its last step."""
        return max(int(row["step"]) for row in self.rows)

    def training(self, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Log:
        """The same with each line of training changed: what ``change`` returns replaces values of it."""
        return self._of("train", change)

    def held_out(self, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Log:
        """The same with each validation changed."""
        return self._of("validation", change)

    def _of(self, kind: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Log:
        rows = [
            {**row, **(change(row) or {})} if row["kind"] == kind else row for row in copy.deepcopy(self.rows)
        ]
        return replace(self, rows=rows)

    def until(self, step: int) -> Log:
        """The run as it was after a step, as if that had been its last."""
        kept = replace(self, rows=[row for row in self.rows if row["step"] <= step])
        return kept.configured(max_steps=kept.last)

    def configured(self, section: str = "training", **values: Any) -> Log:
        """With other values of the configuration, and the log as it is."""
        changed = overlaid(self.config.to_dict(), {section: values})
        return replace(self, config=config_from_dict(changed))

    def write(self, folder: Path) -> Path:
        """As a run folder; without its store."""
        folder.mkdir(parents=True)
        (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        (folder / "config.yaml").write_text(render(self.config, title="A run."))
        return folder


@lru_cache
def recorded(name: str) -> Log:
    """A log, to be changed by its methods only."""
    with np.load(RECORDED / f"{name}.npz") as arrays:
        rows = [row for kind in ("train", "validation") for row in _lines(kind, arrays)]
        given, corpus = json.loads(str(arrays["config"])), json.loads(str(arrays["corpus"]))
    values: dict[str, dict[str, Any]] = {}
    for key, value in given.items():
        section, _, name = key.partition(".")
        values.setdefault(section, {})[name] = value
    rows.sort(key=lambda row: (row["step"], row["kind"]))
    return Log(rows, config_from_dict(values), Corpus(**corpus))


def _lines(kind: str, arrays: Any) -> list[dict[str, Any]]:
    names = json.loads(str(arrays[f"{kind}_names"]))
    return [
        {"kind": kind, "step": int(line[0])}
        | {n: float(v) for n, v in zip(names[1:], line[1:], strict=True) if not math.isnan(v)}
        for line in arrays[kind].T
    ]
