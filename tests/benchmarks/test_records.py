from __future__ import annotations

import json
from pathlib import Path

import pytest

from ttsfast.benchmarks.records import write_record


def test_a_record_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_record(path, {"name": "سلام", "seconds": 1.5})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "سلام", "seconds": 1.5}
    assert "سلام" in path.read_text(encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_record(path, {"seconds": object()})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    write_record(None, {"seconds": 1.5})
