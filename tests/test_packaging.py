"""The wheel: built in isolation, without torch; and still built where there is no compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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


def hurried(folder: Path) -> dict[str, str]:
    """An environment whose compiler leaves out the optimisation, which is two fifths of its time: whoever
    runs these tests has built the extension with it.
    """
    compiler = folder / "g++"
    compiler.write_text(f'#!/bin/bash\nexec {shutil.which("g++")} "${{@/#-O?/-O0}}"\n')
    compiler.chmod(0o755)
    return {"CC": str(compiler), "CXX": str(compiler)}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ on this machine")
def test_a_wheel_holds_the_extension_kernels_and_presets(tmp_path: Path) -> None:
    names = build_wheel(tmp_path, hurried(tmp_path))
    assert has_extension(names)
    assert {"ttsfast/kernels/__init__.py", "ttsfast/configs/demo.yaml", "ttsfast/py.typed"} <= set(names)
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
