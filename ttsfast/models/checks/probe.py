"""Ways to call a model, and to compare what it answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ttsfast.data.loading.batch import Batch
from ttsfast.losses.module import TTSLoss
from ttsfast.losses.output import LossOutput
from ttsfast.models.checks.trial import Trial, seed
from ttsfast.models.criterion import loss_arguments, with_auxiliary
from ttsfast.models.interface import AcousticOutput, FreeRunning, tracks_for
from ttsfast.terms.masks import valid_mask

DROPOUTS: Mapping[Any, str] = {
    getattr(space, name): name
    for space, names in (
        (
            F,
            ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
        ),
        (torch, ("dropout", "dropout_", "feature_dropout", "alpha_dropout")),
    )
    for name in names
}
_ATTENTIONS = (F.scaled_dot_product_attention, F.multi_head_attention_forward)
_NORMALS = (torch.randn_like, torch.randn, torch.normal, Tensor.normal_)
NOTHING = 1e-5
"""A difference, as a share of how much an output varies, that is rounding: of single precision it is 1e-6."""
STIRRED = 0.1
"""Of a weight's own size: enough to wake what begins at 0, too little to change what a model is."""
WOKEN = 0.05
"""For weights that are all 0."""


class WithoutChance(TorchFunctionMode):
    """Within it dropout lets everything pass, and what is drawn from a normal distribution is its mean."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func in _ATTENTIONS and "dropout_p" in kwargs:
            kwargs["dropout_p"] = 0.0
        found = func(*args, **kwargs)
        if func in _NORMALS:
            mean = args[0] if func is torch.normal and args and isinstance(args[0], Tensor) else 0.0
            return found.mul_(0.0).add_(mean) if func is Tensor.normal_ else torch.zeros_like(found) + mean
        return found


@contextmanager
def without_chance(model: nn.Module) -> Iterator[None]:
    """:class:`WithoutChance` for ``model``, whose recurrent layers drop by themselves."""
    layers = [m for m in model.modules() if isinstance(m, nn.RNNBase) and m.dropout]
    kept = [layer.dropout for layer in layers]
    for layer in layers:
        layer.dropout = 0.0
    try:
        with WithoutChance():
            yield
    finally:
        for layer, dropout in zip(layers, kept, strict=True):
            layer.dropout = dropout


def stirred(trial: Trial) -> nn.Module:
    """A copy whose every weight is a little other than it begins: what a model hears must not depend on the
    weights, and what begins at 0 would hide it. Rows of padding stay 0. In ``eval()``."""
    model = trial.copied()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                size = float(parameter.float().square().mean().sqrt())
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.add_(noise, alpha=STIRRED * size if size else WOKEN)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0.0
    return model.eval()


def answer(model: nn.Module, batch: Batch, chance: int = 1) -> AcousticOutput:
    """One teacher-forced pass from fresh random streams."""
    seed(chance)
    return AcousticOutput.of(
        model(
            batch.text,
            batch.text_lengths,
            batch.mel,
            batch.mel_lengths,
            speaker=batch.speaker,
            **tracks_for(model, batch),
        )
    )


def speak(
    model: nn.Module, batch: Batch, *, max_frames: int, stop_threshold: float = 2.0, chance: int = 1
) -> FreeRunning:
    """Free-running speech of the batch's texts from fresh random streams; a threshold of 2 never stops it."""
    seed(chance)
    spoken: FreeRunning = model.synthesize(  # type: ignore[operator]
        batch.text,
        batch.text_lengths,
        batch.speaker,
        max_frames=max_frames,
        stop_threshold=stop_threshold,
    )
    return spoken


