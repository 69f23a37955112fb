"""The layers of pyproject.toml hold in the whole package, and the linter sees what would break them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from installed_tree import lay_out, lint_imports

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("importlinter"), reason="no import-linter here")


def test_imports_run_downward_and_in_no_circle(tmp_path: Path) -> None:
    lay_out(tmp_path)
    result = lint_imports(tmp_path)
    assert result.returncode == 0, result.stdout


ANNOTATION = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ttsfast.losses import module"


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ({"kernels/__init__.py": "import ttsfast.losses.module"}, "ttsfast.kernels is not allowed to import"),
        ({"kernels/__init__.py": ANNOTATION}, "ttsfast.kernels is not allowed to import"),
        ({"terms/__init__.py": "import ttsfast.kernels"}, "ttsfast.terms is not allowed to import"),
        ({"files.py": "def late():\n    import ttsfast.data"}, "ttsfast.files is not allowed to import"),
        (
            {"data/a.py": "import ttsfast.data.b", "data/b.py": "import ttsfast.data.a"},
            "No cycles are allowed",
        ),
        ({"attic/__init__.py": ""}, "attic"),
    ],
    ids=["upward", "annotation", "into-kernels", "late", "circle", "no-layer"],
)
def test_an_import_that_breaks_them_is_found(tmp_path: Path, planted: dict[str, str], found: str) -> None:
    package = lay_out(tmp_path)
    for name, text in planted.items():
        path = package / name
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8") as module:
            module.write(text + "\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1, result.stderr
    assert found in result.stdout
