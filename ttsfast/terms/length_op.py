"""The check of lengths as a torch operator: in a compiled graph their values are known only when it runs."""

from __future__ import annotations

import torch
from torch import Tensor

_library = torch.library.Library("ttsfast", "FRAGMENT")
_library.define("checked_lengths(Tensor lengths, SymInt limit, str name, str axis) -> Tensor")


def check_values(lengths: Tensor, limit: int, name: str, axis: str) -> None:
    """Raise ValueError for a length on the host outside 0..``limit``."""
    try:
        values = lengths.tolist()
    except RuntimeError:
        # Within a transform of torch.func, torch 2.6 lists no tensor, but gives numbers one by one.
        values = [int(length) for length in lengths]
    if values and not (min(values) >= 0 and max(values) <= limit):
        row = next(i for i, length in enumerate(values) if not 0 <= length <= limit)
        raise ValueError(f"{name}[{row}] is {values[row]}, outside 0..{limit}, the size of {axis}")


def checked(lengths: Tensor, limit: int, name: str, axis: str) -> Tensor:
    """The lengths, once the graph that this is traced into has looked at them: what it goes on with must
    follow from the check, or the compiler would drop it."""
    result: Tensor = torch.ops.ttsfast.checked_lengths(lengths, limit, name, axis)
    return result


def _run(lengths: Tensor, limit: int, name: str, axis: str) -> Tensor:
    check_values(lengths, limit, name, axis)
    # An operator's result must not share memory with what it was given.
    return lengths.clone()


def _like(lengths: Tensor, limit: int, name: str, axis: str) -> Tensor:
    return torch.empty_like(lengths)


_library.impl("checked_lengths", _run, "CPU")
torch.library.register_fake("ttsfast::checked_lengths", _like, lib=_library)
