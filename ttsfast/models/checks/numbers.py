"""Sizes: of losses, weights and activations before the first step, and in half precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ttsfast.config import NONE
from ttsfast.data.checks.finding import ERROR, WARNING, Evidence, Finding
from ttsfast.models.checks.check import ModelCheck, NotHere
from ttsfast.models.checks.probe import answer, losses, masks, without_chance
from ttsfast.models.checks.trial import Trial
from ttsfast.models.checks.watch import watched


class DeadUnits(ModelCheck):
    """Activations that are 0, or at their end, whatever comes in."""

    name = "dead units"
    effect = "nothing passes, and no gradient comes back: what lies before them learns nothing"
    remedy = "begin biases at 0 and weights at a deviation of 1 / sqrt(inputs), and look at what comes in"
    most = 0.5
    """Share of a layer's units that may be 0 for all that was tried; half of them is usual for one frame."""
    saturated = 0.95
    """Share of a tanh's or a sigmoid's values that may lie at its ends."""

    def find(self, trial: Trial) -> Iterator[Finding]:
        model = trial.copied().train()
        with (
            torch.no_grad(),
            without_chance(model),
            watched(model, trial.batch, trial.reduction_factor) as seen,
        ):
            answer(model, trial.batch)
        dead = sorted(((share, place) for place, share in seen.dead.items()), reverse=True)
        wrong = [(share, place) for share, place in dead if share > self.most]
        if wrong:
            share, place = wrong[0]
            yield self.finding(
                ERROR if share == 1.0 else WARNING,
                f"{share:.0%} of the units of {place} are dead: 0 for every frame and symbol that was tried",
                [Evidence(where, f"{found:.0%} of its units are always 0") for found, where in wrong],
                dead=share,
            )
        ends = sorted(((share, place) for place, share in seen.saturated.items()), reverse=True)
        wrong = [(share, place) for share, place in ends if share > self.saturated]
        if wrong:
            share, place = wrong[0]
            yield self.finding(
                WARNING,
                f"{place} is saturated: {share:.0%} of its values lie at its ends",
                [Evidence(where, f"{found:.0%} of its values at its ends") for found, where in wrong],
                saturated=share,
            )


class FirstLoss(ModelCheck):
    """A first loss that is not what nobody's knowledge gives."""

    name = "first loss"
    most = 5.0
    """Times the loss of predicting the corpus's mean. Models that begin as they should have 0.9 to 2."""
    certain = 100.0
    least = 0.3
    foreign = 10.0
    """Deviations of the target that predictions may lie on one side of it, before they are in other units: it
    is a bias that moves all of them, and biases begin near 0."""

    def find(self, trial: Trial) -> Iterator[Finding]:
        model, loss = trial.copied().eval(), trial.loss.eval()
        batch = trial.batch
        with torch.no_grad():
            output = answer(model, batch)
            predicted = output.final_mel[masks(batch)[1]].float()
            found = losses(trial, loss, output, batch, batch)
            mean = torch.zeros_like(batch.mel)
            pair = isinstance(output.mel, (tuple, list)) and len(output.mel) == 2
            output.mel = (mean, mean) if pair else mean
            known = losses(trial, loss, output, batch, batch)
        yield from self._mel(float(found.mel) / max(float(known.mel), 1e-12), predicted, trial)
        if found.stop is not None and float(found.stop) > 10 and trial.config.training.stop_loss_weight:
            yield self.finding(
                WARNING,
                f"the stop term begins at {float(found.stop):.3g}; a stop that knows nothing has 0.7 to 2",
                effect="the stop's gradient drowns the mel's",
                remedy="begin the stop's layer small",
                stop=float(found.stop),
            )

    def _mel(self, ratio: float, predicted: Tensor, trial: Trial) -> Iterator[Finding]:
        mean, deviation = float(predicted.mean()), float(predicted.std())
        foreign = abs(mean) > max(self.foreign, deviation)
        if ratio > self.most:
            units = (
                f": predictions have a mean of {mean:.3g} and a deviation of {deviation:.3g}, for targets of "
                "0 and 1"
                if foreign
                else ""
            )
            yield self.finding(
                ERROR if foreign or ratio > self.certain else WARNING,
                f"the first mel loss is {ratio:.3g} times that of predicting the mean{units}",
                [Evidence("mel", f"{ratio:.3g} times the loss of the mean")],
                effect="thousands of steps go by until it is back at what was known before the first",
                remedy="begin the output layer small; predict normalised features, of deviation 1",
                ratio=ratio,
                mean=mean,
                deviation=deviation,
            )
        elif ratio < self.least and trial.config.training.start_from == NONE:
            yield self.finding(
                WARNING,
                f"the first mel loss is {ratio:.2g} times that of predicting the mean: a model that "
                "was not trained knows its target",
                [Evidence("mel", f"{ratio:.3g} times the loss of the mean")],
                effect="training shows it what it is to predict; speech will be noise",
                remedy="look for the target among the inputs",
                ratio=ratio,
            )


