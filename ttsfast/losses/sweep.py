"""One call into the C++ extension: tensors as addresses, shapes and strides; values and gradients back.

See csrc/losses_binding.cpp for the other side, which checks every shape and type before it touches memory.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from ttsfast import native
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import TERMS, LossInputs, LossSpec, StepState

BEST_ISA = 0
"""Let the extension pick among baseline (1), AVX2 (2) and AVX-512 (3)."""

_CODES = {
    torch.float32: 0,
    torch.float64: 1,
    torch.bfloat16: 2,
    torch.float16: 3,
    torch.uint8: 4,
    torch.int8: 5,
    torch.int16: 6,
    torch.int32: 7,
    torch.int64: 8,
    torch.bool: 9,
}
HALF = (torch.bfloat16, torch.float16)
_DISTANCES = {"huber": 0, "l1": 1, "mse": 2}
_SMOOTHINGS = {"none": 0, "mean": 1, "noise": 2}

RECYCLED_BYTES = 1 << 20
"""Gradients of at least this size live in memory that is used again once they are gone: what the C library
gives back to the system costs more in page faults, each step, than the whole sweep."""

_METHODS = {"fixed": 0, "dwa": 1, "uncertainty": 2, "origin": 3}


def _read_tensors() -> bool:
    """Let the extension read tensors by itself, where torch (2.10 on) has the interface for it."""
    exchange = getattr(Tensor, "__dlpack_c_exchange_api__", None)
    if native.core is None or exchange is None:
        return False
    return all(native.core.read_tensors_of(kind, exchange) for kind in (Tensor, torch.nn.Parameter))


def join_team() -> bool:
    """Compute on the threads that torch's own operations run on, where those are OpenMP's."""
    if native.core is None or "OpenMP" not in torch.__config__.parallel_info():
        return False
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    return bool(native.core.join_team_of(str(library)))


READS_TENSORS = _read_tensors()
join_team()

_View = tuple[int, int, tuple[int, ...], tuple[int, ...]] | Tensor


class SweepResult:
    """What one sweep wrote; ``gradients`` in the order of ``wanted``."""

    __slots__ = ("applied", "floors", "frames", "gradients", "total", "values")

    def __init__(
        self,
        total: Tensor,
        values: Tensor,
        floors: Tensor,
        frames: Tensor,
        gradients: list[Tensor],
        applied: float,
    ) -> None:
        self.total = total
        self.values = values
        self.floors = floors
        self.frames = frames
        self.gradients = gradients
        self.applied = applied


Slot = tuple[str, int]
"""Where a tensor sits in LossInputs: the field and its place in it."""


class Sweep:
    """One call's tensors, ready to be swept once or, for another gradient scale, again."""

    def __init__(
        self,
        spec: LossSpec,
        inputs: LossInputs,
        weights: Tensor | StepState,
        normalizer: Counts | Tensor | float | None,
        step: Tensor,
        isa: int = BEST_ISA,
    ) -> None:
        self.spec = spec
        self.isa = isa
        self.inputs = inputs
        self.dtype = inputs.compute_dtype()
        self.state: StepState | None = None
        if isinstance(weights, StepState):
            self.state = weights
            weights = torch.empty(len(TERMS), dtype=self.dtype, device="cpu")
        self.weights = weights
        self.versions = self._versions()
        self.normalizer = numbers_of(normalizer)
        # The caller counts its steps in place.
        self.step = step.clone() if spec.mel_smoothing == "noise" else step

    def check_unchanged(self) -> None:
        """Raise RuntimeError where what a second run would read was modified since the first."""
        if self._versions() != self.versions:
            raise RuntimeError(
                "a tensor that the loss was computed from has been modified by an inplace operation since: "
                "pass a clone of it, or modify it after backward"
            )

    def _versions(self) -> list[int]:
        inputs = self.inputs
        vectors = (
            *(inputs.mel_lengths, inputs.step_lengths, inputs.text_lengths, inputs.truncated),
            *(inputs.mel_mean, inputs.mel_std),
        )
        read = [*inputs.values(), self.weights, *(vector for vector in vectors if vector is not None)]
        # Those made in inference mode keep no count; after an assignment to `.data` it goes on elsewhere.
        counts = [tensor._version for tensor in read if not tensor.is_inference()]
        return [*counts, *(tensor.data_ptr() for tensor in inputs.values())]

    def differentiable(self) -> list[tuple[Slot, Tensor]]:
        """The tensors of active terms that need a gradient."""
        mel, kl, stop, attention = self.spec.active
        inputs = self.inputs
        slots: list[tuple[Slot, Tensor]] = []
        if mel:
            slots += [(("mel", i), tensor) for i, tensor in enumerate(inputs.mel)]
            slots.append((("target", 0), inputs.target))
        if kl:
            slots += [(("posterior", i), tensor) for i, tensor in enumerate(inputs.posterior or ())]
            slots += [(("prior", i), tensor) for i, tensor in enumerate(inputs.prior or ())]
        if stop and inputs.stop_logits is not None:
            slots.append((("stop", 0), inputs.stop_logits))
        if attention:
            slots += [(("attention", i), tensor) for i, tensor in enumerate(inputs.attention)]
        return [slot for slot in slots if slot[1].requires_grad]

    def run(
        self, wanted: list[tuple[Slot, Tensor]], scale: float, memory: list[Tensor] | None = None
    ) -> SweepResult:
        """Values, floors and the gradients of ``wanted`` times ``scale``, into ``memory`` where given.

        The first run of a sweep made with a StepState takes its weights from there and moves it on.
        """
        inputs, dtype = self.inputs, self.dtype
        total = torch.empty((), dtype=dtype, device="cpu")
        frames = torch.empty((), dtype=torch.int64, device="cpu")
        terms = torch.empty((2, len(TERMS)), dtype=dtype, device="cpu")
        gradients = [empty_gradient(tensor) for _, tensor in wanted] if memory is None else memory
        slopes = {slot: _view(g) for (slot, _), g in zip(wanted, gradients, strict=True)}
        statistics = [_statistic(part, dtype) for part in (inputs.mel_mean, inputs.mel_std)]
        mel = inputs.mel
        arguments = (
            torch.get_num_threads(),
            self.isa,
            (_view(mel[0]), _view(mel[1]) if len(mel) == 2 else None),
            (slopes.get(("mel", 0)), slopes.get(("mel", 1))),
            _view(inputs.target),
            slopes.get(("target", 0)),
            *(None if part is None else _view(part) for part in statistics),
            _pair(inputs.posterior),
            (slopes.get(("posterior", 0)), slopes.get(("posterior", 1))),
            _pair(inputs.prior),
            (slopes.get(("prior", 0)), slopes.get(("prior", 1))),
            None if inputs.stop_logits is None else _view(inputs.stop_logits),
            slopes.get(("stop", 0)),
            tuple(_view(layer) for layer in inputs.attention),
            tuple(slopes.get(("attention", i)) for i in range(len(inputs.attention))),
            _view(inputs.mel_lengths),
            _view(inputs.step_lengths),
            None if inputs.text_lengths is None else _view(inputs.text_lengths),
            None if inputs.truncated is None else _view(inputs.truncated),
            None if self.state is None else packed_state(self.state),
            _view(self.weights),
            _view(self.step),
            self.normalizer,
            scale,
            _view(total),
            _view(terms),
            _view(frames),
        )
        applied = fused(self.spec).run(arguments)
        self.state = None
        values, floors = terms.unbind()
        return SweepResult(total, values, floors, frames, gradients, applied)


