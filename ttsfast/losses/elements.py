"""One loss term element by element, on a fused backend, as a torch operator: traceable, differentiable once.

The values are one pass over the inputs. The gradients are another, since what arrives at each element is
known only then; they are written from the inputs, already multiplied by what arrived.

| term | reals | vectors | numbers | values |
|---|---|---|---|---|
| mel | input, target (B, T, C) | lengths, and (C,) added to the target | target's factor, delta | (B, T, C) |
| kl | mu, logvar, and the prior's (B, T, Z) | lengths | free bits | (B, T) |
| stop | logits (B, S) | lengths, and truncated | a, b of targets 0 and 1, tail | (B, S) |
| attention | weights (B, H, S, N) | step lengths, text lengths | sigma | (B, H, S, N) |

Values have the dtype computed in. The C++ backend copies inputs that are not contiguous or not of that dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ttsfast import native
from ttsfast.losses.sweep import BEST_ISA
from ttsfast.terms.counts import stop_tail
from ttsfast.terms.spec import compute_dtype

TERMS = ("mel", "kl", "stop", "attention")

_library = torch.library.Library("ttsfast", "FRAGMENT")
_ARGUMENTS = "str backend, str term, Tensor[] reals, Tensor[] vectors, float[] numbers"
_library.define(f"loss_elements({_ARGUMENTS}) -> Tensor")
_library.define(f"loss_elements_backward({_ARGUMENTS}, Tensor incoming, bool[] wanted) -> Tensor[]")


class ElementCall(NamedTuple):
    """One pass over a term: what the table above lists, what arrived at the values, and what to write."""

    term: str
    reals: Sequence[Tensor]
    vectors: Sequence[Tensor]
    numbers: Sequence[float]
    incoming: Tensor | None
    """None in the forward pass."""
    outputs: Sequence[Tensor | None]
    """The values, or with ``incoming`` a gradient for each of ``reals``, None where none is wanted."""


def run(
    backend: str, term: str, reals: Sequence[Tensor], vectors: Sequence[Tensor], numbers: Sequence[float]
) -> Tensor:
    """The values, connected to ``reals``; ``backend`` is ``"cpp"`` or ``"triton"``."""
    return torch.ops.ttsfast.loss_elements(
        backend, term, list(reals), list(vectors), [float(number) for number in numbers]
    )


def _forward(
    backend: str, term: str, reals: Sequence[Tensor], vectors: Sequence[Tensor], numbers: Sequence[float]
) -> Tensor:
    values = _values(backend, term, reals)
    _write(backend, ElementCall(term, reals, vectors, numbers, None, [values]))
    return values


def _backward(
    backend: str,
    term: str,
    reals: Sequence[Tensor],
    vectors: Sequence[Tensor],
    numbers: Sequence[float],
    incoming: Tensor,
    wanted: Sequence[bool],
) -> list[Tensor]:
    gradients = [_gradient(tensor) if want else None for tensor, want in zip(reals, wanted, strict=True)]
    _write(backend, ElementCall(term, reals, vectors, numbers, incoming, gradients))
    return [gradient for gradient in gradients if gradient is not None]


def _write(backend: str, call: ElementCall) -> None:
    _check(call)
    if backend == "triton":
        from ttsfast.kernels import elements_launch

        elements_launch.run(call)
    else:
        _write_cpp(call)


def _write_cpp(call: ElementCall) -> None:
    assert native.core is not None
    term, reals, vectors, numbers, incoming, outputs = call
    dtype = compute_dtype(reals)
    shape, rows, columns, positive = _bounds(term, reals[0], vectors, numbers)
    inputs = [tensor.to(dtype).contiguous() for tensor in reals]
    shift = vectors[1].to(dtype).contiguous() if term == "mel" and len(vectors) == 2 else None
    arrived = None if incoming is None else incoming.to(dtype).contiguous()
    written = [
        output if output is None or output.dtype == dtype else torch.empty_like(output, dtype=dtype)
        for output in outputs
    ]
    native.core.loss_elements(
        TERMS.index(term),
        dtype == torch.float64,
        torch.get_num_threads(),
        BEST_ISA,
        shape,
        [_address(bound) for bound in (rows, columns, positive)],
        _four(inputs),
        _address(shift),
        _address(arrived),
        _four(written),
        (*numbers[:4], *[0.0] * (4 - len(numbers))),
    )
    for output, result in zip(outputs, written, strict=True):
        if output is not None and result is not None and result is not output:
            output.copy_(result)


def _bounds(
    term: str, values: Tensor, vectors: Sequence[Tensor], numbers: Sequence[float]
) -> tuple[tuple[int, ...], Tensor, Tensor | None, Tensor | None]:
    """(batch, heads, rows, width), and (B,) int64: valid rows, valid columns, the first positive column.

    Clamping makes them contiguous, too.
    """
    lengths = vectors[0].long()
    if term == "stop":
        batch, steps = values.shape
        lengths = lengths.clamp(0, steps)
        truncated = vectors[1] if len(vectors) == 2 else None
        included = lengths + stop_tail(lengths, truncated, int(numbers[4]), steps)
        positive = lengths - 1
        if truncated is not None:
            positive = torch.where(truncated, included, positive)
        return (batch, 1, 1, steps), torch.ones_like(lengths), included, positive.clamp(min=0)
    batch, rows, width = values.shape[0], *values.shape[-2:]
    lengths = lengths.clamp(0, rows)
    if term == "attention":
        return (batch, values.shape[1], rows, width), lengths, vectors[1].long().clamp(0, width), None
    return (batch, 1, rows, width), lengths, None, None


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _four(tensors: Sequence[Tensor | None]) -> tuple[int, ...]:
    return (*(_address(tensor) for tensor in tensors), *[0] * (4 - len(tensors)))


def _check(call: ElementCall) -> None:
    """What memory safety asks for; the functionals have said it in better words."""
    term, reals, vectors, _, incoming, _ = call
    dimensions, counts = {"mel": (3, (2,)), "kl": (3, (2, 4)), "stop": (2, (1,)), "attention": (4, (1,))}[
        term
    ]
    first = reals[0]
    arriving = [] if incoming is None else [incoming]
    expected = first.shape[:-1] if term == "kl" else first.shape
    if (
        len(reals) not in counts
        or first.dim() != dimensions
        or any(tensor.shape != first.shape for tensor in reals)
        or any(tensor.shape != expected for tensor in arriving)
        or any(tensor.device != first.device for tensor in (*reals, *vectors, *arriving))
    ):
        raise ValueError(f"loss_elements: tensors that do not fit the term {term!r}")
    for i, vector in enumerate(vectors):
        size = first.shape[2] if term == "mel" and i == 1 else first.shape[0]
        if vector.shape != (size,):
            raise ValueError(f"loss_elements: expected a vector of {size}, got shape {tuple(vector.shape)}")


def _values(backend: str, term: str, reals: Sequence[Tensor], *_: Any) -> Tensor:
    first = reals[0]
    shape = first.shape[:-1] if term == "kl" else first.shape
    return torch.empty(shape, dtype=compute_dtype(reals), device=first.device)


def _gradient(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def _gradients(backend: str, term: str, reals: Sequence[Tensor], *rest: Any) -> list[Tensor]:
    return [_gradient(tensor) for tensor, want in zip(reals, rest[3], strict=True) if want]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.backend, ctx.term, reals, vectors, ctx.numbers = inputs
    ctx.wanted = [tensor.requires_grad for tensor in reals]
    ctx.save_for_backward(*reals, *vectors)


def _differentiate(ctx: Any, incoming: Tensor) -> tuple[Any, ...]:
    saved, count = ctx.saved_tensors, len(ctx.wanted)
    given = iter(
        torch.ops.ttsfast.loss_elements_backward(
            ctx.backend,
            ctx.term,
            list(saved[:count]),
            list(saved[count:]),
            ctx.numbers,
            incoming,
            ctx.wanted,
        )
    )
    reals = [next(given) if want else None for want in ctx.wanted]
    return None, None, reals, [None] * (len(saved) - count), None


def _refuse(ctx: Any, *incoming: Any) -> tuple[Any, ...]:
    raise RuntimeError("the fused loss is differentiable once; use backend='torch' to go further")


for _name, _run, _fake, _slope, _setup in (
    ("loss_elements", _forward, _values, _differentiate, _keep),
    ("loss_elements_backward", _backward, _gradients, _refuse, None),
):
    # On the CPU also Triton's interpreter.
    _library.impl(_name, _run, "CPU")
    _library.impl(_name, _run, "CUDA")
    torch.library.register_fake(f"ttsfast::{_name}", _fake, lib=_library)
    torch.library.register_autograd(f"ttsfast::{_name}", _slope, setup_context=_setup, lib=_library)
