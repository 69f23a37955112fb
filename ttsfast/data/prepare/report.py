"""What preparation, finalizing and appending tell of a store when they are done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttsfast.data.checks.finding import Finding, in_lines
from ttsfast.data.corpus.listings import Exclusion, count_exclusions
from ttsfast.data.store.manifest import Manifest


@dataclass(frozen=True)
class PrepareReport:
    """What preparation did."""

    store: Path
    fingerprint: str
    unchanged: bool
    """The store was there already, made from the same input in the same way: nothing was done."""
    computed: int
    """Utterances whose features were computed in this run; the others were left by an interrupted one."""
    utterances: int
    train: int
    validation: int
    test: int
    frames: int
    seconds: float
    """Of audio, by its frames."""
    speakers: int
    symbols: int
    exclusions: tuple[Exclusion, ...]
    findings: tuple[Finding, ...] = ()
    """What the cheap checks found, the worst first."""

    @property
    def exclusion_counts(self) -> dict[str, int]:
        """Reason: how many."""
        return count_exclusions(self.exclusions)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is no fault, but will be missed later; a line each, with the remedy."""
        if self.validation:
            return ()
        return (
            "nothing is held out, and training needs an utterance to validate on; add distinct texts, raise "
            "--validation-fraction, or list ids in the corpus's validation.txt",
        )

    def __str__(self) -> str:
        """For a person: a few lines."""
        did = "nothing to do, it is complete" if self.unchanged else f"{self.computed} computed in this run"
        lines = [
            f"{self.store}: {self.utterances} utterances, {self.seconds / 3600:.2f} h ({did})",
            f"  {self.train} to train on, {self.validation} to validate, {self.test} to test; "
            f"{self.speakers} speakers, {self.symbols} symbols; fingerprint {self.fingerprint[:12]}",
        ]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        lines += [f"  left out: {count} x {reason}" for reason, count in self.exclusion_counts.items()]
        lines += [f"    {exclusion.id}: {exclusion.detail}" for exclusion in self.exclusions]
        lines += [f"  {line}" for line in in_lines(self.findings)]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        others = ("store", "exclusions", "findings")
        plain = {name: value for name, value in vars(self).items() if name not in others}
        return plain | {
            "store": str(self.store),
            "warnings": list(self.warnings),
            "exclusion_counts": self.exclusion_counts,
            "exclusions": [vars(exclusion) for exclusion in self.exclusions],
            "findings": [finding.to_dict() for finding in self.findings],
        }


def report(folder: Path, manifest: Manifest, *, unchanged: bool = False, computed: int = 0) -> PrepareReport:
    """The report on a complete store."""
    entries = manifest.entries
    frames = int(entries.frames.sum())
    return PrepareReport(
        store=folder,
        fingerprint=manifest.fingerprint,
        unchanged=unchanged,
        computed=computed,
        utterances=len(entries),
        train=entries.split.count("train"),
        validation=entries.split.count("validation"),
        test=entries.split.count("test"),
        frames=frames,
        seconds=frames * manifest.contract.hop_length / manifest.contract.sample_rate,
        speakers=len(manifest.speakers),
        symbols=len(manifest.symbols),
        exclusions=manifest.exclusions,
    )
