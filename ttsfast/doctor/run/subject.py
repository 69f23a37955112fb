"""What a check of a run is, and what it looks at: figures over steps, by our names for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ttsfast.config import Config
from ttsfast.data.checks.finding import Evidence, Finder, Finding
from ttsfast.doctor.run.curve import Curve
from ttsfast.terms.spec import TERMS

LEAST_POINTS = 8
"""Of a curve that a check judges: fewer say nothing."""


@dataclass(frozen=True)
class Corpus:
    """What a run was trained on."""

    utterances: int
    """Of the training split."""
    frames: int
    """Of them all."""
    mean_error: float
    """``mel_l1`` of the corpus mean in every frame, on held-out utterances."""
    silence_error: float
    """``mel_l1`` of digital silence, likewise."""
    mean_loss: float
    """The run's training distance of the corpus mean."""
    silence_loss: float


@dataclass(frozen=True)
class Run:
    """A run, as checks see it."""

    training: Mapping[str, Curve]
    """By name, as ours call it: ``mel``, ``learning_rate``, ``update_ratio.prenet``, ..."""
    held_out: Mapping[str, Curve] = field(default_factory=dict)
    """Likewise: ``mel_l1``, ``duration_error``, ...; a loss of another trainer by its term."""
    config: Config | None = None
    """Of a run of ours."""
    corpus: Corpus | None = None
    """Where its store is at hand."""
    starts: Sequence[int] = ()
    """Steps after which a process went on with it, where that is known."""

    @cached_property
    def last_step(self) -> int:
        """That was logged."""
        return max(int(c.steps[-1]) for curves in (self.training, self.held_out) for c in curves.values())

    @property
    def over(self) -> bool:
        """Whether it took all of its steps; one of another trainer is taken as over."""
        return self.config is None or self.last_step >= self.config.training.max_steps

    @property
    def by_durations(self) -> bool:
        """Whether it finds durations in place of attention: its alignment is a monotonic path whatever it has
        learnt, and there is no stop."""
        guided = self.config is None or self.config.training.attention_loss_weight > 0
        return "alignment" in self.training and not (guided and "attention" in self.training)

    @property
    def utterances_per_step(self) -> float:
        """Of a run of ours: by the batch size, or by the frame budget where the corpus is at hand."""
        assert self.config is not None
        data, corpus = self.config.data, self.corpus
        budget = data.frame_budget * corpus.utterances / corpus.frames if corpus is not None else 0
        batch = min(data.batch_size, budget) if budget else data.batch_size
        return float(batch * self.config.training.gradient_accumulation_steps)

    def loss(self, term: str) -> Curve | None:
        """A term's training loss above its floor, or as it is where no floor was logged."""
        return self.training.get(f"excess_{term}", self.training.get(term))

    @property
    def main_loss(self) -> tuple[str, Curve] | None:
        """What says best how training goes: the mel term, else the total; None where neither was logged."""
        for name in ("mel", "total"):
            if (curve := self.loss(name)) is not None:
                return name, curve
        return None

    @property
    def losses(self) -> dict[str, Curve]:
        """The total and all terms that were logged."""
        return {name: self.training[name] for name in ("total", *TERMS, "duration") if name in self.training}

    @property
    def errors(self) -> dict[str, Curve]:
        """Held-out figures that are better when lower and follow the training loss, the best first."""
        return {name: self.held_out[name] for name in ("mel_l1", "mel", "total") if name in self.held_out}

    @property
    def ratios(self) -> dict[str, Curve]:
        """The update ratios by part of the model."""
        start = "update_ratio."
        return {n.removeprefix(start): c for n, c in self.training.items() if n.startswith(start)}


class RunCheck(Finder):
    """Something to look for in a run."""

    training: Sequence[str] = ()
    """Figures of training that must be there, with :data:`LEAST_POINTS`; "loss" is any of the main loss."""
    held_out: Sequence[str] = ()
    """Figures of held-out speech that must be."""
    of_ours: bool = False
    """Whether it goes by the run's configuration."""
    with_corpus: bool = False
    """Whether it goes by the corpus."""
    shows: Sequence[str] = ()
    """What a page draws beside its findings."""

    def at_hand(self, run: Run) -> bool:
        """Whether ``run`` has what this goes by."""
        curves = [run.main_loss[1] if run.main_loss else None] if "loss" in self.training else []
        curves += [run.training.get(name) for name in self.training if name != "loss"]
        return (
            all(curve is not None and len(curve.finite) >= LEAST_POINTS for curve in curves)
            and all(name in run.held_out and len(run.held_out[name].finite) for name in self.held_out)
            and not (self.of_ours and run.config is None)
            and not (self.with_corpus and run.corpus is None)
        )

    def find(self, run: Run) -> Iterator[Finding]:
        """What is wrong with ``run``; nothing where it is right."""
        raise NotImplementedError


def at(step: int | float, what: str) -> Evidence:
    """Evidence of one step."""
    return Evidence(f"step {int(step):,}", what, float(step))


def each(curve: Curve, name: str) -> Iterator[Evidence]:
    """Evidence of every point of ``curve``."""
    for step, value in zip(curve.steps, curve.values, strict=True):
        yield at(step, f"{name} {value:.4g}")
