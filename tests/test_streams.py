"""A command whose words nobody hears, or whose streams are closed, ends as it would have."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys

import pytest
from rich.table import Table

from ttsfast.cli import commands
from ttsfast.cli.options import print_json
from ttsfast.progress import console

COMMAND = [sys.executable, "-m", "ttsfast", "config", "--preset", "demo"]
# Without it Python keeps what is printed to the end, where a failure is easily lost.
KEPT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def test_progress_goes_on_where_it_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for path in ("/dev/full", writing):
        stream = open(path, "w")  # noqa: SIM115
        monkeypatch.setattr(sys, "stderr", stream)
        for _ in range(3):
            console.print("step 1")
        with pytest.raises(OSError):
            stream.close()


def test_the_exit_code_stands_where_stderr_is_not_read() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full", "w") as full:
        codes = [
            subprocess.run([*COMMAND, "nonsense=1"], stderr=stderr, env=KEPT, check=False).returncode
            for stderr in (writing, full)
        ]
    os.close(writing)
    assert codes == [2, 2]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1256"])
def test_a_locale_that_lacks_a_letter_ends_nothing(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"text": "سلام ünï \U0001f600 ─"}
    written = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, buffer in written.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(buffer, encoding=encoding))

    def command() -> None:
        print_json(said)
        print(said["text"], file=sys.stderr)
        table = Table("column")
        table.add_row(said["text"])
        console.print(table)

    monkeypatch.setattr(commands, "app", command)
    commands.main()
    assert json.loads(written["stdout"].getvalue().decode(encoding)) == said
    assert r"\U0001f600" in written["stderr"].getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("text", "encoding", "says"),
    [
        ("wavs/سلام.wav", "ascii", r"holds 'س', which cannot be written in ascii.*PYTHONUTF8=1"),
        ("a\udcffb", "utf-8", r"holds '\\udcff', which is no character.*not UTF-8; convert them"),
    ],
)
def test_what_no_encoding_can_write_is_one_line(
    text: str, encoding: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "app", lambda: text.encode(encoding))
    with pytest.raises(SystemExit) as caught:
        commands.main()
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(says, line)


def test_closed_streams_are_not_given_to_files() -> None:
    script = (
        "import os, sys; [os.close(fd) for fd in (0, 1, 2)]; sys.stdin = sys.stdout = sys.stderr = None;"
        "from ttsfast.streams import open_closed; open_closed();"
        "assert os.open('/dev/null', os.O_RDONLY) > 2; print('heard by nobody', file=sys.stderr)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_result_that_cannot_be_written_is_a_failure() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(COMMAND, stdout=full, stderr=subprocess.PIPE, text=True, env=KEPT, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("ttsfast: stdout: cannot be written (No space left on device)")
