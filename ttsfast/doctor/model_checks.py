"""Checks of a model that take steps of training, or write files."""

from __future__ import annotations

import importlib.util
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ttsfast.data.checks.finding import ERROR, WARNING, Evidence, Finding
from ttsfast.errors import ExportError
from ttsfast.export.onnx import export_voice
from ttsfast.models.build import built_in
from ttsfast.models.checkpoint import load_checkpoint
from ttsfast.models.checks.check import ModelCheck, NotHere
from ttsfast.models.checks.probe import answer, apart, losses, named, other_text, without_chance
from ttsfast.models.checks.trial import Trial, seed
from ttsfast.models.voice import Voice
from ttsfast.training import schedule
from ttsfast.training.checkpoint import save_checkpoint
from ttsfast.training.optimizers import Optimizers

RATE = 1e-3
"""That a small batch is learnt at: AdamW takes it for any model that begins as it should."""


class Schedule(ModelCheck):
    """Learning rates of a run, to its last step and far beyond it."""

    name = "schedule"
    effect = "training stands still, or ends in NaN, thousands of steps after it began"
    remedy = "look at training.scheduler, warmup_steps, restart_period and min_learning_rate"
    far = 10**6

    def find(self, trial: Trial) -> Iterator[Finding]:
        training = trial.config.training
        last = training.max_steps - 1
        steps = sorted({*range(0, last, max(1, last // 2000)), last, *range(0, self.far, self.far // 2000)})
        rates = {step: schedule.learning_rate(step, training, 1.0) for step in steps}
        wrong = [step for step, rate in rates.items() if not (math.isfinite(rate) and rate > 0)]
        if wrong:
            yield self.finding(
                ERROR,
                f"the learning rate is {rates[wrong[0]]:g} at step {wrong[0]:,}",
                [Evidence(f"step {step}", f"{rates[step]:g}") for step in wrong],
                first=wrong[0],
            )
        elif training.warmup_steps > last:
            yield self.finding(
                WARNING,
                f"the run ends before its warm-up: training.max_steps={training.max_steps} and "
                f"training.warmup_steps={training.warmup_steps}",
                effect=f"the rate never reaches {training.learning_rate:g}",
                remedy="set training.warmup_steps to a twentieth of the run",
                reached=rates[last],
            )


class Checkpoint(ModelCheck):
    """A model that goes on otherwise once it was saved and loaded."""

    name = "checkpoint"
    effect = "a resumed run is another run, and the voice that is loaded is not the one that was validated"
    remedy = "keep what training changes in parameters or persistent buffers: register_buffer(name, value)"
    tolerance = 1e-5

    def find(self, trial: Trial) -> Iterator[Finding]:
        if trial.make is None:
            raise NotHere("nothing says how to make the model again")
        model, config = trial.copied(), trial.config
        going = Optimizers(config.training, model, trial.info.contract.n_mels)
        going.set_rate(RATE)
        for number in range(2):
            self._step(trial, model, going, number)
        other = trial.make().to(trial.device)
        with tempfile.TemporaryDirectory() as folder:
            place = self._saved(Path(folder), trial, model, going)
            found = load_checkpoint(place)
        try:
            other.load_state_dict(found.weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            yield self.finding(ERROR, f"its own checkpoint does not fit the model made again: {reason}")
            return
        resumed = Optimizers(config.training, other, trial.info.contract.n_mels)
        prefix = "optimizers."
        tensors = {k.removeprefix(prefix): v for k, v in found.training.items()}
        resumed.load_state_dict({**found.state["components"]["optimizers"], **tensors})
        resumed.set_rate(RATE)
        lost = _unlike(model, other)
        with torch.no_grad():
            before = named(answer(model.eval(), trial.batch))
            after = named(answer(other.eval(), trial.batch))
        for one, optimizers in ((model, going), (other, resumed)):
            self._step(trial, one, optimizers, 2)
        weights = [torch.cat([p.detach().float().flatten() for p in m.parameters()]) for m in (model, other)]
        changes = {name: apart(after[name], value) for name, value in before.items()}
        changes["the weights after the next step"] = apart(weights[1], weights[0])
        name = max(changes, key=changes.__getitem__)
        if changes[name] > self.tolerance:
            told = f"; {lost[0].id} is {lost[0].what}" if lost else ""
            yield self.finding(
                ERROR,
                f"saved and loaded, it goes on otherwise: {name} {changes[name]:.2g} deviations away{told}",
                lost or [Evidence(n, f"{v:.2g} of its deviation") for n, v in changes.items() if v],
                change=changes[name],
            )

    def _step(self, trial: Trial, model: nn.Module, optimizers: Optimizers, number: int) -> None:
        loss, device = trial.loss.eval(), trial.device
        with torch.enable_grad():
            output = answer(model.train(), trial.batch, number)
            losses(trial, loss, output, trial.batch, trial.batch).total.backward()
        optimizers.step(torch.zeros((), device=device), torch.ones((), device=device))
        optimizers.zero_grad()

    def _saved(self, folder: Path, trial: Trial, model: nn.Module, optimizers: Optimizers) -> Path:
        state = optimizers.state_dict()
        tensors = {f"optimizers.{k}": v for k, v in state.items() if isinstance(v, Tensor)}
        values = {k: v for k, v in state.items() if not isinstance(v, Tensor)}
        return save_checkpoint(
            folder / "step-00000002",
            2,
            weights=model.state_dict(),
            training=tensors,
            voice=trial.info.to_dict(),
            state={"config": trial.config.to_dict(), "components": {"optimizers": values}},
        )


class OneBatch(ModelCheck):
    """A model that cannot learn three utterances by heart."""

    name = "one batch"
    effect = "what it cannot do with three utterances it cannot do with a corpus"
    remedy = (
        "learn the batch with the mel term alone and AdamW at 1e-3, and take parts out until it is learnt: "
        "the one that was taken out last is to blame"
    )
    seconds = 90.0
    steps = 150
    learnt = 0.8
    """Of the loss of the mean that may be left. Models that learn have 0.1 to 0.65."""
    certain = 0.95
    heeded = 1.02
    """How many times its loss it should have with another text, once it has learnt its own."""

    def find(self, trial: Trial) -> Iterator[Finding]:
        model, loss, batch = trial.copied(), trial.loss.eval(), trial.batch
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=RATE)
        mean = self._mean(trial)
        with torch.enable_grad(), without_chance(model.train()):
            for step in range(self.steps):
                out = losses(trial, loss, answer(model, batch, step), batch, batch)
                optimizer.zero_grad()
                out.total.backward()
                nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
        with torch.no_grad(), without_chance(model):
            left = float(losses(trial, loss, answer(model, batch), batch, batch).mel) / mean
            other = other_text(batch, len(trial.info.symbols), valid=True)
            swapped = float(losses(trial, loss, answer(model, other), batch, batch).mel) / mean
        if not left <= self.learnt:
            yield self.finding(
                ERROR if not left < self.certain else WARNING,
                f"it does not learn one batch: after {self.steps} steps {left:.0%} of the loss of predicting "
                "the mean is left",
                [Evidence("mel", f"{left:.2f} times the loss of the mean")],
                left=left,
                learnt=self.learnt,
            )
        elif swapped < self.heeded * left:
            yield self.finding(
                WARNING,
                f"it learnt one batch without its texts: with others the loss is {swapped / left:.2f} "
                "times as large",
                [Evidence("text", f"{swapped / left:.3f} times the loss")],
                effect="it goes on from the true frames it is given, which nobody gives it when it speaks",
                remedy="more model.prenet_dropout, a larger model.reduction_factor, guided attention",
                swapped=swapped / left,
            )

    def _mean(self, trial: Trial) -> float:
        """The mel loss of predicting the corpus's mean."""
        with torch.no_grad():
            output = answer(trial.copied().eval(), trial.batch)
            blank = torch.zeros_like(trial.batch.mel)
            pair = isinstance(output.mel, (tuple, list)) and len(output.mel) == 2
            known = replace(output, mel=(blank, blank) if pair else blank)
            return max(float(losses(trial, trial.loss.eval(), known, trial.batch, trial.batch).mel), 1e-12)


class Export(ModelCheck):
    """An exported voice that speaks otherwise."""

    name = "export"
    effect = "whoever is given the file hears another voice than was evaluated"
    remedy = "export with the versions of torch and onnx that constraints.txt names"
    seconds = 120.0

    def find(self, trial: Trial) -> Iterator[Finding]:
        if not built_in(trial.config.model):
            raise NotHere("only built-in models are exported")
        if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")):
            raise NotHere("pip install 'ttsfast[onnx]'")
        seed(0)
        voice = Voice(model=trial.copied().eval(), device=trial.device, **vars(trial.info))
        with tempfile.TemporaryDirectory() as folder:
            try:
                export_voice(voice, Path(folder) / "voice.onnx")
            except ExportError as error:
                yield self.finding(ERROR, f"the exported voice is another: {error}")


def _unlike(model: nn.Module, other: nn.Module) -> list[Evidence]:
    """Buffers and plain attributes of modules that differ."""
    found = []
    theirs = dict(other.named_modules())
    for place, module in model.named_modules():
        twin = theirs.get(place)
        if twin is None:
            continue
        for name, value in {**vars(module), **module._buffers}.items():
            there = {**vars(twin), **twin._buffers}.get(name)
            where = f"{place}.{name}" if place else name
            if isinstance(value, Tensor) and isinstance(there, Tensor):
                if value.shape != there.shape or not torch.equal(value, there.to(value.device)):
                    found.append(Evidence(where, "another tensor once it is loaded"))
            elif isinstance(value, (int, float, str)) and name != "training" and value != there:
                found.append(Evidence(where, f"{value!r}, and {there!r} once it is loaded"))
    return found


SLOW: tuple[ModelCheck, ...] = (Checkpoint(), OneBatch(), Schedule(), Export())