def losses(trial: Trial, loss: TTSLoss, output: AcousticOutput, batch: Batch, whole: Batch) -> LossOutput:
    """Those of training, with ``batch`` as a part of ``whole``; the auxiliary one is in the total."""
    r = trial.reduction_factor
    counts = loss.counts(whole.mel_lengths, -(-whole.mel_lengths // r), whole.truncated)
    found: LossOutput = loss(**loss_arguments(output, batch), normalizer=counts)
    return with_auxiliary(found, output, counts)


def named(output: AcousticOutput) -> dict[str, Tensor]:
    """The outputs that there are, as floats."""
    mu, logvar = output.posterior if output.posterior is not None else (None, None)
    parts = {
        "mel": output.final_mel,
        "stop_logits": output.stop_logits,
        "attention": output.attention,
        "mu": mu,
        "logvar": logvar,
    }
    return {name: part.detach().float() for name, part in parts.items() if part is not None}


def own_part(name: str, value: Tensor, batch: Batch, row: int, r: int) -> Tensor:
    """What of an output is of utterance ``row`` of ``batch``, without padding."""
    frames, symbols = int(batch.mel_lengths[row]), int(batch.text_lengths[row])
    steps = -(-frames // r)
    if name == "attention":
        return value[row, ..., :steps, :symbols]
    if name == "mel":
        return value[row, :frames]
    if name == "stop_logits":
        return value[row, :steps]
    return value[row] if value.dim() == 2 else value[row, :frames]


def apart(found: Tensor, expected: Tensor) -> float:
    """How far apart, as a share of how much ``expected`` varies; Inf where what is not finite differs."""
    if found.shape != expected.shape:
        return math.inf
    if not found.numel() or torch.equal(found, expected):
        return 0.0
    if not (found.isfinite().all() and expected.isfinite().all()):
        return 0.0 if torch.equal(found.nan_to_num(), expected.nan_to_num()) else math.inf
    distance = float((found - expected).double().square().mean().sqrt())
    varies = float(expected.double().std(correction=0)) if expected.numel() > 1 else 0.0
    return distance / max(varies, 1e-3 * float(expected.abs().max()), 1e-12)


def differences(
    model: nn.Module, one: Batch, other: Batch, r: int, run: Callable[[nn.Module, Batch], AcousticOutput]
) -> dict[str, float]:
    """By output, the largest difference of any utterance between two batches of the same utterances."""
    first, second = named(run(model, one)), named(run(model, other))
    return {
        name: max(
            apart(own_part(name, second[name], one, row, r), own_part(name, value, one, row, r))
            for row in range(len(one.ids))
        )
        for name, value in first.items()
        if name in second
    }


def rows(batch: Batch, chosen: list[int], *, trimmed: bool = False) -> Batch:
    """Some utterances of a batch, padded as before, or to the longest of them alone."""
    index = torch.tensor(chosen, device=batch.mel.device)
    changed = {name: value[index] for name, value in batch.tensors().items()}
    ids = tuple(batch.ids[i] for i in chosen)
    part = replace(batch, ids=ids, frames=int(changed["mel_lengths"].sum()), **changed)
    if trimmed:
        frames, symbols = int(part.mel_lengths.max()), int(part.text_lengths.max())
        part = replace(part, mel=part.mel[:, :frames], text=part.text[:, :symbols])
    return part


def widened(batch: Batch, silence: Tensor, frames: int, symbols: int) -> Batch:
    """With so many frames and symbols more of padding."""
    more = silence.to(batch.mel).expand(len(batch.ids), frames, -1)
    return replace(batch, mel=torch.cat([batch.mel, more], dim=1), text=F.pad(batch.text, (0, symbols)))


def masks(batch: Batch) -> tuple[Tensor, Tensor]:
    """(B, N) and (B, T) bool: what is text, and what is speech."""
    return (
        valid_mask(batch.text_lengths, batch.text.shape[1]),
        valid_mask(batch.mel_lengths, batch.mel.shape[1]),
    )


def other_text(batch: Batch, symbols: int, *, valid: bool, reverse: bool = False) -> Batch:
    """With other symbols in the text, or in its padding; or with the text turned around."""
    text, where = batch.text.clone(), masks(batch)[0]
    if reverse:
        for row, length in enumerate(batch.text_lengths.tolist()):
            text[row, :length] = text[row, :length].flip(0)
        return replace(batch, text=text)
    shift = 1 + torch.arange(text.shape[1], device=text.device) % max(1, symbols - 2)
    changed = 1 + (text + shift) % max(1, symbols - 1)
    return replace(batch, text=torch.where(where if valid else ~where, changed, text))


def other_mel(batch: Batch, *, valid: bool) -> Batch:
    """With other frames in the speech, or in its padding."""
    where = masks(batch)[1][..., None]
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(batch.mel.shape, generator=generator).to(batch.mel)
    return replace(batch, mel=torch.where(where if valid else ~where, noise, batch.mel))


def without_posterior(output: AcousticOutput) -> None:
    """Let no gradient pass through a posterior, which is meant to hear the whole recording."""
    for part in output.posterior or ():
        if part.requires_grad:
            part.register_hook(_nothing)


def _nothing(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else torch.zeros_like(gradient)
