"""Which tests run the kernels themselves, and whether this process interprets them."""

from __future__ import annotations

import os

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
KERNEL_FILES = (
    "test_kernel_forward.py",
    "test_kernel_backward.py",
    "test_kernel_hostile.py",
    "test_kernel_state.py",
    "test_kernel_update.py",
    "test_kernel_compile.py",
    "test_kernel_properties.py",
    "test_kernel_noise.py",
    "test_kernel_gather.py",
)
