"""A model of one's own, tried on a small made-up batch before anything is loaded or trained."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ttsfast.config import Config
from ttsfast.errors import InputError, in_their_code
from ttsfast.models.eval_mode import eval_mode
from ttsfast.models.interface import AcousticOutput, FreeRunning, no_track

if TYPE_CHECKING:
    from ttsfast.models.voice_info import VoiceInfo

STEPS = 8
"""decoder steps of the made-up batch: its frames are a multiple of 8, as the loader pads them"""


def check_model(model: nn.Module, info: VoiceInfo, config: Config) -> None:
    """Call ``model`` as training and validation will, and compare what it returns with what they need.

    The weights, the training flags and the random streams are left as they were.

    Args:
        model: see :mod:`ttsfast.models.interface`.
        info: the symbols, speakers and mel bins that it is for.
        config: which terms have a weight, and so need their outputs.

    Raises:
        InputError: a method or output is missing, or has another shape; both are said.
    """
    _check_parameters(model)
    r = getattr(model, "reduction_factor", 1)
    if not isinstance(r, int) or isinstance(r, bool) or r < 1:
        raise InputError(f"the model's reduction_factor is {r!r}; it must be a whole number from 1 up")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    text = (torch.arange(10, device=device) % max(1, len(info.symbols) - 1) + 1).view(2, 5) % len(
        info.symbols
    )
    text_lengths = torch.tensor([5, 3], device=device)
    mel = torch.from_numpy(info.silence).to(device).expand(2, STEPS * r, -1).clone()
    mel_lengths = torch.tensor([STEPS * r, (STEPS - 2) * r], device=device)
    speaker = torch.zeros(2, dtype=torch.int64, device=device)
    tracks = {name: torch.ones(2, STEPS * r, device=device) for name in getattr(model, "tracks", ())}
    for name in tracks:
        if name not in info.tracks:
            raise no_track(name)
    beside = {"speaker": speaker, **tracks}
    _check_signature(model, "forward", (text, text_lengths, mel, mel_lengths), beside)
    limits = {"max_frames": 4 * r, "stop_threshold": 0.5}
    _check_signature(model, "synthesize", (text, text_lengths, speaker), limits)
    given = {"text": text, "text_lengths": text_lengths, "mel": mel, "mel_lengths": mel_lengths}
    kept = {name: tensor.clone() for name, tensor in given.items()}
    with eval_mode(model, device):
        # Inference tensors know nothing of gradients, and whether there will be any is to be seen.
        with torch.inference_mode(mode=False), torch.enable_grad(), _their_code("forward"):
            output = AcousticOutput.of(model(*given.values(), **beside))
        _check_output(output, (2, STEPS * r, mel.shape[2]), (STEPS, 5), -(-kept["mel_lengths"] // r), r)
        _check_unchanged("forward", given, kept)
        with _their_code("synthesize"):
            spoken = model.synthesize(text, text_lengths, speaker, **limits)  # type: ignore[operator]
        _check_unchanged("synthesize", given, kept)
        _check_spoken(spoken, mel.shape[2], text_lengths)
    _check_needed(output, config)


@contextmanager
def _their_code(method: str) -> Iterator[None]:
    """Within the block what is raised becomes one line that names the model's method and the place."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"the model's {method} failed on a small batch: {in_their_code(error)}") from error


