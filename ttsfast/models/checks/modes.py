"""Chance, memory and modes: what a model does twice, and whether it is the same."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from ttsfast.data.checks.finding import ERROR, NOTE, WARNING, Evidence, Finding
from ttsfast.data.loading.batch import Batch
from ttsfast.models.checks.check import ModelCheck, NotHere
from ttsfast.models.checks.probe import answer, apart, named, rows, speak, stirred, without_chance
from ttsfast.models.checks.trial import Trial
from ttsfast.models.checks.watch import watched

SPOKEN_STEPS = 4


class State(ModelCheck):
    """What one call leaves behind for the next."""

    name = "state"
    effect = (
        "what a model says depends on what it was asked before: validation moves the voice, a resumed run "
        "is another run, and a service says a sentence differently each time"
    )
    rounding = 1e-6
    remedy = "start every call from fresh values; change buffers only where self.training is True"

    def find(self, trial: Trial) -> Iterator[Finding]:
        evaluated = list(self._evaluation(trial))
        yield from evaluated or self._training(trial)
        if not evaluated:
            yield from self._speech(trial)

    def _evaluation(self, trial: Trial) -> Iterator[Finding]:
        model, batch, others = _settled(trial, training=False)
        with torch.no_grad():
            expected = named(answer(copy.deepcopy(model), others))
            if _apart(expected, named(answer(copy.deepcopy(model), others))):
                return  # Chance of its own, which is looked at elsewhere.
            before = _values(model)
            answer(model, batch)
            changed = _changed(before, _values(model))
            kept = _apart(expected, named(answer(model, others)))
        moved = f"it changes {len(changed)} tensors of the model, such as {changed[0]}" if changed else ""
        evidence = [Evidence(name, "changed by a call in eval()") for name in changed]
        if kept > self.rounding:
            yield self._answered_otherwise("evaluation", kept, f"; {moved}" if changed else "", evidence)
        elif changed:
            # Where nothing is saved, nothing is spoilt but repeatability.
            saved = any(name in model.state_dict() for name in changed)
            yield self.finding(
                ERROR if saved else WARNING,
                f"evaluation leaves something behind: {moved}",
                evidence,
                effect="each validation moves what a checkpoint holds, by what is held out" if saved else "",
            )

    def _training(self, trial: Trial) -> Iterator[Finding]:
        """What one batch leaves for the next, beside buffers: running statistics are meant to be left, and so
        are counters, which know nothing of what was in the batch."""
        model, batch, others = _settled(trial, training=True)
        after = []
        with torch.no_grad():
            for before in (others, batch, batch):
                one = copy.deepcopy(model)
                buffers = {name: value.clone() for name, value in one.named_buffers()}
                answer(one, before)
                for name, value in one.named_buffers():
                    if name in buffers and value.shape == buffers[name].shape:
                        value.copy_(buffers[name])
                after.append(named(answer(one, others)))
        if _apart(after[1], after[2]):
            return  # Chance of its own.
        kept = _apart(after[0], after[1])
        if kept > self.rounding:
            yield self._answered_otherwise("training", kept, "", [])

    def _answered_otherwise(self, mode: str, kept: float, moved: str, evidence: list[Evidence]) -> Finding:
        return self.finding(
            ERROR,
            f"{mode} leaves something behind: the same batch is answered otherwise after another, "
            f"{kept:.2g} of its deviation away{moved}",
            evidence or [Evidence("forward", f"{kept:.2g} of its deviation")],
            change=kept,
        )

    def _speech(self, trial: Trial) -> Iterator[Finding]:
        model, frames = trial.copied().eval(), SPOKEN_STEPS * trial.reduction_factor
        others = rows(trial.batch, list(range(len(trial.batch.ids)))[::-1])
        with torch.no_grad():
            alone = [speak(copy.deepcopy(model), trial.batch, max_frames=frames).mel for _ in range(2)]
            if not torch.equal(*alone):
                return
            speak(model, others, max_frames=frames)
            again = speak(model, trial.batch, max_frames=frames).mel
        kept = apart(again.float(), alone[0].float())
        if kept > self.rounding:
            yield self.finding(
                ERROR,
                f"synthesize leaves something behind: the same texts are spoken otherwise after others, "
                f"{kept:.2g} of their deviation away",
                [Evidence("synthesize", f"{kept:.2g} of its deviation")],
                change=kept,
            )


class Nondeterminism(ModelCheck):
    """Two passes from one state that are not the same."""

    name = "nondeterminism"
    effect = "no run can be repeated, nor resumed to the same bits, and no two runs be compared"
    remedy = "draw from torch's, numpy's or Python's global streams, which a run seeds and a checkpoint keeps"
    rounding = 1e-4

    def find(self, trial: Trial) -> Iterator[Finding]:
        first, second = (self._passed(trial) for _ in range(2))
        unlike = {name: apart(second[name], value) for name, value in first.items()}
        name = max(unlike, key=unlike.__getitem__)
        if unlike[name] == 0:
            return
        small = unlike[name] < self.rounding
        yield self.finding(
            NOTE if small else WARNING,
            f"the same pass from the same seed gives another {name}, {unlike[name]:.2g} deviations away",
            [Evidence(n, f"{value:.2g} of its deviation") for n, value in unlike.items() if value],
            remedy="set training.deterministic=true where runs are to be repeated" if small else "",
            change=unlike[name],
        )

    def _passed(self, trial: Trial) -> dict[str, Tensor]:
        model = trial.copied().train()
        with torch.enable_grad():
            output = answer(model, trial.batch)
            output.final_mel.square().mean().backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        return {**named(output), "gradient": torch.cat(gradients) if gradients else torch.zeros(1)}


class Randomness(ModelCheck):
    """Chance where there should be none, and none where there should be."""

    name = "randomness"
    most = 0.8
    """Share that a layer may drop; published models drop 0.5 at most."""

    def find(self, trial: Trial) -> Iterator[Finding]:
        model, frames = trial.copied().eval(), SPOKEN_STEPS * trial.reduction_factor
        with torch.no_grad():
            with watched(model, trial.batch, trial.reduction_factor) as seen:
                first = named(answer(model, trial.batch))
            unlike = _apart(first, named(answer(model, trial.batch, 2)))
            if unlike > 1e-6:
                where = [Evidence(place, what) for place, what in seen.dropped.items()]
                first_place = f"{where[0].id} has {where[0].what}; " if where else ""
                yield self.finding(
                    WARNING,
                    f"evaluation is left to chance: {first_place}two passes in eval() are {unlike:.2g} of "
                    "their deviation apart",
                    where,
                    effect="validation is a draw, and the best checkpoint the luckiest",
                    remedy="F.dropout(x, p, self.training), or nn.Dropout; where a pre-net is meant to drop "
                    "when it speaks, as in Tacotron 2, leave it to synthesize",
                    change=unlike,
                )
                return
            spoken = [speak(model, trial.batch, max_frames=frames, chance=chance).mel for chance in (1, 2)]
            if spoken[0].shape != spoken[1].shape or not torch.equal(*spoken):
                yield self.finding(
                    NOTE,
                    "synthesize is left to chance: two seeds, two recordings of one text",
                    effect="speech is another each time, and now and then a bad one",
                    remedy="nothing, where it is meant to be so",
                )
            yield from self._none_in_training(trial)

    def _none_in_training(self, trial: Trial) -> Iterator[Finding]:
        model = trial.copied().train()
        asleep = [
            (name, module)
            for name, module in model.named_modules()
            if isinstance(module, (_DropoutNd, _NormBase)) and not module.training
        ]
        drops = [
            (name, m.p) for name, m in model.named_modules() if isinstance(m, nn.modules.dropout._DropoutNd)
        ]
        with watched(model, trial.batch, trial.reduction_factor) as seen:
            first = named(answer(model, trial.batch))
        unlike = _apart(first, named(answer(model, trial.batch, 2)))
        if much := {place: share for place, share in seen.shares.items() if share > self.most}:
            place, share = max(much.items(), key=lambda item: item[1])
            yield self.finding(
                WARNING,
                f"{place} drops {share:.0%} of what passes",
                [Evidence(name, f"drops {share:.0%}") for name, share in much.items()],
                effect="next to nothing passes while it learns",
                remedy="torch's dropout takes the share that is dropped, not the one that is kept",
                dropped=share,
            )
        if asleep or (any(p for _, p in drops) and unlike == 0):
            where = [Evidence(name, "stays in eval() when the model is told to train") for name, _ in asleep]
            yield self.finding(
                WARNING,
                f"{len(asleep)} layers stay in eval() when the model is told to train, such as {asleep[0][0]}"
                if asleep
                else f"dropout never drops: {len(drops)} such layers, and two training passes are the same",
                where or [Evidence(name, f"p = {p:g}") for name, p in drops],
                effect="the model fits its corpus by heart, and a pre-net copies the last frame",
                remedy="call super().train(mode) where train is overridden, and call the layers",
            )


class Modes(ModelCheck):
    """Training and evaluation that compute different things."""

    name = "modes"
    effect = "what is validated, and spoken, is not what was trained"
    remedy = "let self.training decide on dropout and sampling only"
    tolerance = 1e-3

    def find(self, trial: Trial) -> Iterator[Finding]:
        if any(isinstance(module, _NormBase) for module in trial.model.modules()):
            raise NotHere("batch statistics differ in both by design")
        model = stirred(trial)
        with torch.no_grad(), without_chance(model):
            evaluated = named(answer(model, trial.batch))
            trained = named(answer(model.train(), trial.batch))
        unlike = {name: apart(trained[name], value) for name, value in evaluated.items()}
        name = max(unlike, key=unlike.__getitem__)
        if unlike[name] > self.tolerance:
            yield self.finding(
                WARNING,
                f"training computes something else than evaluation: without dropout, {name} is still "
                f"{unlike[name]:.2g} of its deviation apart",
                [Evidence(n, f"{v:.2g} of its deviation") for n, v in unlike.items() if v > self.tolerance],
                change=unlike[name],
            )


def _settled(trial: Trial, *, training: bool) -> tuple[nn.Module, Batch, Batch]:
    """A copy that was called before, for some set themselves up by their first batch; and two more batches,
    of one shape, to call it with."""
    model, count = trial.copied().train(training), len(trial.batch.ids)
    with torch.no_grad():
        answer(model, rows(trial.batch, [0], trimmed=True))
    return model, trial.batch, rows(trial.batch, list(range(count))[::-1])


def _apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(apart(other[name], value) for name, value in one.items())


def _values(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: value.detach().clone()
        for found in (model.named_parameters(), model.named_buffers())
        for name, value in found
    }


def _changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """Floats of one shape that are not what they were; a table that grew with a longer text is no matter."""
    return [
        name
        for name, value in after.items()
        if value.is_floating_point()
        and name in before
        and value.shape == before[name].shape
        and not torch.equal(value, before[name])
    ]


FIRST = (State(), Nondeterminism(), Randomness())
CHECKS = (Modes(),)
