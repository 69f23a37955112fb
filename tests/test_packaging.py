"""The wheel: built in isolation, without torch; and still built where there is no compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ttsfast import native

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("ttsfast", "kernels", "csrc", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


def build_wheel(folder: Path, environment: dict[str, str]) -> list[str]:
    """Build from a copy, as ``pip install`` of a download would; return the names in the wheel."""
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(source)],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def has_extension(names: list[str]) -> bool:
    return any(name.startswith("ttsfast/_C") and name.endswith(".so") for name in names)


def packages_of_the_tree() -> set[str]:
    inits = [path.relative_to(ROOT) for path in (ROOT / "ttsfast").rglob("__init__.py")]
    return {".".join(path.parent.parts) for path in inits} | {"ttsfast.kernels"}


def test_every_package_is_listed() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(packages_of_the_tree())


def test_every_module_is_in_a_package() -> None:
    folders = {".".join(path.relative_to(ROOT).parent.parts) for path in (ROOT / "ttsfast").rglob("*.py")}
    assert folders <= packages_of_the_tree()


COMPILER = """#!/bin/bash
for argument; do
  if [[ $argument == *.cpp ]]; then echo "$argument" >>{log}; argument={empty}; fi
  arguments+=("$argument")
done
exec {compiler} "${{arguments[@]}}"
"""


def compiles_nothing(folder: Path, log: Path) -> dict[str, str]:
    """An environment whose compiler notes its sources and compiles an empty one in their place: whoever runs
    these tests has built the extension, which takes minutes of a processor.
    """
    compiler, empty = folder / "g++", folder / "empty.cpp"
    empty.touch()
    compiler.write_text(COMPILER.format(log=log, empty=empty, compiler=shutil.which("g++")))
    compiler.chmod(0o755)
    return {"CC": str(compiler), "CXX": str(compiler)}


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ on this machine")


@needs_compiler
def test_with_a_compiler_the_extension_was_built() -> None:
    assert native.core is not None, native.why_missing


@pytest.mark.slow
@needs_compiler
def test_a_wheel_holds_the_extension_kernels_and_presets(tmp_path: Path) -> None:
    names = build_wheel(tmp_path, compiles_nothing(tmp_path, tmp_path / "compiled"))
    assert has_extension(names)
    compiled = {name for name in (tmp_path / "compiled").read_text().split() if name.startswith("csrc/")}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.cpp")}
    assert compiled == {name for name in sources if not name.startswith("csrc/fuzz/")}
    assert {"ttsfast/kernels/__init__.py", "ttsfast/configs/demo.yaml", "ttsfast/py.typed"} <= set(names)
    recipes = Path("ttsfast", "benchmarks", "convergence")
    assert {str(recipes / "ablation.yaml"), str(recipes / "recipes" / "strong.yaml")} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "bench", "csrc"))]
    for folder in ("ttsfast", "kernels"):
        for path in (ROOT / folder).rglob("*.py"):
            inside = (
                Path("ttsfast", "kernels", path.relative_to(ROOT / "kernels"))
                if folder == "kernels"
                else path.relative_to(ROOT)
            )
            assert str(inside) in names


@pytest.mark.slow
def test_without_a_compiler_the_wheel_is_built_without_the_extension(tmp_path: Path) -> None:
    names = build_wheel(tmp_path, {"CC": "/bin/false", "CXX": "/bin/false"})
    assert not has_extension(names)
    assert "ttsfast/cli/commands.py" in names
