"""``ttsfast`` in a process of its own that is forked from one which has imported what commands need: to start
Python and import torch again takes two seconds of a processor each time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

import forks


def start_ttsfast(*arguments: str, cwd: Path, outputs: Path) -> BaseProcess:
    """Start a command in the folder ``cwd``; what it prints goes to two files in ``outputs``."""
    return forks.start(_command, arguments, cwd, (outputs / "stdout", outputs / "stderr"))


def forked_ttsfast(
    *arguments: str, cwd: Path, outputs: Path, seconds: float = 280
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    process = start_ttsfast(*arguments, cwd=cwd, outputs=outputs)
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
    code = process.exitcode
    process.close()
    assert code is not None
    texts = ((outputs / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess(arguments, code, *texts)


def _command(arguments: tuple[str, ...], cwd: Path, paths: tuple[Path, Path]) -> None:
    from ttsfast.cli import main

    for number, path in enumerate(paths, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(cwd)
    sys.argv = ["ttsfast", *arguments]
    main()
