"""What a loss call returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ttsfast.terms.spec import TERMS


@dataclass
class LossOutput:
    """The total, to differentiate, and what it is made of.

    The terms are kept as vectors, which is what one reduction over ranks or micro-batches wants: in the order
    of :data:`ttsfast.terms.spec.TERMS`, n of them, the two of an alignment only where one is given. The named
    views are cut from them on demand.
    """

    total: Tensor
    """() weighted sum of the active terms, connected to the inputs."""
    values: Tensor
    """(n,) detached and unweighted; 0 for an absent term."""
    floor_values: Tensor
    """(n,) least possible value of each term."""
    weight_values: Tensor
    """(n,) weight of each term in ``total``."""
    frames: Tensor
    """() int64, valid frames of this call."""
    present: tuple[bool, ...]
    """(n,) Which terms had inputs."""
    clamped: Tensor | None = None
    """() int64, how many lengths lay outside their axes and were clamped, on a device whose values nobody
    waits for; None on a CPU, where they raise. Sum it up with the terms, and look where a log is written: a
    batch of another number than 0 is not the batch that was meant."""
    unalignable: Tensor | None = None
    """() int64, utterances of fewer steps than symbols, which no alignment visits whole: their alignment term
    is 0 and sends no gradient. None without an alignment."""

    @property
    def mel(self) -> Tensor:
        """() mel term, the sum over both predictions where there are two."""
        return self.values[0]

    @property
    def kl(self) -> Tensor | None:
        """() KL term, None when absent."""
        return self._term(1)

    @property
    def stop(self) -> Tensor | None:
        """() stop term, None when absent."""
        return self._term(2)

    @property
    def attention(self) -> Tensor | None:
        """() guided attention term, None when absent."""
        return self._term(3)

    @property
    def alignment(self) -> Tensor | None:
        """() forward-sum term, None when absent."""
        return self._term(4)

    @property
    def binarization(self) -> Tensor | None:
        """() binarization term, None when absent."""
        return self._term(5)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Weight of each present term by name, the adaptive factor included."""
        return self._named(self.weight_values)

    @property
    def floors(self) -> dict[str, Tensor]:
        """Floor of each present term by name."""
        return self._named(self.floor_values)

    @property
    def excess(self) -> dict[str, Tensor]:
        """Value above the floor of each present term by name: what to watch."""
        return self._named(self.values - self.floor_values)

    def _term(self, index: int) -> Tensor | None:
        return self.values[index] if index < len(self.present) and self.present[index] else None

    def _named(self, vector: Tensor) -> dict[str, Tensor]:
        return {TERMS[i]: vector[i] for i, present in enumerate(self.present) if present}