class Initialisation(ModelCheck):
    """Weights that begin too large or too small, and what they make of activations."""

    name = "initialisation"
    effect = "signals grow or die from layer to layer: gradients with them"
    remedy = "begin weights at a deviation of about 1 / sqrt(inputs), as torch's layers do"
    gains = (0.02, 10.0)
    """Deviation of a weight times the root of its inputs: torch's layers begin at 0.58, normal ones at 1."""
    loudest = 1e3
    """Root mean square of an activation; after a norm it is 1."""

    def find(self, trial: Trial) -> Iterator[Finding]:
        if trial.config.training.start_from == NONE:
            yield from self._weights(trial.model)
        sizes = self._activations(trial)
        loud = sorted(((size, name) for name, size in sizes.items() if size > self.loudest), reverse=True)
        if loud:
            yield self.finding(
                WARNING,
                f"activations are large: {loud[0][1]} gives {loud[0][0]:.3g} on average",
                [Evidence(name, f"a root mean square of {size:.3g}") for size, name in loud],
                effect="half precision has no room for them, and what follows is saturated",
                loudest=loud[0][0],
            )

    def _weights(self, model: nn.Module) -> Iterator[Finding]:
        low, high = self.gains
        wrong = []
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2 or self._is_table(model, name):
                continue
            inputs = parameter[0].numel()
            gain = float(parameter.detach().float().square().mean().sqrt()) * inputs**0.5
            # What begins at 0 is meant to.
            if gain and not low < gain < high:
                wrong.append((max(gain / high, low / gain), name, gain))
        wrong.sort(reverse=True)
        if wrong:
            _, name, gain = wrong[0]
            yield self.finding(
                WARNING,
                f"{name} begins {gain:.3g} times as large as 1 / sqrt(inputs)",
                [Evidence(n, f"{g:.3g} times 1 / sqrt(inputs)") for _, n, g in wrong],
                gain=gain,
            )

    def _is_table(self, model: nn.Module, name: str) -> bool:
        owner, _, _ = name.rpartition(".")
        return isinstance(model.get_submodule(owner), nn.Embedding)

    def _activations(self, trial: Trial) -> dict[str, float]:
        model = trial.copied().train()
        sizes: dict[str, float] = {}
        handles = []

        def seen(name: str, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                sizes[name] = max(sizes.get(name, 0.0), float(output.detach().float().square().mean().sqrt()))

        for name, module in model.named_modules():
            if name and next(module.children(), None) is None:
                handles.append(
                    module.register_forward_hook(lambda _, __, output, name=name: seen(name, output))
                )
        with torch.no_grad(), without_chance(model):
            answer(model, trial.batch)
        return sizes


class Precision(ModelCheck):
    """Half precision that is not what single precision is."""

    name = "precision"
    effect = "mixed precision trains another model than single precision would, or ends in NaN"
    remedy = (
        "compute softmax, norms, exponentials and long sums in float32 (x.float()), or set "
        "data.mixed_precision=false"
    )
    tolerance = 0.05
    """Of the total loss; rounding to bfloat16 changes it by less than 0.01."""
    apart = 0.2
    """Deviations by which the mel may differ in most of its frames: in some, a path may take another turn."""

    def find(self, trial: Trial) -> Iterator[Finding]:
        if trial.half is None:
            raise NotHere("training is in single precision")
        model, loss, totals, mels = trial.copied().eval(), trial.loss.eval(), [], []
        with torch.no_grad(), without_chance(model):
            for half in (False, True):
                with torch.autocast(trial.device.type, trial.half, enabled=half):
                    output = answer(model, trial.batch)
                totals.append(float(losses(trial, loss, output, trial.batch, trial.batch).total))
                mels.append(output.final_mel[masks(trial.batch)[1]].float())
        single, halved = totals
        change = abs(halved - single) / max(abs(single), 1e-12)
        # An untrained model's loss is that of the mean, whatever becomes of its mel.
        by_frame = (mels[1] - mels[0]).square().mean(1).sqrt()
        moved = float(by_frame.median()) / max(float(mels[0].std()), 1e-12)
        name = str(trial.half).removeprefix("torch.")
        if not (change <= self.tolerance and moved <= self.apart):
            yield self.finding(
                WARNING,
                f"in {name} the loss is {halved:.4g} in the place of {single:.4g}, and the mel is "
                f"{moved:.2g} of its deviation away",
                [Evidence(name, f"the loss {change:.1%} away, the mel {moved:.2g} of its deviation")],
                change=change,
                moved=moved,
            )


FIRST = (DeadUnits(), Initialisation(), FirstLoss())
CHECKS = (Precision(),)
