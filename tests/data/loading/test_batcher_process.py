"""The batcher and the process it is in: fork, exit at any moment, Ctrl-C, closing. Each in a process of its
own and with a time limit, so that a hang is a failure.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_corpus import prepare_small, write_corpus

from ttsfast import native

pytestmark = pytest.mark.skipif(native.core is None, reason=native.why_missing or "the extension is there")

BEGIN = """
import gc, os, sys, threading, time
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
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    prepare_small(write_corpus(tmp_path_factory.mktemp("corpus"), 12), folder)
    return folder


def start(body: str, store: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + body, str(store)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(body: str, store: Path) -> bytes:
    """The process's output; it must end by itself, without a word on stderr."""
    output, errors = (process := start(body, store)).communicate(timeout=250)
    assert errors == b""
    assert process.returncode == 0
    return output


def test_the_parent_goes_on_and_the_child_opens_its_own(store: Path) -> None:
    run(
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
""",
        store,
    )


def test_forks_at_any_moment(store: Path) -> None:
    run(
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
""",
        store,
    )


def test_the_interpreter_ends_at_any_moment(store: Path) -> None:
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
    run(
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
""",
        store,
    )


@pytest.mark.parametrize("consumer", ["time.sleep(0.01)", "kept.append(batch)"])
def test_ctrl_c_ends_the_process(store: Path, consumer: str) -> None:
    process = start(
        f"""
kept = []
with opened() as loader:
    print("ready", flush=True)
    while len(kept) < 2000:
        for batch in loader:
            {consumer}
time.sleep(100)
""",
        store,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=250)
    assert process.returncode in (1, -signal.SIGINT)
    assert errors.rstrip().endswith(b"KeyboardInterrupt")


def test_an_interrupted_loader_goes_on_where_it_stood(store: Path) -> None:
    output = run(
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
delays = itertools.cycle([0.0001 * 1.25**k for k in range(30)])
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
""",
        store,
    )
    assert output == b"done\n"


def test_closing_at_any_moment_from_another_thread(store: Path) -> None:
    run(
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
""",
        store,
    )
