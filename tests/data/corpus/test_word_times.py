"""``words.json``: what is written is read, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ttsfast.data.corpus.word_times import NAME, read_word_times, write_word_times
from ttsfast.errors import InputError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_word_times(tmp_path) is None
    write_word_times(tmp_path, {"a": [(0, 0.25), (2, 1.5)], "ب": []})
    assert read_word_times(tmp_path) == {"a": [(0, 0.25), (2, 1.5)], "ب": []}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        '{"a": [[0]]}',
        '{"a": [["x", 1]]}',
        '{"a": 3}',
        '{"a": [[-1, 1.0]]}',
        '{"a": [[0, -0.5]]}',
        '{"a": [[0, NaN]]}',
        '{"a": [[1e400, 1]]}',
        "[" * 100_000,
        "\ud800",
    ],
)
def test_anything_else_is_refused_in_a_line(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=r"words\.json.*mend it") as error:
        read_word_times(tmp_path)
    assert "\n" not in str(error.value)