LARGEST_HINT = 2.0**64
"""Of a gradient scale: beyond it, or below its inverse, gradients could overflow or vanish before they are
rescaled. A loss scaler's is below 2^32."""


def hint_of(grad_scale: Tensor | float | None) -> float:
    """The scale that gradients are written with: the one expected, where they can be recovered from it."""
    scale = 1.0 if grad_scale is None else float(grad_scale)
    return scale if 1 / LARGEST_HINT <= abs(scale) <= LARGEST_HINT else 1.0


def empty_gradient(tensor: Tensor) -> Tensor:
    """Memory for a gradient, uncleared, in the order of the tensor's own where that has no gaps."""
    if tensor.nbytes < RECYCLED_BYTES:
        return torch.empty_like(tensor)
    like = tensor if tensor.is_contiguous() else torch.empty_like(tensor, device="meta")
    assert native.core is not None
    memory = native.core.recycled(tensor.shape, like.stride(), _CODES[tensor.dtype])
    return memory if isinstance(memory, Tensor) else from_dlpack(memory)


def _spelled_out(tensor: Tensor) -> _View:
    return tensor.data_ptr(), _CODES[tensor.dtype], tensor.shape, tensor.stride()


def _itself(tensor: Tensor) -> _View:
    return tensor


_view = _itself if READS_TENSORS else _spelled_out


def packed_state(state: StepState) -> tuple[Any, ...]:
    method, *buffers, advance = state
    return _METHODS[method], *map(_view, buffers), advance


def _pair(pair: tuple[Tensor, Tensor] | None) -> tuple[_View, _View] | None:
    return None if pair is None else (_view(pair[0]), _view(pair[1]))


def _statistic(values: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if values is None else values.to(dtype).contiguous()


def numbers_of(normalizer: Counts | Tensor | float | None) -> tuple[float, ...] | None:
    if normalizer is None:
        return None
    return (
        tuple(float(part) for part in normalizer) if isinstance(normalizer, tuple) else (float(normalizer),)
    )


@lru_cache(maxsize=64)
def fused(spec: LossSpec) -> Any:
    """The spec in the extension's own form."""
    assert native.core is not None
    return native.core.FusedLosses(
        {
            "active": spec.active,
            "base_weights": spec.base_weights,
            "by_utterance": spec.normalization == "utterance",
            "elbo": spec.kl_normalization == "elbo",
            "mel_floor": spec.mel_floor,
            "stop_floors": spec.stop_floors,
            "stop_tail": spec.stop_tail_frames,
            "distance": _DISTANCES[spec.mel_loss],
            "delta": spec.huber_delta,
            "smoothing": _SMOOTHINGS[spec.mel_smoothing],
            "amount": spec.mel_label_smoothing,
            "free_bits": spec.kl_free_bits,
            "coefficients": spec.stop_coefficients,
            "sigma": spec.attention_sigma,
            "seed": spec.seed & 0xFFFFFFFF,
        }
    )
