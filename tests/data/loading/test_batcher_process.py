"""The batcher and the process it is in: fork, exit at any moment, Ctrl-C, closing. Each in a process of its
own and with a time limit, so that a hang is a failure.

They are forked from one that has imported torch and has no threads, and end as an interpreter does, which a
child of multiprocessing would not.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_corpus import prepare_small, write_corpus

from ttsfast import native

pytestmark = pytest.mark.skipif(native.core is None, reason=native.why_missing or "the extension is there")

SERVER = """
import gc, json, os, sys, threading, time
import numpy
import torch
from ttsfast.data.loading.loader import MelLoader

def opened(**options):
    return MelLoader.open(sys.argv[1], batch_size=2, num_workers=2, **options)

def content(batches):
    return [(batch.ids, batch.mel.numpy().tobytes()) for batch in batches]

def forked(child, seconds=200):
    # A child that ends well; sys.exit goes through the interpreter's own end.
    sys.stdout.flush()
    number = os.fork()
    if number == 0:
        child()
        sys.exit(7)
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(number, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(number, 9)
            os.waitpid(number, 0)
            return "hangs"
        time.sleep(0.002)

for line in sys.stdin:
    body, *paths = json.loads(line)
    number = os.fork()
    if number == 0:
        for descriptor, path in enumerate(paths, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        exec(body)
        sys.exit()
    print(number, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    prepare_small(write_corpus(tmp_path_factory.mktemp("corpus"), 12), folder)
    return folder


class Server:
    """Runs programs one after another, each in a child."""

    def __init__(self, store: Path, folder: Path) -> None:
        self.paths = folder / "stdout", folder / "stderr"
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(store)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._ask, self._answers = self._process.stdin, self._process.stdout

    def start(self, body: str) -> int:
        """The number of the process that runs it."""
        for path in self.paths:
            path.write_text("")
        self._ask.write(json.dumps([body, *map(str, self.paths)]).encode() + b"\n")
        self._number = int(self._answers.readline())
        return self._number

    def wait(self) -> tuple[int, str, str]:
        """Its exit code, what it wrote to stdout and to stderr; what hangs is killed."""
        if not select.select([self._answers], [], [], 250)[0]:
            os.kill(self._number, signal.SIGKILL)
        code = int(self._answers.readline())
        output, errors = (path.read_text() for path in self.paths)
        return code, output, errors

    def run(self, body: str) -> str:
        """The program's output; it must end by itself, without a word on stderr."""
        self.start(body)
        code, output, errors = self.wait()
        assert (code, errors) == (0, "")
        return output

    def close(self) -> None:
        """With the end of what it reads, it ends."""
        self._process.communicate()


@pytest.fixture(scope="module")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    serving = Server(store, tmp_path_factory.mktemp("outputs"))
    yield serving
    serving.close()


def test_the_parent_goes_on_and_the_child_opens_its_own(server: Server) -> None:
    server.run(
        """
loader = opened()
whole = content(opened(backend="python"))
stream = iter(loader)
taken = [next(stream), next(stream)]

def child():
    for use in (lambda: next(iter(loader)), lambda: loader.load_state_dict({"epoch": 0, "position": 0})):
        try:
            use()
        except RuntimeError as error:
            assert "fork" in str(error), error
        else:
            os._exit(1)
    # Inherited batches are readable, and may go.
    assert content(taken) == whole[:2]
    taken.clear()
    gc.collect()
    assert content(opened()) == whole
    loader.close()

for _ in range(2):
    assert forked(child) == 7
assert content(taken + list(stream)) == whole
"""
    )


def test_forks_at_any_moment(server: Server) -> None:
    server.run(
        """
def child():
    del globals()["loader"], globals()["batch"]
    gc.collect()
    os._exit(7)

loader = opened()
for turn in range(12):
    for batch in loader:
        pass
    assert forked(child) == 7
"""
    )


def test_the_interpreter_ends_at_any_moment(server: Server) -> None:
    endings = [
        "",
        "del loader",
        "loader.close()",
        "loader.cycle = loader; del loader",
        "threading.stays = loader",
        "torch.stays = (loader, batch)",
        # Without tensors: where a daemon thread gives one up at that moment, torch ends the process itself.
        "threading.Thread(target=endless, daemon=True).start(); time.sleep(0.02)",
        "threading.Thread(target=loader.close).start()",
    ]
    server.run(
        f"""
def forever(loader):
    while True:
        yield from loader

def endless():
    core = loader._batcher._core
    while True:
        core.push(numpy.arange(2))
        core.take()

def child():
    loader = globals()["loader"] = opened()
    stream = forever(loader)
    for _ in range(turn):
        batch = globals()["batch"] = next(stream)
    exec(ending, globals())

# The children of a process without threads, which has imported everything once.
for ending in {endings!r}:
    turn = 1 + len(ending) % 4
    code = forked(child)
    assert code == 7, (ending, turn, code)
"""
    )


@pytest.mark.parametrize("consumer", ["time.sleep(0.01)", "kept.append(batch)"])
def test_ctrl_c_ends_the_process(server: Server, consumer: str) -> None:
    number = server.start(
        f"""
kept = []
with opened() as loader:
    print("ready", flush=True)
    while len(kept) < 2000:
        for batch in loader:
            {consumer}
time.sleep(100)
"""
    )
    while server.paths[0].read_text() != "ready\n":
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(number, signal.SIGINT)
    code, _, errors = server.wait()
    assert code in (1, -signal.SIGINT)
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_an_interrupted_loader_goes_on_where_it_stood(server: Server) -> None:
    output = server.run(
        """
import itertools, signal
loader, plain = opened(), opened(backend="python")
truth = []

def true_content(epoch):
    while len(truth) <= epoch:
        truth.append(content(plain))
    return truth[epoch]

seen, interrupts, armed = 0, 0, False

def interrupt(number, frame):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
# Some come before a batch and some after it, however fast this machine is today.
delays = itertools.cycle([0.0001 * 1.25**k for k in range(50)])
deadline = time.monotonic() + 1.5
while time.monotonic() < deadline or interrupts <= 20 or seen <= 20:
    place = loader.state_dict()
    true_content(place["epoch"])
    try:
        armed = True
        signal.setitimer(signal.ITIMER_REAL, next(delays))
        batch = next(iter(loader))
        armed = False
    except KeyboardInterrupt:
        interrupts += 1
        continue
    assert content([batch]) == [true_content(place["epoch"])[place["position"]]], place
    seen += 1
signal.setitimer(signal.ITIMER_REAL, 0)
place = loader.state_dict()
assert content(loader) == true_content(place["epoch"])[place["position"] :]
print("done")
"""
    )
    assert output == "done\n"


def test_closing_at_any_moment_from_another_thread(server: Server) -> None:
    server.run(
        """
for turn in range(60):
    batch, loader = None, opened()
    closer = threading.Timer(turn % 10 * 0.0005, loader.close)
    closer.start()
    try:
        while True:
            for batch in loader:
                pass
    except RuntimeError as error:
        assert "closed" in str(error), error
    closer.join()
    assert batch is None or batch.mel.isfinite().all()
"""
    )
