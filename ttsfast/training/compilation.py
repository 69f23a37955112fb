"""``training.compile``: the model's forward and backward pass through ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any

import torch
from torch import nn

from ttsfast.errors import InputError

OLDEST_TORCH = "2.11.0a0"
"""The compiler of torch 2.6 gives other weights or fails here; the versions between were not tried."""
NEWEST_TORCH = "2.15.0a0"
"""From here on nobody has looked whether compiled code adds up in order where torch is told to."""


def compile_model(model: nn.Module) -> Callable[..., Any]:
    """The model's call for training passes, compiled; the module itself stays what it is, for validation,
    synthesis, checkpoints and export.

    One program serves all batches: their sizes are symbols in it. A few more are compiled where a size asks
    for other code (a batch of one utterance, 16 and more of them on a CPU, a buffer of another size); after
    torch's limit of 8 the model goes on uncompiled, which torch says. Dropout draws what it draws without
    compilation.

    Raises:
        InputError: a torch before :data:`OLDEST_TORCH`; or, under torch's deterministic mode, one that is not
            known to keep it in compiled code.
    """
    if torch.__version__ < OLDEST_TORCH:
        raise InputError(
            f"training.compile needs torch 2.11 or newer, and this is {torch.__version__}: "
            "upgrade torch, or set training.compile=false"
        )
    if torch.are_deterministic_algorithms_enabled() and torch.__version__ >= NEWEST_TORCH:
        raise InputError(
            f"training.compile with training.deterministic is not known to repeat its bits on torch "
            f"{torch.__version__}: use torch 2.11 to 2.14, or set one of them to false"
        )
    _let_lengths_vary()
    # Of several ranks, torch would cut a model of more than 25 MiB into a program for each message of its
    # gradients, to send one while the next is made; it fails at that where sizes are symbols.
    config = private("torch._dynamo", "config")
    if hasattr(config, "optimize_ddp"):
        config.optimize_ddp = False
    compiled: Callable[..., Any] = torch.compile(model, dynamic=True, options={"fallback_random": True})
    return compiled


def counters() -> dict[str, float]:
    """How many programs torch has made in this process, or taken from its cache on disk."""
    of_torch = private("torch._dynamo.utils", "counters")
    return {} if of_torch is None else {"programs": of_torch["stats"]["unique_graphs"]}


def private(module: str, name: str) -> Any:
    """A name that torch does not promise to keep; None where it is gone.

    Imported when it is used, since torch's compiler takes a second that other runs need not spend.
    """
    try:
        return getattr(import_module(module), name, None)
    except ImportError:
        return None


@contextmanager
def passes(device: torch.device) -> Iterator[None]:
    """Around both passes, in which torch compiles: :func:`explained`, and on a CPU :func:`in_order`. On a GPU
    bits repeat under ``training.deterministic`` alone, compiled or not."""
    with explained(), in_order() if device.type == "cpu" else nullcontext():
        yield


@contextmanager
def in_order() -> Iterator[None]:
    """Torch's deterministic mode.

    The gradient of an embedding, or of whatever is indexed, adds up rows that come several times. Compiled
    code has several threads do so by atomic operations, in an order that is chance, but for this mode, in
    which it calls the library, whose order is the same every time.
    """
    if torch.are_deterministic_algorithms_enabled():
        yield
        return
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Every element that is read is written before.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]


@contextmanager
def explained() -> Iterator[None]:
    """Raise InputError for what torch's compiler cannot do."""
    # Without a name for them, they come as torch raises them.
    failures = private("torch._dynamo.exc", "TorchDynamoException") or ()
    try:
        yield
    except failures as error:
        # A failure of the code generator comes wrapped.
        cause = getattr(error, "inner_exception", None) or error
        reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), "")
        raise InputError(
            f"training.compile: torch.compile fails on this model ({type(cause).__name__}"
            f"{': ' * bool(reason)}{reason.rstrip('.:')}); set training.compile=false"
        ) from error


def _let_lengths_vary() -> None:
    """Torch 2.13 compiles the gradient of a one-dimensional convolution anew for every length, since its own
    kernels, which are for two dimensions, want to know strides as numbers. What it falls back on, the same
    call of the library, does not. Where torch's names are others, it goes on as torch does, and the count of
    programs in the log shows it.
    """
    fallback = private("torch._inductor.kernel.conv", "aten_convolution_backward_fallback")
    lowerings = private("torch._inductor.lowering", "lowerings") or {}
    operator = torch.ops.aten.convolution_backward.default
    known: Callable[..., Any] | None = lowerings.get(operator)
    if fallback is None or known is None or getattr(known, "lets_lengths_vary", False):
        return

    def lowered(grad_out: Any, inputs: Any, weight: Any, *rest: Any) -> Any:
        one_dimensional = len(weight.get_size()) == 3
        return (fallback if one_dimensional else known)(grad_out, inputs, weight, *rest)

    lowered.lets_lengths_vary = True  # type: ignore[attr-defined]
    lowerings[operator] = lowered
