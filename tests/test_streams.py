"""A command whose words nobody hears, or whose streams are closed, ends as it would have."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
