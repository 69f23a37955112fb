from __future__ import annotations

from pathlib import Path

import pytest

from ttsfast.errors import InputError
from ttsfast.files import atomic_write, check_output_file, inside, output_folder


def test_a_failed_write_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with atomic_write(path) as handle:
            handle.write(b"half of the new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a longer old content")
    with atomic_write(path) as handle:
        handle.write(b"new")
        assert path.read_text() == "a longer old content"
    assert path.read_text() == "new"
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("relative", ["../x", "/etc/passwd", "a/../../x", "link/x"])
def test_paths_stay_inside(relative: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"metadata\.csv"):
        inside(root, relative, "metadata.csv")
    assert inside(root, "a/../b.wav", "metadata.csv") == root / "a/../b.wav"


def test_an_output_file_is_looked_at_before_the_work(tmp_path: Path) -> None:
    check_output_file(tmp_path / "page.html")
    assert not list(tmp_path.iterdir())
    (tmp_path / "old").write_text("")
    check_output_file(tmp_path / "old")
    for path in (tmp_path, tmp_path / "old" / "x", tmp_path / "none" / "x", tmp_path / ("a" * 300)):
        with pytest.raises(InputError, match=r"give another file|is a folder; give a file's name") as error:
            check_output_file(path)
        assert str(error.value).startswith(f"{path}: ")


def test_an_output_folder_is_made_or_refused(tmp_path: Path) -> None:
    assert output_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/x")):
        with pytest.raises(InputError, match="choose another folder"):
            output_folder(path)
    assert not list((tmp_path / "a" / "b").iterdir())
