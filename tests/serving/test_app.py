"""What a client gets: sound as it asked for it, or one line that says why not; and what a bad one costs."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from asgi import Exchange, call, until
from voices import parallel_voice, small_voice

pytest.importorskip("starlette", reason="starlette is not installed (extra 'serve')")

from ttsfast.errors import InputError
from ttsfast.models.voice import Speech, Voice
from ttsfast.serving.app import make_app
from ttsfast.serving.request import Limits
from ttsfast.serving.service import Service
from ttsfast.synthesis.lines import Line
from ttsfast.synthesis.reader import Reader
from ttsfast.synthesis.vocoder import Vocoder

SPEECH = "/v1/audio/speech"
RATE = 22050
SAMPLES = 3000
"""of each sentence that is spoken here"""


@pytest.fixture(scope="module")
def voice() -> Voice:
    return small_voice()


@dataclass(frozen=True, kw_only=True)
class Script(Reader):
    """Speaks each word as a sentence of its own, when it may: a ramp whose height is the word's length."""

    may: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(10**9))
    spoken: list[str] = field(default_factory=list)

    def check(self, lines: Sequence[Line]) -> None:
        if "unreadable" in lines[0].text:
            raise InputError(f"{lines[0].where}: unknown symbol")

    def skipped(self, line: Line) -> list[str]:
        return sorted({character for character in line.text if not character.isascii()})

    def stream(self, line: Line) -> Iterator[Speech]:
        for word in line.text.split():
            self.may.acquire()
            self.spoken.append(f"{self.speaker} {word}")
            if word == "broken":
                raise InputError("/secret/vocoder.onnx: the vocoder fails")
            yield speech(word, fault="1 of 3 symbols not read" if word == "unread" else "")


def speech(word: str, **values: Any) -> Speech:
    wave = np.linspace(0.0, len(word) / 100, SAMPLES, dtype=np.float32)
    known = {"text": word, "log_mel": np.zeros((1, 80)), "wave": wave, "attention": None, "stopped": True}
    return Speech(**{**known, "spoken": word, "read": 1.0, **values})  # type: ignore[arg-type]


def served(
    voice: Voice, work: Callable[[Any, Script, Service], Awaitable[None]], limits: Limits | None = None
) -> None:
    """Do ``work`` with an application that speaks as :class:`Script` does."""
    reader = Script(voice=voice, vocoder=Vocoder("griffin-lim", voice.contract))
    service = Service(reader, limits or Limits())

    async def run() -> None:
        await asyncio.wait_for(work(make_app(service, "anna-ben", ["localhost"]), reader, service), 60)

    try:
        asyncio.run(run())
    finally:
        service.close()


def asking(text: str, **values: Any) -> bytes:
    return json.dumps({"model": "tts-1", "input": text, "response_format": "pcm", **values}).encode()


def ask(app: Any, text: str, **values: Any) -> Awaitable[Exchange]:
    return call(app, SPEECH, asking(text, **values), content_type="application/json")


def samples(content: bytes) -> np.ndarray:
    return np.frombuffer(content, "<i2").astype(int)


def test_samples_come_a_sentence_at_a_time_with_pauses_between(voice: Voice) -> None:
    async def work(app: Any, reader: Script, _: Service) -> None:
        answer = await ask(app, "one three", voice="ben")
        assert (answer.status, answer.ended) == (200, True)
        assert answer.headers["content-type"] == f"audio/pcm; rate={RATE}; channels=1"
        assert reader.spoken == ["ben one", "ben three"]
        heard, pause = samples(answer.content), len(reader.silence)
        assert len(heard) == 2 * SAMPLES + pause
        assert heard[SAMPLES - 1] == pytest.approx(0.03 * 32768, abs=1)
        assert heard[-1] == pytest.approx(0.05 * 32768, abs=1)
        assert not heard[SAMPLES : SAMPLES + pause].any()

    served(voice, work)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", None])
def test_every_format_is_what_it_says(kind: str | None, voice: Voice) -> None:
    import soundfile

    async def work(app: Any, reader: Script, _: Service) -> None:
        body = {"model": "tts-1", "input": "one two", "voice": "default"}
        given = json.dumps(body | ({"response_format": kind} if kind else {})).encode()
        answer = await call(app, SPEECH, given, content_type="application/json; charset=utf-8")
        types = {"wav": f"audio/wav; rate={RATE}; channels=1", "flac": "audio/flac"}
        assert answer.headers["content-type"] == types.get(kind or "", "audio/mpeg")
        heard, rate = soundfile.read(io.BytesIO(answer.content))
        assert rate == RATE
        # MP3 has frames, and a little before the first.
        assert len(heard) - (2 * SAMPLES + len(reader.silence)) in (
            [0] if kind in ("wav", "flac") else range(3 * 1152)
        )
        assert reader.spoken == ["None one", "None two"]

    served(voice, work)


