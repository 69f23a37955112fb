"""Builds the C++ extension; everything else is declared in pyproject.toml."""

from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup

sources = sorted(str(path) for path in Path("csrc").glob("*.cpp"))

setup(
    ext_modules=[
        Pybind11Extension(
            "ttsfast._C",
            sources,
            cxx_std=17,
            extra_compile_args=["-O3", "-fvisibility=hidden", "-Wall", "-Wextra"],
            # Without a compiler the package still installs; `ttsfast env` says what that costs.
            optional=True,
        )
    ]
)