def _check_parameters(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise InputError(f"the model's {name} has no shape yet; call the lazy module once in the factory")
    for name, module in model.named_modules():
        if getattr(module, "sparse", False) is True:
            raise InputError(
                f"the model's {name} ({type(module).__name__}) makes sparse gradients; use sparse=False"
            )
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("the model has no parameter to train; give it some, with requires_grad")


def _check_unchanged(method: str, given: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
    for name, tensor in given.items():
        if not torch.equal(tensor, kept[name]):
            raise InputError(
                f"the model's {method} changes its argument {name} in place, which the loss still needs; "
                f"change a copy, {name}.clone()"
            )


def _check_signature(
    model: nn.Module, name: str, args: tuple[object, ...], named: Mapping[str, object]
) -> None:
    method = getattr(model, name, None)
    wanted = {
        "forward": "forward(text, text_lengths, mel, mel_lengths, speaker)",
        "synthesize": "synthesize(text, text_lengths, speaker, *, max_frames, stop_threshold)",
    }[name]
    if method is None:
        raise InputError(f"the model {type(model).__name__} has no {name}; give it {wanted}")
    try:
        inspect.signature(method).bind(*args, **named)
    except TypeError as error:
        raise InputError(
            f"the model's {name}{inspect.signature(method)} cannot be called as {wanted}: {error}"
        ) from error


def _check_output(
    output: AcousticOutput, mel: tuple[int, int, int], attention: tuple[int, int], steps: Tensor, r: int
) -> None:
    batch, frames, _ = mel
    n_steps, n_text = attention
    pair = output.mel if isinstance(output.mel, (tuple, list)) else (output.mel,)
    if len(pair) not in (1, 2):
        raise InputError(f"the model's mel has {len(pair)} parts; return one tensor, or (before, after)")
    for part in pair:
        _require("mel", part, [mel], "(B, T, C), T as in the mel it was given")
    per_step = f"S = ceil(T / {r}) decoder steps, by the model's reduction_factor"
    if output.stop_logits is not None:
        _require("stop_logits", output.stop_logits, [(batch, n_steps)], f"(B, S), {per_step}")
    if output.attention is not None:
        heads = output.attention.shape[1] if isinstance(output.attention, Tensor) else 1
        shapes = [(batch, n_steps, n_text), (batch, heads, n_steps, n_text)]
        _require("attention", output.attention, shapes, f"(B, S, N) or (B, H, S, N), {per_step}")
        _require_attention("attention", output.attention, torch.tensor([n_text]))
    if output.alignment_log_probs is not None:
        of_steps = (batch, n_steps, n_text)
        _require("alignment_log_probs", output.alignment_log_probs, [of_steps], f"(B, S, N), {per_step}")
        if output.alignment_prior is not None:
            _require("alignment_prior", output.alignment_prior, [of_steps], "that of alignment_log_probs")
        if output.alignment_path is not None:
            _require_path(output.alignment_path, of_steps)
    by_step = (output.stop_logits, output.attention, output.alignment_log_probs)
    if output.step_lengths is None and r > 1 and any(tensor is not None for tensor in by_step):
        raise InputError(
            f"the model gives no step_lengths with a reduction_factor of {r}; return ceil(mel_lengths / {r})"
        )
    if output.step_lengths is not None:
        _require("step_lengths", output.step_lengths, [(batch,)], "(B,)")
        if output.step_lengths.tolist() != steps.tolist():
            raise InputError(
                f"the model's step_lengths are {output.step_lengths.tolist()}, expected {steps.tolist()}, "
                f"ceil(mel_lengths / {r}) by its reduction_factor"
            )
    if output.posterior is not None:
        if not isinstance(output.posterior, (tuple, list)) or len(output.posterior) != 2:
            raise InputError("the model's posterior is not a pair; return (mu, logvar)")
        for name, part in zip(("mu", "logvar"), output.posterior, strict=True):
            size = part.shape[-1] if isinstance(part, Tensor) and part.dim() else 1
            _require(f"posterior {name}", part, [(batch, size), (batch, frames, size)], "(B, Z) or (B, T, Z)")
    if output.auxiliary is not None:
        _require("auxiliary", output.auxiliary, [()], "one number, the sum over the batch")


def _check_needed(output: AcousticOutput, config: Config) -> None:
    training = config.training
    for name, key in (
        ("mel", "mel_loss_weight"),
        ("stop_logits", "stop_loss_weight"),
        ("attention", "attention_loss_weight"),
        ("posterior", "kl_loss_weight"),
        ("alignment_log_probs", "alignment_loss_weight"),
        ("alignment_log_probs", "binarization_loss_weight"),
        ("alignment_path", "binarization_loss_weight"),
    ):
        weight = getattr(training, key)
        wanted = weight > 0 and (name != "posterior" or config.model.posterior)
        # A path is chosen, and teaches nothing itself.
        given = () if name == "alignment_path" else _tensors(getattr(output, name))
        learns = [x.requires_grad for x in given]
        if wanted and learns and not any(learns):
            raise InputError(
                f"the model's {name} sends no gradient back, so training.{key}={weight:g} teaches nothing; "
                "do not detach it, or set that to 0"
            )
        if wanted and getattr(output, name) is None:
            raise InputError(
                f"the model gives no {name}, which training.{key}={weight:g} needs; return it, "
                f"or set training.{key}=0"
            )


def _check_spoken(spoken: object, bins: int, text_lengths: Tensor) -> None:
    if not isinstance(spoken, FreeRunning):
        raise InputError(
            f"the model's synthesize returned {type(spoken).__name__}; return a "
            "ttsfast.models.interface.FreeRunning"
        )
    frames = spoken.mel.shape[1] if isinstance(spoken.mel, Tensor) and spoken.mel.dim() == 3 else 1
    _require("synthesize's mel", spoken.mel, [(2, frames, bins)], "(B, T, C)")
    for name in ("mel_lengths", "stopped"):
        _require(f"synthesize's {name}", getattr(spoken, name), [(2,)], "(B,)")
    lengths = spoken.mel_lengths
    if lengths.is_floating_point() or int(lengths.min()) < 1 or int(lengths.max()) > frames:
        raise InputError(
            f"the model: synthesize's mel_lengths are {lengths.tolist()} of {lengths.dtype}, expected whole "
            f"numbers from 1 to its mel's {frames} frames"
        )
    if spoken.attention is not None:
        _require_attention("synthesize's attention", spoken.attention, text_lengths)


def _require_path(path: object, shape: tuple[int, int, int]) -> None:
    """Durations (B, N) in steps, or a boolean path (B, S, N)."""
    batch, _, symbols = shape
    if not isinstance(path, Tensor) or path.is_floating_point() or path.is_complex():
        found = path.dtype if isinstance(path, Tensor) else type(path).__name__
        raise InputError(
            f"the model's alignment_path is of {found}; return integer durations or a boolean path"
        )
    wanted = shape if path.dtype == torch.bool else (batch, symbols)
    if tuple(path.shape) != wanted:
        raise InputError(
            f"the model's alignment_path of {path.dtype} has shape {tuple(path.shape)}, expected {wanted}"
        )


def _require_attention(name: str, value: object, text_lengths: Tensor) -> None:
    """Weights (B, S, N) or (B, H, S, N) that are distributions over the valid text."""
    symbols = int(text_lengths.max())
    if not isinstance(value, Tensor) or value.dim() not in (3, 4) or value.shape[0] != 2:
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
        raise InputError(f"the model's {name} is of {found}, expected (B, S, N) or (B, H, S, N)")
    weights = value.detach().float()
    if not weights.isfinite().all():
        return  # the trainer names the first module whose output is not finite
    total = weights[..., :symbols].sum(-1)
    if weights.min() < -1e-4 or total.max() > 1.001:
        raise InputError(
            f"the model's {name} holds values from {float(weights.min()):.3g} and rows that sum to "
            f"{float(total.max()):.3g}; return weights, after the softmax over the text"
        )


def _tensors(value: object) -> list[Tensor]:
    parts = value if isinstance(value, (tuple, list)) else (value,)
    return [part for part in parts if isinstance(part, Tensor)]


def _require(name: str, value: object, shapes: list[tuple[int, ...]], meaning: str) -> None:
    if not isinstance(value, Tensor):
        raise InputError(f"the model's {name} is of type {type(value).__name__}; return a tensor {meaning}")
    integers = name in ("step_lengths", "synthesize's mel_lengths", "synthesize's stopped")
    if not (integers or value.is_floating_point()):
        raise InputError(f"the model's {name} holds {value.dtype}; return floats {meaning}")
    if tuple(value.shape) not in shapes:
        raise InputError(
            f"the model's {name} has shape {tuple(value.shape)}, expected "
            f"{' or '.join(map(str, dict.fromkeys(shapes)))}, that is {meaning}"
        )
