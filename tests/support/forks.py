"""Child processes for the tests, started quickly: forked from a server that has imported what they need.

The server has no threads: a child forked from here could wait for ever for a lock that another thread of this
process held at that moment. There is one for all tests of a process, so what it imports is listed here.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

_IMPORTED = (
    *("ttsfast.cli", "ttsfast.data.prepare.append", "ttsfast.evaluation.run", "ttsfast.training.trainer"),
    # Imported by the package when they are needed: once in the server is faster than in every child.
    *("joblib", "safetensors.numpy", "soundfile", "soxr", "torch._dynamo"),
    # By the modules of the tests that a child's function is in.
    *("hypothesis", "pytest"),
)


def start(function: Callable[..., object], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Call a function of a module in a child."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    child = context.Process(target=function, args=arguments)
    child.start()
    return child
