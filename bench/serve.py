"""Load `ttsfast serve` with clients, hostile ones among them: none may be lost, and memory must stay flat.

    python bench/serve.py RUN --output bench/results/serve.json

It starts the service of a voice on this machine's loopback and sends it requests from several clients at
once. Most ask for a sentence or three, as wav streams, and time the first sound. Some send 10 MB of text,
broken JSON, text that is too long, names that are paths; some go in the middle of an answer, and a few ask
for a long text and do not read it. Each request must end as it should: a whole answer, or the refusal that
is its due.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record

PATH = "/v1/audio/speech"
HEADER = 44
WARM = 50
"""Requests before memory is looked at for the first time."""
LONGEST_HELD = 150.0
"""seconds after the last answer within which every connection must be gone"""
SLOW_TEXT = 4000
"""characters: more sound than buffers of the system hold"""
ENDS = {
    "spoken": "200",
    "10 MB of text": "413",
    "broken JSON": "400",
    "too long": "400",
    "a path for a voice": "400",
    "vanished": "vanished",
}


class Load:
    """What the clients share: what is still to be asked, and what came of it."""

    def __init__(self, address: tuple[str, int], texts: list[str], requests: int, process: int) -> None:
        self.address, self.texts, self.process = address, texts, process
        self.left = list(_plan(requests))
        self.outcomes: Counter[str] = Counter()
        self.faults: list[str] = []
        self.first_sound: list[float] = []
        self.whole: list[float] = []
        self.seconds_spoken = 0.0
        self.memory: list[float] = []
        self._lock = threading.Lock()

    def client(self) -> None:
        """Ask, one request after another, until none is left."""
        while True:
            with self._lock:
                if not self.left:
                    return
                number, kind = self.left.pop()
            try:
                end = self._ask(kind, random.Random(number))
            except (OSError, HTTPException, ValueError) as error:
                end = f"{type(error).__name__}: {error}"
            with self._lock:
                self.outcomes[f"{kind}: {end}"] += 1
                if end != ENDS[kind]:
                    self.faults.append(f"{kind}: {end}")
                if sum(self.outcomes.values()) % WARM == 0:
                    self.memory.append(round(_resident(self.process), 1))

    def _ask(self, kind: str, chance: random.Random) -> str:
        text = " ".join(chance.choices(self.texts, k=chance.choice((1, 1, 2, 3))))
        asked: dict[str, Any] = {"model": "tts-1", "input": text, "response_format": "wav"}
        if kind == "10 MB of text":
            asked["input"] = "a " * 5_000_000
        elif kind == "too long":
            asked["input"] = "a " * 4000
        elif kind == "a path for a voice":
            asked["voice"] = "../../etc/passwd"
        body = b'{"input": "' if kind == "broken JSON" else json.dumps(asked).encode()
        while True:
            begun = time.perf_counter()
            connection = HTTPConnection(*self.address, timeout=300)
            try:
                connection.request("POST", PATH, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                if answer.status == 503:
                    with self._lock:
                        self.outcomes["told to come back"] += 1
                    answer.read()
                    time.sleep(float(answer.headers["Retry-After"]))
                    continue
                if answer.status != 200:
                    json.loads(answer.read())["error"]["message"]
                    return str(answer.status)
                return self._listen(kind, answer, begun)
            finally:
                connection.close()

    def _listen(self, kind: str, answer: HTTPResponse, begun: float) -> str:
        header = answer.read(HEADER)
        answer.read(1)
        first = time.perf_counter() - begun
        if kind == "vanished":
            return "vanished"
        length = 1 + len(answer.read())
        rate = int.from_bytes(header[24:28], "little")
        with self._lock:
            self.first_sound.append(first)
            self.whole.append(time.perf_counter() - begun)
            self.seconds_spoken += length / 2 / rate
        return "200" if length % 2 == 0 else "half a sample"


def _plan(requests: int) -> list[tuple[int, str]]:
    """Every tenth request is hostile, of each kind in turn."""
    hostile = [kind for kind in ENDS if kind != "spoken"]
    return [
        (number, hostile[number // 10 % len(hostile)] if number % 10 == 9 else "spoken")
        for number in reversed(range(requests))
    ]


def _slow_reader(address: tuple[str, int], texts: list[str]) -> socket.socket:
    """Ask for a long text; the answer is never read."""
    text = ""
    while len(text) < SLOW_TEXT - 200:
        text += random.choice(texts) + " "
    body = json.dumps({"input": text, "response_format": "pcm"}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(address)
    client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return client


def _held(port: int) -> int:
    """Connections kept on the service's side; a client that reads nothing cannot tell."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # Listening is 0A, and 06 is over already.
    return sum(int(row[1].rpartition(":")[2], 16) == port and row[3] not in ("0A", "06") for row in rows)


