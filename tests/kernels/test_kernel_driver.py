"""What reaches the driver through Triton's own launcher in C, which packs a hundred arguments by itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from interpreter import INTERPRETED

if INTERPRETED:
    pytest.skip("the interpreter launches nothing", allow_module_level=True)

import triton

HERE = Path(__file__).parent
COMPILER = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
HEADERS = Path(triton.__file__).parent / "backends" / "nvidia" / "include"


@pytest.fixture(scope="module")
def handed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if COMPILER is None:
        pytest.skip("no C compiler to build the stand-in for the driver with")
    if not (HEADERS / "cuda.h").exists():
        pytest.skip("this build of Triton carries no cuda.h")
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libcuda.so.1"
    flags = ["-shared", "-fPIC", f"-I{HEADERS}", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([COMPILER, *flags, "-o", str(library), str(HERE / "fake_libcuda.c")], check=True)
    done = subprocess.run(
        [sys.executable, str(HERE.parent / "support" / "driver_worker.py")],
        env={
            **os.environ,
            # Not the launcher of a machine that has a driver, nor ours for such a machine.
            "TRITON_CACHE_DIR": str(folder / "cache"),
            "TRITON_LIBCUDA_PATH": str(folder),
            "LD_LIBRARY_PATH": str(folder),
            "OMP_NUM_THREADS": "1",
        },
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["forward", "backward"])
def test_the_table_hands_the_driver_what_triton_would(handed: Any, kind: str) -> None:
    found = handed[kind]
    assert found["parameters"] > 60
    for field in ("grids", "blocks", "streams"):
        slow, fast = found[field]
        assert slow == fast, field
    # Fresh memory alone: total, report, integers and the partial sums behind them.
    assert sorted(found["differing"]) == sorted(found["taken"])
    assert len(found["taken"]) == (4 if kind == "forward" else 0)


def test_the_gathering_kernel_reaches_it_and_empty_batches_do_not(handed: Any) -> None:
    assert handed["gathers"] == 1
