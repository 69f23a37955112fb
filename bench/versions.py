"""Run the suite on other versions of torch than the pinned ones, each in a virtual environment of its own.

    python bench/versions.py [newest] [oldest] --output bench/results/versions.json    (make test-versions)

``newest`` is torch 2.14.1 with Triton 3.8.0, which get the tests of the kernels too; ``oldest`` is the lowest
version of everything that ``pyproject.toml`` names, on the oldest Python. An environment that is there is
taken as it is; making one downloads some gigabytes. Each part of the suite is a process, and what it found is
written when it ends, so that an interrupted run leaves a record of what it did.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ttsfast.benchmarks.machine import describe

ROOT = Path(__file__).resolve().parents[1]
TEST_TOOLS = ("pytest", "pytest-timeout", "hypothesis", "fsspec[http]")
PACKAGES = ("torch", "triton", "numpy", "scipy", "librosa", "safetensors", "pytest", "hypothesis")


class Versions(NamedTuple):
    """One set of versions, and what is held to it."""

    python: str
    """Looked for on the PATH."""
    oldest: bool
    """The lowest versions of pyproject.toml; the pins, but for torch and Triton, otherwise."""
    torch: tuple[str, ...]
    parts: tuple[str, ...]
    """Folders and files of tests/."""


SETS = {
    "newest": Versions(
        f"python{sys.version_info.major}.{sys.version_info.minor}",
        False,
        ("torch==2.14.1", "triton==3.8.0"),
        ("kernels", "losses", "data", "training"),
    ),
    "oldest": Versions("python3.10", True, ("torch==2.6.0",), ("losses", "data", "training")),
}


def requirements(oldest: bool) -> list[str]:
    """What the package and its tests need beside torch."""
    # Not by a parser of TOML, which Python 3.10 lacks.
    text = (ROOT / "pyproject.toml").read_text()
    found = re.findall(r'^    "([a-zA-Z][^"]*)",$', text, re.MULTILINE)
    named = {re.split("[ ;<>=]", line, maxsplit=1)[0]: line for line in reversed(found)}
    own = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert own is not None
    wanted = [name for name in named if f'"{named[name]}"' in own.group(1)] + list(TEST_TOOLS)
    # A lower bound of two numbers is met by any patch of it, not all of which were released.
    return [
        re.sub(r">=(\d+\.\d+)$", r"~=\1.0", re.sub(r">=(\d+(?:\.\d+){2,})$", r"==\1", named[name]))
        if oldest
        else name
        for name in wanted
        if name not in ("torch", "triton")
    ]


def environment(name: str, folder: Path) -> Path:
    """The Python of the environment ``name``, made where it is not there."""
    versions, place = SETS[name], folder / name
    python = place / "bin" / "python"
    if python.exists():
        return python
    subprocess.run([versions.python, "-m", "venv", str(place)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    pins = ROOT / "constraints.txt"
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        others = [line for line in pins.read_text().splitlines() if not line.startswith(("torch", "triton"))]
        file.write("\n".join([*versions.torch, *([] if versions.oldest else others)]))
        file.flush()
        constrained = [*pip, "-c", file.name]
        subprocess.run([*constrained, *versions.torch], check=True)
        subprocess.run([*constrained, *requirements(versions.oldest)], check=True)
        subprocess.run([*pip, "--no-deps", "-e", str(ROOT)], check=True)
    return python


def installed(python: Path) -> dict[str, str]:
    """Versions of what matters in the environment."""
    code = (
        "import json, platform, importlib.metadata as m\n"
        "def of(n):\n"
        "    try: return m.version(n)\n"
        "    except m.PackageNotFoundError: return None\n"
        f"print(json.dumps({{'python': platform.python_version(), **{{n: of(n) for n in {PACKAGES!r}}}}}))"
    )
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True, cwd="/")
    found: dict[str, str] = json.loads(done.stdout)
    return found


def run_part(python: Path, part: str, log: Path) -> dict[str, Any]:
    """Run tests/``part``; how many tests passed, failed and were skipped, and which failed."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}"]
        with log.open("w") as output:
            done = subprocess.run(
                [*command, f"tests/{part}"],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        found: dict[str, Any] = {"passed": 0, "skipped": 0, "failed": []}
        if report.exists():
            for case in ElementTree.parse(report).iter("testcase"):
                outcomes = {child.tag for child in case}
                if outcomes & {"failure", "error"}:
                    found["failed"].append(f"{case.get('classname')}::{case.get('name')}")
                else:
                    found["skipped" if "skipped" in outcomes else "passed"] += 1
    found |= {"exit_code": done.returncode, "seconds": round(time.monotonic() - began)}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=list(SETS), help=f"of {', '.join(SETS)}; default: all")
    parser.add_argument("--parts", nargs="+", help="of tests/, in place of those of the set")
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "versions")
    parser.add_argument("--output", type=Path, help="JSON, added to part by part")
    arguments = parser.parse_args()
    if unknown := set(arguments.sets) - set(SETS):
        parser.error(f"no such set: {', '.join(sorted(unknown))}; there are {', '.join(SETS)}")
    failed = False
    for name in arguments.sets:
        python = environment(name, arguments.environments)
        for part in arguments.parts or SETS[name].parts:
            log = arguments.environments / f"{name}-{part.replace('/', '-')}.log"
            found = run_part(python, part, log)
            # The versions are those of the environment, not of what runs this.
            machine = describe(torch.device("cpu"))
            found |= {key: machine[key] for key in ("date", "processor", "cores", "load", "commit")}
            failed |= found["exit_code"] != 0
            print(
                f"{name} {part}: {found['passed']} passed, {found['skipped']} skipped, "
                f"{len(found['failed'])} failed in {found['seconds']} s",
                *found["failed"],
                sep="\n    ",
                flush=True,
            )
            if arguments.output is not None:
                record = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
                entry = record.setdefault(name, {"parts": {}})
                entry["versions"] = installed(python)
                entry["parts"][part] = found
                arguments.output.write_text(json.dumps(record, indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
