"""Run the suite on other versions of torch than the pinned ones, each in a virtual environment of its own.

    python bench/versions.py [newest] [oldest] --output bench/results/versions.json    (make test-versions)

``newest`` is torch 2.14.1 with Triton 3.8.0, which get the whole suite; ``oldest`` is the lowest version of
everything that ``pyproject.toml`` names, on the oldest Python, which get what trains. Environments are kept
for the next time; making both downloads some gigabytes. Each set is recorded when it ends, so that an
interrupted run leaves a record of what it did.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "triton", "numpy", "scipy", "librosa", "safetensors", "ray", "pytest", "hypothesis")


def pins() -> list[str]:
    """The versions of ``constraints.txt``, but for torch and Triton."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith(("#", "torch==", "triton=="))]


def lowest() -> list[str]:
    """The lower bounds of ``pyproject.toml``, but for the tools of development, whose are no promise."""
    named = [line.split(";") for line in metadata.requires("ttsfast") or ()]
    bounds = [requirement.strip() for requirement, *marker in named if '"dev"' not in "".join(marker)]
    # A constraint names no extra.
    return [bound.replace(">=", "==").replace("[http]", "") for bound in bounds if ">=" in bound]


class Versions(NamedTuple):
    """One set of versions, and what is held to it."""

    python: str
    """A path, or a name to be looked for on the PATH."""
    constraints: list[str]
    wanted: tuple[str, ...]
    """Beside the package itself: its extras in brackets, or other packages."""
    tests: tuple[str, ...]


SETS = {
    "newest": Versions(sys.executable, ["torch==2.14.1", "triton==3.8.0", *pins()], ("[dev]",), ("tests",)),
    "oldest": Versions(
        "python3.10",
        lowest(),
        ("[remote,ray,dask]", "pytest", "pytest-timeout", "pytest-xdist", "hypothesis"),
        ("tests/losses", "tests/data", "tests/training"),
    ),
}


def environment(name: str, folder: Path) -> Path:
    """The Python of the environment ``name``, which holds this tree and the versions of the set."""
    versions, place = SETS[name], folder / name
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([versions.python, "-m", "venv", str(place)], check=True)
    extras, *others = versions.wanted
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(versions.constraints))
        file.flush()
        pip = [str(python), "-m", "pip", "install", "--quiet", "-c", file.name]
        subprocess.run([*pip, "-e", f"{ROOT}{extras}", *others], check=True)
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


def run(python: Path, tests: tuple[str, ...]) -> dict[str, Any]:
    """Run ``tests`` as ``make test`` does: how many passed, which failed, and why others were skipped."""
    began = time.monotonic()
    found: dict[str, Any] = {"passed": 0, "failed": []}
    skipped: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [str(python), "-m", "pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider", f"--junit-xml={report}", *tests],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
            if case.find("failure") is not None or case.find("error") is not None:
                found["failed"].append(f"{case.get('classname')}::{case.get('name')}")
            elif (skip := case.find("skipped")) is not None:
                skipped[reason(skip)] += 1
            else:
                found["passed"] += 1
    found["skipped"] = dict(skipped.most_common())
    return found | {"exit_code": done.returncode, "seconds": round(time.monotonic() - began)}


def reason(skip: ElementTree.Element) -> str:
    """Why a test, or a whole file of them, was skipped."""
    message = skip.get("message", "")
    if message == "collection skipped":
        # The text is (file, line, "Skipped: reason").
        message = str(ast.literal_eval(skip.text or "")[-1]).removeprefix("Skipped: ")
    return message


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=list(SETS), help=f"of {', '.join(SETS)}; default: all")
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "versions", help="kept here")
    parser.add_argument("--output", type=Path, help="JSON, added to set by set")
    arguments = parser.parse_args()
    if unknown := set(arguments.sets) - set(SETS):
        parser.error(f"no such set: {', '.join(sorted(unknown))}; there are {', '.join(SETS)}")
    worst = 0
    for name in arguments.sets:
        python = environment(name, arguments.environments.resolve())
        # The versions are those of the environment, not of what runs this.
        machine = describe(torch.device("cpu"))
        entry = {key: machine[key] for key in ("date", "processor", "cores", "load", "commit")}
        entry["versions"] = installed(python)
        entry |= {"tests": list(SETS[name].tests), **run(python, SETS[name].tests)}
        worst = max(worst, entry["exit_code"])
        print(
            f"{name}: {entry['passed']} passed, {sum(entry['skipped'].values())} skipped, "
            f"{len(entry['failed'])} failed in {entry['seconds']} s",
            *entry["failed"],
            sep="\n    ",
            flush=True,
        )
        if arguments.output is not None:
            record = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
            write_record(arguments.output, record | {name: entry})
    return worst


if __name__ == "__main__":
    sys.exit(main())
