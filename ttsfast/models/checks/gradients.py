"""Whether what is to be learnt reaches what is to learn it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ttsfast.config import NONE
from ttsfast.data.checks.finding import ERROR, WARNING, Evidence, Finding
from ttsfast.errors import in_their_code
from ttsfast.models.checks.check import ModelCheck
from ttsfast.models.checks.probe import answer, apart, losses, rows, without_chance
from ttsfast.models.checks.trial import Trial

TERMS = {"mel": "mel", "stop_logits": "stop", "attention": "attention", "posterior": "kl"}


class Gradients(ModelCheck):
    """Weights that nothing moves, and terms that move nothing."""

    name = "gradients"
    effect = "these weights stay as they began: what they are to learn is never learnt"
    remedy = "follow them to the loss: they are not called, detached, or multiplied by 0"
    steps = 4
    """In which weights that began at 0 let others learn."""
    most = 0.5
    """Share of the model's numbers that may stand still before it is certain that this is no extra part."""

    def find(self, trial: Trial) -> Iterator[Finding]:
        model, loss = trial.copied().train(), trial.loss.train()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        moved: dict[str, bool] = {}
        yield from self._frozen(trial)
        # With dropout and sampling: what only chance moves is moved by it.
        with torch.enable_grad():
            for step in range(self.steps):
                try:
                    output = answer(model, trial.batch, step)
                    if step == 0:
                        yield from self._terms(trial, output, list(trained.values()))
                    total = losses(trial, loss, output, trial.batch, trial.batch).total
                    total.backward()
                except Exception as error:
                    yield self.finding(
                        ERROR,
                        f"the training pass fails: {in_their_code(error)}",
                        effect="the first step of training would fail in the same way",
                        remedy="mend it there",
                    )
                    return
                if step == 0 and (bad := self._not_finite(total.detach(), trained)):
                    yield bad
                    return
                for name, parameter in trained.items():
                    found = parameter.grad is not None and bool(parameter.grad.count_nonzero())
                    moved[name] = moved.get(name, False) or found
                unused = [name for name, parameter in trained.items() if parameter.grad is None]
                self._step(trained)
                if all(moved.values()):
                    return
        still = [name for name, found in moved.items() if not found]
        sizes = {name: trained[name].numel() for name in still}
        share = sum(sizes.values()) / sum(p.numel() for p in trained.values())
        said = {name: "has no gradient" if name in unused else "has a gradient of 0" for name in still}
        largest = sorted(still, key=lambda name: -sizes[name])
        yield self.finding(
            ERROR if share > self.most else WARNING,
            f"{len(still)} of {len(trained)} weights are moved by nothing in {self.steps} steps, "
            f"{share:.1%} of the model: {largest[0]} {said[largest[0]]}",
            [Evidence(name, f"{said[name]} ({sizes[name]:,} numbers)") for name in largest],
            share=share,
        )

    @torch.no_grad()
    def _step(self, trained: dict[str, nn.Parameter]) -> None:
        """What Adam's first step is: every weight by the same amount. torch's takes seconds to import."""
        for parameter in trained.values():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad.sign(), alpha=1e-3)
                parameter.grad = None

    def _terms(self, trial: Trial, output: object, trained: list[nn.Parameter]) -> Iterator[Finding]:
        generator = torch.Generator().manual_seed(6)
        for name, term in TERMS.items():
            value = getattr(output, name)
            weight = getattr(trial.config.training, f"{term}_loss_weight")
            if value is None or not weight or name == "attention":
                continue  # Attention has a check of its own, which says why.
            parts = [p for p in (value if isinstance(value, (tuple, list)) else [value]) if p.requires_grad]
            if not parts:
                continue
            probes = [torch.randn(p.shape, generator=generator).to(p) for p in parts]
            total = torch.stack([(p * probe).sum() for p, probe in zip(parts, probes, strict=True)]).sum()
            found = torch.autograd.grad(total, trained, retain_graph=True, allow_unused=True)
            if not any(bool(g.count_nonzero()) for g in found if g is not None):
                yield self.finding(
                    ERROR,
                    f"training.{term}_loss_weight={weight:g} teaches nothing: no weight of the model has a "
                    f"gradient from {name}",
                    [Evidence(name, "a gradient of 0 for every weight")],
                )

    def _not_finite(self, total: Tensor, trained: dict[str, nn.Parameter]) -> Finding | None:
        bad = [n for n, p in trained.items() if p.grad is not None and not bool(p.grad.isfinite().all())]
        if bool(total.isfinite()) and not bad:
            return None
        return self.finding(
            ERROR,
            f"the first step is not finite: the loss is {float(total):.3g}, and {len(bad)} gradients are no "
            "numbers",
            [Evidence(name, "its gradient is not finite") for name in bad],
            effect="training ends at its first step",
            remedy="look for a softmax of nothing, a logarithm or root of 0, or a division by a length of 0",
        )

    def _frozen(self, trial: Trial) -> Iterator[Finding]:
        if trial.config.training.freeze != NONE:
            return
        frozen = {name: p.numel() for name, p in trial.model.named_parameters() if not p.requires_grad}
        if frozen:
            total = sum(p.numel() for p in trial.model.parameters())
            yield self.finding(
                WARNING,
                f"{len(frozen)} weights are frozen in the model's own code, such as {next(iter(frozen))}: "
                f"{sum(frozen.values()) / total:.1%} of it",
                [
                    Evidence(name, f"requires_grad is False ({size:,} numbers)")
                    for name, size in frozen.items()
                ],
                effect="they stay as they began; nobody is told while it trains",
                remedy="leave requires_grad, and name what is to stay in training.freeze",
                share=sum(frozen.values()) / total,
            )


