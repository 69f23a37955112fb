"""How a run ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class TrainingResult:
    """How a run ended."""

    run_folder: Path
    step: int
    reason: str
    """``max_steps`` or ``early_stopping``"""
    checkpoint: Path
    """The weights to use: the best where they are asked for, else the last."""
    best_step: int
    best_metric: float
    """The watched metric's least value on held-out data."""
