"""Builds the C++ extension; everything else is declared in pyproject.toml."""

from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup

# On every core: one after the other, the files take a minute and more.
ParallelCompile(default=0).install()

# What is in fuzz/ are programs of their own.
files = [path for path in sorted(Path("csrc").rglob("*.*")) if "fuzz" not in path.parts]
sources = [str(path) for path in files if path.suffix == ".cpp"]
headers = [str(path) for path in files if path.suffix in (".h", ".inc")]

setup(
    ext_modules=[
        Pybind11Extension(
            "ttsfast._C",
            sources,
            depends=headers,
            include_dirs=["csrc"],
            cxx_std=17,
            # No -march: one build runs on every processor; faster instructions are chosen at run time.
            extra_compile_args=["-O3", "-Wall", "-Wextra", "-pthread"],
            extra_link_args=["-pthread"],
            # Without a compiler the package still installs; `ttsfast env` says what that costs.
            optional=True,
        )
    ]
)
