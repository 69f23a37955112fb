"""The contracts of pyproject.toml on imports, read on the tree as an installation lays it out.

import-linter follows folders: in a checkout it would not see that ``kernels/`` is ``ttsfast.kernels``.
``make lint`` runs this file.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINTER = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lay_out(folder: Path) -> Path:
    """Copy the contracts and the Python files into ``folder``; return the package there."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    package = folder / "ttsfast"
    for source, target in ((ROOT / "ttsfast", package), (ROOT / "kernels", package / "kernels")):
        for file in source.rglob("*.py"):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    return package


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter in ``folder``, which :func:`lay_out` filled."""
    command = [sys.executable, "-c", LINTER, "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        lay_out(Path(name))
        result = lint_imports(Path(name))
    print(result.stdout, result.stderr)
    sys.exit(result.returncode)
