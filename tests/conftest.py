"""The order of the suite: the files that take longest come first, since one that begins last leaves the other
worker without work while it runs. ``make test`` keeps pytest-xdist from putting them in an order of its own.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a shell's background; the children of tests inherit it, and would not be ended by Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `auto` trains in bf16 where a CPU has tiles for it: the suite shall be the same on every machine.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

HERE = Path(__file__).parent
LONGEST = (
    "kernels/test_kernel_interpreter.py",
    "training/test_compilation.py",
    "kernels/test_kernel_budgets.py",
    "training/distributed/test_process_group.py",
    "test_end_to_end.py",
    "losses/test_functional_interpreter.py",
    "benchmarks/test_data_features_bench.py",
    "data/loading/test_batcher_process.py",
    "export/test_export.py",
    "training/test_config_effects.py",
    "test_packaging.py",
    "training/distributed/test_sharding.py",
    "cli/test_cli.py",
    "data/prepare/test_prepare_engines.py",
)
"""Ten seconds of a processor and more each; the rest fills up what these leave."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests of those files to the front, and leave all others as they are."""
    if missing := [name for name in LONGEST if not (HERE / name).is_file()]:
        raise pytest.UsageError(f"tests/conftest.py: {', '.join(missing)}: no such file; correct LONGEST")
    places = {HERE / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
