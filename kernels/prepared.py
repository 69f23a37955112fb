"""Launching a compiled kernel again: all arguments but some addresses are as before, and laid out already.

Triton's own way builds a description of each launch for profilers that may listen, and asks twice for device
and stream; with a hundred arguments, putting them together costs as much again. Here the arguments that stay
are laid down once, in a function that only fills in the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import triton

_KNOWN = ("3.6.", "3.7.", "3.8.")
"""Versions of Triton whose compiled kernels are known to be launched the way :class:`PreparedLaunch` does."""
_DIRECT = triton.__version__.startswith(_KNOWN)
_RAW_STREAM: Callable[[int], int] | None = getattr(torch._C, "_cuda_getCurrentRawStream", None)


class Placeholder(int):
    """Stands, among arguments, for the value of that number."""


class PreparedLaunch:
    """A compiled kernel of one layout."""

    __slots__ = ("_bind", "_grid", "_kernel", "_launch")

    def __init__(self, kernel: Any, grid: tuple[int, int, int], arguments: tuple[Any, ...]) -> None:
        """
        Args:
            kernel: as launched once, on the device that it will be launched on.
            arguments: nested as the kernel takes them, a :class:`Placeholder` for each that varies.
        """
        self._kernel, self._grid = kernel, grid
        self._launch = partial(kernel.run, *grid) if _DIRECT else None
        self._bind = binder(arguments)

    def __call__(self, values: Sequence[Any], stream: int) -> None:
        """Launch on the current device.

        Args:
            values: addresses and numbers, for the placeholders of these numbers.
            stream: its handle, of the current device.
        """
        kernel, arguments = self._kernel, self._bind(values)
        if self._launch is not None and not _listeners():
            # Without hooks nobody reads the description of the launch.
            self._launch(stream, kernel.function, kernel.packed_metadata, None, None, None, *arguments)
        else:
            kernel[self._grid](*arguments)


def stream_of(device: torch.device) -> int:
    """Handle of the current stream; 0 where there are none."""
    if device.type != "cuda":
        return 0
    if _RAW_STREAM is None:
        return torch.cuda.current_stream(device).cuda_stream
    # Makes no object of the stream, which takes longer than all else of a launch from the table.
    return _RAW_STREAM(device.index)


def binder(arguments: tuple[Any, ...]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """A function from values to ``arguments`` with each placeholder filled, as plain tuples.

    It is written out and compiled, which fills a hundred places in the time that a loop fills ten.
    """
    constants: list[tuple[Any, ...]] = []

    def spell(parts: tuple[Any, ...]) -> str:
        pieces: list[str] = []
        kept: list[Any] = []

        def keep() -> None:
            if kept:
                constants.append(tuple(kept))
                pieces.append(f"*c[{len(constants) - 1}],")
                kept.clear()

        for part in parts:
            if isinstance(part, Placeholder):
                keep()
                pieces.append(f"v[{int(part)}],")
            elif isinstance(part, tuple) and _has_placeholder(part):
                keep()
                pieces.append(spell(part) + ",")
            else:
                kept.append(part)
        keep()
        return f"({''.join(pieces)})"

    bound: Callable[[Sequence[Any]], tuple[Any, ...]] = eval(
        f"lambda v: {spell(arguments)}", {"c": constants}
    )
    return bound


def _has_placeholder(part: Any) -> bool:
    return any(map(_has_placeholder, part)) if isinstance(part, tuple) else isinstance(part, Placeholder)


def _listeners() -> bool:
    """Whether a profiler wants to hear of launches; an unknown kind of hook may."""
    hooks = triton.knobs.runtime
    return bool(
        getattr(hooks.launch_enter_hook, "calls", True) or getattr(hooks.launch_exit_hook, "calls", True)
    )