def _resident(process: int) -> float:
    """MiB of memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def _places(times: list[float]) -> dict[str, float]:
    times = sorted(times)
    return {
        "median": round(statistics.median(times), 3),
        "p95": round(times[int(0.95 * (len(times) - 1))], 3),
        "worst": round(times[-1], 3),
    }


def run(
    voice: Path, texts: list[str], requests: int, clients: int, slow: int, options: list[str]
) -> dict[str, Any]:
    """Serve ``voice``, load it, and say what came of it; raises RuntimeError when it does not start."""
    command = [sys.executable, "-m", "ttsfast", "serve", str(voice), "--port", "0", *options]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = server.stderr.readline()  # type: ignore[union-attr]
        found = re.search(r"http://([\d.]+):(\d+)", said)
        if found is None:
            raise RuntimeError(f"the service does not start: {said}")
        address = found[1], int(found[2])
        _wait(address)
        load = Load(address, texts, requests, server.pid)
        readers = [_slow_reader(address, texts) for _ in range(slow)]
        threads = [threading.Thread(target=load.client) for _ in range(clients)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - begun
        while _held(address[1]) and time.perf_counter() - begun < seconds + LONGEST_HELD:
            time.sleep(0.5)
        freed, held = time.perf_counter() - begun, _held(address[1])
        after = _resident(server.pid)
        for reader in readers:
            reader.close()
    finally:
        server.send_signal(signal.SIGTERM)
        errors = server.communicate(timeout=60)[1]
    return {
        "requests": requests,
        "clients": clients,
        "slow_readers": slow,
        "connections_held_at_the_end": held,
        "seconds_until_none_was_held": round(freed, 1),
        "outcomes": dict(sorted(load.outcomes.items())),
        "faults": load.faults,
        "seconds": round(seconds, 1),
        "requests_per_second": round(requests / seconds, 2),
        "seconds_of_speech": round(load.seconds_spoken, 1),
        "times_real_time": round(load.seconds_spoken / seconds, 1),
        "first_sound_seconds": _places(load.first_sound),
        "whole_answer_seconds": _places(load.whole),
        "memory_mib": {f"every {WARM} requests": load.memory, "at the end": round(after, 1)},
        "exit_code": server.returncode,
        "server_said": errors.strip().splitlines()[-20:],
        "machine": describe(torch.device("cpu")),
    }


def _wait(address: tuple[str, int]) -> None:
    for _ in range(600):
        with suppress(OSError), socket.create_connection(address, timeout=1):
            return
        time.sleep(0.1)


def main() -> None:
    """Run from the command line; exits with 1 when a request did not end as it should."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("voice", type=Path)
    parser.add_argument("--texts", type=Path, help="sentences that the voice reads, one a line")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--slow", type=int, default=3, help="clients beside them that do not read")
    parser.add_argument("--output", type=Path)
    options, more = parser.parse_known_args()
    texts = options.texts.read_text(encoding="utf-8").splitlines() if options.texts else ["Hello there."]
    found = run(options.voice, texts, options.requests, options.clients, options.slow, more)
    write_record(options.output, found)
    print(json.dumps(found, indent=1, ensure_ascii=False))
    sys.exit(1 if found["faults"] or found["exit_code"] or found["connections_held_at_the_end"] else 0)


if __name__ == "__main__":
    main()
