"""Errors of the fundamental frequency (F0) and of voicing, over pairs of frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ttsfast.evaluation.figures import Figures

GROSS = 0.2
"""An F0 further off than this share of the recorded one is a gross error, such as an octave."""


@dataclass(frozen=True)
class PitchErrors:
    """Of one utterance."""

    pairs: int
    voiced_pairs: int
    """Voiced on both sides."""
    f0_rmse: float | None
    """Cents, over the pairs voiced on both sides; None without one."""
    gross_pitch_error: float | None
    """Share of the pairs voiced on both sides; None without one."""
    voicing_error: float
    """Share of all pairs."""

    def add_to(self, figures: Figures, utterance: str) -> None:
        """Count them as figures of ``utterance``."""
        figures.add("voicing_error", utterance, self.voicing_error, self.pairs)
        if self.f0_rmse is not None and self.gross_pitch_error is not None:
            figures.add("f0_rmse", utterance, self.f0_rmse)
            figures.add("gross_pitch_error", utterance, self.gross_pitch_error, self.voiced_pairs)


def pitch_errors(spoken: np.ndarray, recorded: np.ndarray) -> PitchErrors:
    """Compare two tracks of F0, pair by pair.

    ``f0_rmse`` is the root mean square of ``1200 log2(spoken / recorded)``, gross errors among them;
    ``gross_pitch_error`` and ``voicing_error`` are GPE and VDE of Chu and Alwan (2009).

    Args:
        spoken: (P,) Hz, 0 where unvoiced.
        recorded: (P,) Hz, 0 where unvoiced.

    Raises:
        ValueError: there is no pair, the shapes differ, or a value is negative or not finite.
    """
    spoken, recorded = np.asarray(spoken, dtype=np.float64), np.asarray(recorded, dtype=np.float64)
    if spoken.ndim != 1 or spoken.shape != recorded.shape or not spoken.size:
        raise ValueError(f"pitch errors need pairs of frames, got {spoken.shape} and {recorded.shape}")
    for values in (spoken, recorded):
        if not np.isfinite(values).all() or values.min() < 0:
            raise ValueError("pitch is in Hz, 0 where unvoiced; found a negative value, or one not finite")
    both = (spoken > 0) & (recorded > 0)
    rmse = gross = None
    if both.any():
        ratio = spoken[both] / recorded[both]
        rmse = float(np.sqrt(np.mean((1200 * np.log2(ratio)) ** 2)))
        gross = float((np.abs(ratio - 1) > GROSS).mean())
    return PitchErrors(
        pairs=spoken.size,
        voiced_pairs=int(both.sum()),
        f0_rmse=rmse,
        gross_pitch_error=gross,
        voicing_error=float(((spoken > 0) != (recorded > 0)).mean()),
    )
