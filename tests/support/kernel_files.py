"""Which tests run the kernels themselves."""

from __future__ import annotations

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
