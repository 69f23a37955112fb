"""``ttsfast`` in a process of its own that is forked from one which has imported what commands need: to start
Python and import torch again takes two seconds of a processor each time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import forks


def forked_ttsfast(
    *arguments: str, cwd: Path, outputs: Path, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command in the folder ``cwd``; what it prints goes through two files in ``outputs``."""
    paths = (outputs / "stdout", outputs / "stderr")
    process = forks.start(_command, arguments, cwd, paths)
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
    code = process.exitcode
    process.close()
    assert code is not None
    return subprocess.CompletedProcess(arguments, code, *(path.read_text(encoding="utf-8") for path in paths))


def _command(arguments: tuple[str, ...], cwd: Path, paths: tuple[Path, Path]) -> None:
    from ttsfast.cli import main

    for number, path in enumerate(paths, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(cwd)
    sys.argv = ["ttsfast", *arguments]
    main()
