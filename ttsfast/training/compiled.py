"""``training.compile``: the model's forward and backward pass through ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ttsfast.errors import InputError
from ttsfast.training.objective import Objective


def compile_model(objective: Objective) -> None:
    """Let training passes run compiled; the module itself stays what it is, for validation, synthesis,
    checkpoints and export.

    One program serves all batches: their sizes are symbols in it. A few more are compiled where a size asks
    for other code (a batch of one utterance, a buffer of another size); after torch's limit of 8 the model
    goes on uncompiled, which torch says. Dropout draws what it draws without compilation.
    """
    _let_lengths_vary()
    objective.forward = torch.compile(objective.model, dynamic=True, options={"fallback_random": True})
    objective.explained = explained


@contextmanager
def explained() -> Iterator[None]:
    """Raise InputError for what torch's compiler cannot do."""
    # Imported here, since it takes a second that other runs need not spend.
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        # A failure of the code generator comes wrapped.
        cause = getattr(error, "inner_exception", None) or error
        reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), "")
        raise InputError(
            f"training.compile: torch.compile fails on this model ({type(cause).__name__}: "
            f"{reason.rstrip('.:')}); set training.compile=false"
        ) from error


def _let_lengths_vary() -> None:
    """Torch 2.13 compiles the gradient of a one-dimensional convolution anew for every length, since its own
    kernels, which are for two dimensions, want to know strides as numbers. What it falls back on, the same
    call of the library, does not.
    """
    from torch._inductor import lowering
    from torch._inductor.kernel import conv

    fallback = getattr(conv, "aten_convolution_backward_fallback", None)
    operator = torch.ops.aten.convolution_backward.default
    known: Callable[..., Any] | None = lowering.lowerings.get(operator)
    if fallback is None or known is None or getattr(known, "lets_lengths_vary", False):
        return

    def lowered(grad_out: Any, inputs: Any, weight: Any, *rest: Any) -> Any:
        one_dimensional = len(weight.get_size()) == 3
        return (fallback if one_dimensional else known)(grad_out, inputs, weight, *rest)

    lowered.lets_lengths_vary = True  # type: ignore[attr-defined]
    lowering.lowerings[operator] = lowered
