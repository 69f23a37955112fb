"""A model in ``eval()`` for a while, and no trace of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def in_eval(model: nn.Module) -> Iterator[None]:
    """``eval()``, with the training flag of every module put back afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def eval_mode(model: nn.Module, device: torch.device | str) -> Iterator[None]:
    """:func:`in_eval` and ``inference_mode``, with random streams put back afterwards.

    The random streams start from the same seed each time, for models that keep dropout when they speak.
    """
    device = torch.device(device)
    random = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with in_eval(model), random, torch.inference_mode():
        torch.manual_seed(0)
        yield