class Accumulation(ModelCheck):
    """Micro-batches that do not add up to the batch."""

    name = "accumulation"
    remedy = "let no utterance see another: no statistics over the batch"
    effect = (
        "training.gradient_accumulation_steps, the batch size and the number of GPUs change what is learnt"
    )
    tolerance = 1e-2

    def find(self, trial: Trial) -> Iterator[Finding]:
        batch = trial.batch
        count = len(batch.ids)
        whole, auxiliary = self._gradient(trial, [list(range(count))])
        parts, auxiliaries = self._gradient(trial, [[row] for row in range(count)])
        if auxiliary and abs(auxiliary - auxiliaries / count) < 1e-3 * abs(auxiliary) < abs(
            auxiliary - auxiliaries
        ):
            yield self.finding(
                ERROR,
                f"auxiliary is a mean over the batch: {auxiliary:.4g} for {count} utterances, of which the "
                f"parts sum to {auxiliaries:.4g}",
                [Evidence("auxiliary", f"{auxiliary:.4g} for {auxiliaries:.4g}")],
                effect="the trainer divides it by the batch's frames: it weighs a hundredth of what it "
                "should, and what it teaches is not learnt",
                remedy="return its sum over the batch, such as reduction='sum'",
                mean=auxiliary,
                sum=auxiliaries,
            )
            return
        unlike = apart(parts, whole)
        if unlike > self.tolerance:
            yield self.finding(
                WARNING,
                f"{count} micro-batches of one do not make the gradient of the batch of {count}: it is "
                f"{unlike:.2g} of its deviation away",
                [Evidence("gradient", f"{unlike:.2g} of its deviation")],
                change=unlike,
            )

    def _gradient(self, trial: Trial, parts: list[list[int]]) -> tuple[Tensor, float]:
        """(P,) of all micro-batches together, and the sum of their auxiliary losses."""
        model, loss, auxiliary = trial.copied().train(), trial.loss.eval(), 0.0
        with torch.enable_grad(), without_chance(model):
            for chosen in parts:
                part = rows(trial.batch, chosen)
                output = answer(model, part)
                losses(trial, loss, output, part, trial.batch).total.backward()
                auxiliary += 0.0 if output.auxiliary is None else float(output.auxiliary.detach())
        gradients = [p.grad.flatten().float() for p in model.parameters() if p.grad is not None]
        return torch.cat(gradients) if gradients else torch.zeros(1), auxiliary


CHECKS = (Gradients(), Accumulation())