@pytest.mark.parametrize(
    ("body", "status", "param", "message"),
    [
        (b"{", 400, None, "the body is not JSON"),
        (b"\xff\xfe", 400, None, "the body is not JSON"),
        (b"[" * 40_000, 400, None, "the body is not JSON"),
        (b"[]", 400, None, "must be a JSON object"),
        (asking(""), 400, "input", "input is empty"),
        (b'{"input": 3}', 400, "input", "input must be a string"),
        (b'{"input": "\\ud800"}', 400, "input", "half of a surrogate pair"),
        (asking("x" * 4097), 400, "input", "4097 characters, at most 4096"),
        (asking("one", voice="../../etc/passwd"), 400, "voice", "there is 'anna', 'ben'"),
        (asking("one", voice="\n\ud800"), 400, "voice", "no voice"),
        (asking("one", response_format="aac"), 400, "response_format", "use wav, pcm, mp3, flac"),
        (asking("one", speed=2), 400, "speed", "this voice's model cannot change its speed"),
        (asking("one", speed=2.5), 400, "speed", "a number from 0.5 to 2"),
        (asking("one", speed=float("nan")), 400, "speed", "a number from 0.5 to 2"),
        (asking("one", speed=-(10**400)), 400, "speed", "a number from 0.5 to 2"),
        (asking("one", speed=True), 400, "speed", "a number from 0.5 to 2"),
        (asking("one", speed="2"), 400, "speed", "a number from 0.5 to 2"),
        (asking("one", stream_format="sse"), 400, "stream_format", "audio"),
        (asking("one", instructions="shout"), 400, "instructions", "no instructions"),
        (asking("one", path="/etc/passwd"), 400, "path", "unknown key 'path'"),
        (asking("unreadable"), 400, "input", "unknown symbol"),
        (asking("unread"), 422, "input", "not read whole in two tries: 1 of 3 symbols not read"),
        (asking("broken"), 500, None, "the voice failed"),
        (b"x" * 10_000_000, 413, None, "more than any text needs"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    body: bytes, status: int, param: str | None, message: str, voice: Voice
) -> None:
    async def work(app: Any, _: Script, service: Service) -> None:
        answer = await call(app, SPEECH, body, content_type="application/json")
        assert (answer.status, answer.ended) == (status, True)
        assert message in answer.error["message"]
        assert "\n" not in answer.error["message"]
        assert "secret" not in answer.error["message"]
        assert answer.error["param"] == param
        assert answer.error["type"] == ("server_error" if status == 500 else "invalid_request_error")
        # Its place is free again.
        assert (await ask(app, "one")).status == 200

    served(voice, work, Limits(requests=1))


def test_a_refused_request_is_read_and_not_kept(voice: Voice) -> None:
    async def work(app: Any, _: Script, service: Service) -> None:
        large = Exchange(app, SPEECH, b"", content_type="application/json")
        # Of one piece, so that only what the service keeps takes memory.
        large.coming = [bytes(65536)] * 200
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            await large.run()
            kept = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
        assert (large.status, large.coming) == (413, [])
        assert kept < 8 * service.limits.body_bytes

    served(voice, work)


@pytest.mark.parametrize("speed", [0.5, 1, 2.0])
def test_a_voice_that_can_speaks_at_the_speed_that_is_asked_for(speed: float) -> None:
    voice = parallel_voice()
    reader = Reader(voice=voice, vocoder=Vocoder("griffin-lim", voice.contract))
    service = Service(reader, Limits())

    async def run() -> int:
        answer = await ask(make_app(service, "parallel", ["localhost"]), "abcdefg", speed=speed)
        assert (answer.status, answer.ended) == (200, True)
        return len(samples(answer.content))

    try:
        (spoken,) = reader.speak([Line("a", "abcdefg", "a")])
        step = voice.model.reduction_factor * voice.contract.hop_length
        # Durations are rounded to steps.
        assert asyncio.run(run()) == pytest.approx(len(spoken.wave) / speed, abs=step)
    finally:
        service.close()


def test_what_is_left_out_of_a_text_is_named(voice: Voice) -> None:
    async def work(app: Any, _: Script, service: Service) -> None:
        assert (await ask(app, "one é 漢 é")).headers["x-left-out"] == "U+00E9, U+6F22"
        assert "x-left-out" not in (await ask(app, "one")).headers

    served(voice, work)


def test_another_site_gets_nothing(voice: Voice) -> None:
    async def work(app: Any, reader: Script, _: Service) -> None:
        assert (await call(app, SPEECH, asking("one"), content_type="text/plain")).status == 415
        assert (await call(app, SPEECH, asking("one"))).status == 415
        elsewhere = await call(
            app, SPEECH, asking("one"), content_type="application/json", host="evil.example"
        )
        assert elsewhere.status == 400
        assert (await call(app, SPEECH)).status == 405
        assert reader.spoken == []

    served(voice, work)


def test_one_more_than_there_are_places_is_told_to_come_back(voice: Voice) -> None:
    async def work(app: Any, reader: Script, service: Service) -> None:
        waiting = [Exchange(app, SPEECH, asking("one two"), content_type="application/json") for _ in "ab"]
        reader.may._value = 0
        tasks = [asyncio.create_task(one.run()) for one in waiting]
        await until(lambda: service._requests == 2)
        refused = await ask(app, "three")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        reader.may.release(100)
        await asyncio.gather(*tasks)
        assert [one.status for one in waiting] == [200, 200]
        # In turn: neither waits for the other's end.
        assert reader.spoken == ["None one", "None one", "None two", "None two"]

    served(voice, work, Limits(requests=2))


def test_a_client_that_goes_costs_no_further_sentence(voice: Voice) -> None:
    async def work(app: Any, reader: Script, service: Service) -> None:
        reader.may._value = 0
        leaving = Exchange(app, SPEECH, asking("one two three"), content_type="application/json")
        task = asyncio.create_task(leaving.run())
        reader.may.release()
        await until(lambda: bool(leaving.pieces))
        leaving.gone.set()
        await task
        assert not leaving.ended
        reader.may.release(100)
        # Two was begun; three never is.
        assert (await ask(app, "four")).status == 200
        assert reader.spoken in (["None one", "None four"], ["None one", "None two", "None four"])

    served(voice, work, Limits(requests=1))


def test_a_client_that_does_not_read_is_left(voice: Voice) -> None:
    async def work(app: Any, reader: Script, service: Service) -> None:
        slow = Exchange(app, SPEECH, asking("one two three"), content_type="application/json")
        slow.taking.clear()
        await slow.run()
        assert (slow.status, slow.ended, reader.spoken) == (0, False, ["None one"])
        assert (await ask(app, "four")).status == 200

    served(voice, work, Limits(requests=1, seconds=0.05))


def test_a_request_that_does_not_come_is_refused(voice: Voice) -> None:
    async def work(app: Any, _: Script, service: Service) -> None:
        slow = Exchange(app, SPEECH, b"", content_type="application/json")
        slow.coming = []
        await slow.run()
        assert slow.status == 408

    served(voice, work, Limits(seconds=0.05))


def test_a_stream_that_cannot_be_whole_is_left_without_its_end(voice: Voice) -> None:
    async def work(app: Any, _: Script, service: Service) -> None:
        cut = await ask(app, "one unread two")
        assert (cut.status, cut.ended) == (200, False)
        assert len(samples(cut.content)) == SAMPLES

    served(voice, work)


def test_no_file_is_opened_for_a_client(voice: Voice) -> None:
    opened: list[Any] = []
    listening = [False]

    def hook(event: str, arguments: Any) -> None:
        if listening[0] and event == "open":
            opened.append(arguments[0])

    sys.addaudithook(hook)

    async def work(app: Any, _: Script, service: Service) -> None:
        async def everything() -> None:
            for path in (
                "/etc/passwd",
                "//etc/passwd",
                "/../etc/passwd",
                "/%2e%2e/etc/passwd",
                "/voice.json",
            ):
                assert (await call(app, path)).status == 404
            for name in ("/etc/passwd", "../voice.json", "file:///etc/passwd"):
                assert (await ask(app, "one", voice=name)).status == 400
                assert (await ask(app, name, model=name)).status == 200

        # Whatever is imported late is imported by now.
        await everything()
        listening[0] = True
        await everything()

    try:
        served(voice, work)
    finally:
        listening[0] = False
    assert opened == []


def test_the_page_and_the_list_of_models(voice: Voice) -> None:
    async def work(app: Any, _: Script, service: Service) -> None:
        page = await call(app, "/")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert b'<option value="ben">ben</option>' in page.content
        assert b'maxlength="4096"' in page.content
        assert json.loads((await call(app, "/v1/models")).content)["data"][0]["id"] == "anna-ben"
        assert json.loads((await call(app, "/health")).content) == {"status": "ok"}

    served(voice, work)
