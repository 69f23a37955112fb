"""Whether each output does its work: attention moves, the stop and the posterior hear, synthesis agrees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from ttsfast.data.checks.finding import ERROR, WARNING, Evidence, Finding
from ttsfast.data.loading.batch import Batch
from ttsfast.models.checks.check import ModelCheck, NotHere
from ttsfast.models.checks.probe import (
    NOTHING,
    answer,
    apart,
    named,
    other_mel,
    own_part,
    rows,
    speak,
    stirred,
    without_chance,
    without_posterior,
)
from ttsfast.models.checks.trial import Trial


class Attention(ModelCheck):
    """Attention that cannot move."""

    name = "attention"
    effect = "it never aligns, and every text becomes the same babble"
    remedy = "look at what the scores are made of: queries from the decoder, keys from the text, neither 0"
    stuck = 0.999

    def find(self, trial: Trial) -> Iterator[Finding]:
        model = trial.copied()
        with torch.enable_grad(), without_chance(model.train()):
            weights = answer(model, trial.batch).attention
        if weights is None:
            raise NotHere("the model gives none")
        yield from self._alike(trial)
        if trial.config.training.attention_loss_weight > 0 and weights.requires_grad:
            generator = torch.Generator().manual_seed(5)
            probe = torch.randn(weights.shape, generator=generator).to(weights)
            trained = [p for p in model.parameters() if p.requires_grad]
            moved = torch.autograd.grad((weights * probe).sum(), trained, allow_unused=True)
            if not any(bool(g.count_nonzero()) for g in moved if g is not None):
                yield self.finding(
                    ERROR,
                    "attention cannot move: no weight of the model has a gradient from it",
                    [Evidence("attention", "a gradient of 0 for every weight")],
                )
                return
        value = weights.detach().float()
        if value.isfinite().all() and value.shape[-1] > 2 and value.shape[-2] > 7:
            own = [
                own_part("attention", value, trial.batch, row, trial.reduction_factor)
                for row in range(len(trial.batch.ids))
            ]
            sharp = min(float(part.amax(-1).mean()) for part in own)
            places = max(int(part.argmax(-1).unique().numel()) for part in own)
            if sharp > self.stuck and places == 1:
                yield self.finding(
                    WARNING,
                    f"attention is stuck: untrained, {sharp:.1%} of it lies on one symbol at every step",
                    [Evidence("attention", f"{sharp:.2%} on one symbol")],
                    remedy="scale scores by the root of their width, and look at the embeddings' size",
                    sharpness=sharp,
                )

    def _alike(self, trial: Trial) -> Iterator[Finding]:
        model = stirred(trial)
        with torch.no_grad():
            weights = answer(model, trial.batch).attention
        assert weights is not None
        own = own_part("attention", weights.float(), trial.batch, 0, trial.reduction_factor)
        spread = float(own.std(-2).max()) if own.shape[-2] > 1 else 1.0
        if spread < 1e-7:
            yield self.finding(
                ERROR,
                f"attention does not follow the decoder: it is the same at every step (within {spread:.1g})",
                [Evidence("attention", f"deviation over steps {spread:.1g}")],
                spread=spread,
            )


class Stop(ModelCheck):
    """A stop that hears nothing, or that nobody heeds."""

    name = "stop"
    effect = "it never learns where to stop: speech runs on to the frame limit, or ends at once"
    remedy = "make the stop logit from the decoder's state at each step"

    def find(self, trial: Trial) -> Iterator[Finding]:
        model, r, batch = stirred(trial), trial.reduction_factor, trial.batch
        with torch.no_grad(), without_chance(model):
            output = answer(model, batch)
            if output.stop_logits is None:
                raise NotHere("the model gives none")
            logits = output.stop_logits.float()
            own = torch.cat([own_part("stop_logits", logits, batch, row, r) for row in range(len(batch.ids))])
            spread = float(own.std())
            if spread < 1e-6 * max(1.0, float(own.abs().max())):
                yield self.finding(
                    ERROR,
                    f"the stop is not connected: its logit is {float(own.mean()):.3g} at every step of every "
                    "utterance",
                    [Evidence("stop_logits", f"deviation {spread:.1g}")],
                    spread=spread,
                )
                return
            if self._bounded(own) and self._bounded(self._enlarged(trial)):
                yield self.finding(
                    ERROR,
                    f"the stop logits are probabilities, from {float(own.min()):.2g} to "
                    f"{float(own.max()):.2g}: weights ten times as large do not lead out of 0 to 1",
                    [Evidence("stop_logits", f"{float(own.min()):.3g} to {float(own.max()):.3g}")],
                    effect="a logit above 0 is a probability above a half: speech ends at its first step",
                    remedy="return what the sigmoid was given",
                    lowest=float(own.min()),
                    highest=float(own.max()),
                )
                return
            at_once = speak(model, batch, max_frames=8 * r, stop_threshold=0.0)
            never = speak(model, batch, max_frames=8 * r)
        if bool(never.stopped.any()):
            yield self.finding(
                WARNING,
                "synthesize stops at a threshold of 2, which no probability reaches",
                remedy="stop where sigmoid(stop_logit) >= stop_threshold, a probability",
                effect="a sentence that was not read whole is not tried again as it should be",
            )
        elif not bool(at_once.stopped.all()):
            yield self.finding(
                WARNING,
                "synthesize does not stop at a threshold of 0, which every probability reaches",
                remedy="stop where sigmoid(stop_logit) >= stop_threshold",
            )

    def _enlarged(self, trial: Trial) -> Tensor:
        """The logits of a model with larger weights, which reach further."""
        model = trial.copied().eval()
        for parameter in model.parameters():
            parameter.mul_(10.0)
        logits = answer(model, trial.batch).stop_logits
        assert logits is not None
        return logits.float()

    def _bounded(self, logits: Tensor) -> bool:
        return bool(((logits >= 0) & (logits <= 1)).all())


class Posterior(ModelCheck):
    """A posterior that says nothing, or that nobody hears."""

    name = "posterior"
    effect = "the KL term falls to 0, or stays where it is, and its weight does nothing for the voice"

    def find(self, trial: Trial) -> Iterator[Finding]:
        model, batch = stirred(trial), trial.batch
        with torch.enable_grad(), without_chance(model):
            mel = batch.mel.clone().requires_grad_()
            output = answer(model, replace(batch, mel=mel))
            if output.posterior is None:
                raise NotHere("the model gives none")
            # Before the first step has ended, a decoder has heard nothing but silence.
            first = output.final_mel[:, 0].square().sum()
            (heard,) = torch.autograd.grad(first, mel, allow_unused=True) if first.requires_grad else (None,)
        with torch.no_grad(), without_chance(model):
            same, other = named(output), named(answer(model, other_mel(batch, valid=True)))
        silent = [name for name in ("mu", "logvar") if apart(other[name], same[name]) < NOTHING]
        if silent:
            yield self.finding(
                WARNING,
                f"the posterior does not hear the recording: {' and '.join(silent)} the same for another one",
                [Evidence(name, "the same for another recording") for name in silent],
                remedy="make mu and logvar from the encoded mel; a logvar that is meant to be fixed may stay",
            )
            return
        if heard is None or not bool(heard.count_nonzero()):
            yield self.finding(
                WARNING,
                "the posterior's latent is not heard: the recording changes nothing of the first frame",
                remedy="add the latent to what the decoder reads",
            )


class Synthesis(ModelCheck):
    """Speech that is computed otherwise than it was trained."""

    name = "synthesis"
    effect = "training goes well, and what is spoken is noise, or another voice"
    remedy = (
        "let forward and synthesize share the code of a step: the same pre-net, normalisation, reduction "
        "factor, first frame and conditions"
    )
    steps = 5
    tolerance = 1e-3
    certain = 0.1
    """Of what other frames before it would change, for some models hear little of them before they are
    trained."""

    def find(self, trial: Trial) -> Iterator[Finding]:
        r = trial.reduction_factor
        # Two symbols lie in any window of attention.
        batch = rows(trial.batch, [0], trimmed=True)
        batch = replace(batch, text=batch.text[:, :2], text_lengths=batch.text_lengths.clamp(max=2))
        has_posterior = answer(trial.copied().eval(), batch).posterior is not None
        model = trial.copied().eval() if has_posterior else stirred(trial)
        with torch.no_grad(), without_chance(model):
            if not self._autoregressive(stirred(trial), batch):
                raise NotHere("no frame hears those before it")
            spoken = speak(model, batch, max_frames=self.steps * r).mel.float()
            best, seen, heard = float("inf"), 0.0, 0.0
            for final in (False, True):
                own = self._by_forward(model, batch, r, trial, final=final)
                if own is None:
                    raise NotHere("forward hears a posterior's latent, which synthesize has not")
                frames = min(own.shape[1], spoken.shape[1])
                best = min(best, apart(spoken[:, :frames], own[:, :frames]))
                seen, heard = float(own.std()), self._of_other_frames(model, batch, own)
        if best > self.tolerance:
            yield self.finding(
                ERROR if best > self.certain * heard else WARNING,
                f"synthesize does not speak what forward predicts: fed with its own frames, that gives a mel "
                f"{best:.2g} of its deviation away",
                [Evidence("mel", f"{best:.2g} of its deviation ({seen:.2g}), over {self.steps} steps")],
                change=best,
                by_other_frames=heard,
                tolerance=self.tolerance,
            )

    def _of_other_frames(self, model: nn.Module, batch: Batch, own: Tensor) -> float:
        """How far what ``own`` (1, T, C) makes of itself is from what other frames make of it."""
        batch = replace(batch, mel=own, mel_lengths=batch.mel_lengths.new_full((1,), own.shape[1]))
        other = other_mel(batch, valid=True)
        return apart(answer(model, other).final_mel.float(), answer(model, batch).final_mel.float())

    def _by_forward(
        self, model: nn.Module, batch: Batch, r: int, trial: Trial, *, final: bool
    ) -> Tensor | None:
        """Free-running speech by repeated teacher forcing: each pass makes one more step right. What is fed
        is the mel before a post-net, or the ``final`` one; None where a posterior has a say in it."""
        frames = self.steps * r
        heard = torch.from_numpy(trial.info.silence).to(batch.mel).expand(1, frames, -1)
        lengths = batch.mel_lengths.new_full((1,), frames)
        for _ in range(self.steps + 1):
            output = answer(model, replace(batch, mel=heard, mel_lengths=lengths, frames=frames))
            if output.posterior is not None and float(output.posterior[0].abs().max()) > 1e-4:
                return None
            fed = output.final_mel if final or not isinstance(output.mel, (tuple, list)) else output.mel[0]
            heard = fed.to(batch.mel.dtype)
        return output.final_mel.float()

    def _autoregressive(self, model: nn.Module, batch: Batch) -> bool:
        with torch.enable_grad():
            mel = batch.mel.clone().requires_grad_()
            output = answer(model, replace(batch, mel=mel))
            without_posterior(output)
            last = output.final_mel[:, -1].square().sum()
            if not last.requires_grad:
                return False
            (gradient,) = torch.autograd.grad(last, mel, allow_unused=True)
        return gradient is not None and bool(gradient.count_nonzero())


FIRST = (Attention(), Stop(), Posterior())
CHECKS = (Synthesis(),)
