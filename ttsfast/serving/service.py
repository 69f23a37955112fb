"""A voice that many ask at once: one thread speaks, a sentence of each request in turn."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import numpy as np

from ttsfast.data.corpus.audio import pcm16
from ttsfast.errors import InputError
from ttsfast.progress import console
from ttsfast.serving.request import Limits, Refused, SpeechRequest
from ttsfast.synthesis.lines import Line
from ttsfast.synthesis.reader import Reader
from ttsfast.synthesis.speech import stream_header

T = TypeVar("T")


class Service:
    """Speaks requests with one ``reader``, within ``limits``.

    All of the voice's work is done by one thread, first come, first served; but a request asks for its next
    sentence only when its client has taken the one before. So a long text holds nobody up, a slow reader has
    one sentence in memory, and one that has gone costs nothing more.
    """

    def __init__(self, reader: Reader, limits: Limits) -> None:
        self.limits = limits
        self._reader = reader
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="speaking")
        self._requests = 0

    @property
    def speakers(self) -> tuple[str, ...]:
        """The voice's, by name."""
        return self._reader.voice.speakers

    @property
    def language(self) -> str:
        """of the texts"""
        return self._reader.voice.frontend.language

    @property
    def sample_rate(self) -> int:
        """in Hz, of all that is spoken"""
        return self._reader.sample_rate

    def close(self) -> None:
        """Let what is being spoken end, and nothing after it begin."""
        self._thread.shutdown(cancel_futures=True)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places that there are; raises Refused when all are taken."""
        if self._requests >= self.limits.requests:
            raise Refused(
                503, f"{self._requests} requests are being spoken or waiting; come back in a second"
            )
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    async def check(self, asked: SpeechRequest) -> list[str]:
        """The symbols that are left out as unknown; raises Refused for what the voice cannot read or do."""
        reader, line = self._reading(asked), _line(asked)
        try:
            reader.voice.check_delivery(asked.delivery)
        except InputError as error:
            raise Refused(400, str(error), "speed") from error

        def work() -> list[str]:
            reader.check([line])
            return reader.skipped(line)

        try:
            return await self._in_thread(work)
        except InputError as error:
            raise Refused(400, str(error), "input") from error

    async def speak(self, asked: SpeechRequest) -> AsyncIterator[bytes]:
        """16-bit little-endian mono samples, a sentence at a time, with pauses between.

        Raises Refused at a sentence that was not read whole, or that could not be spoken.
        """
        reader = self._reading(asked)
        sentences = reader.stream(_line(asked))
        before = np.zeros(0, dtype=np.float32)
        while True:
            try:
                spoken = await self._in_thread(lambda: next(sentences, None))
            except InputError as error:
                console.print(f"not spoken: {error}", markup=False)
                raise Refused(500, "the voice failed at this text; its operator sees why") from error
            if spoken is None:
                return
            if spoken.fault:
                raise Refused(
                    422, f"not read whole in two tries: {spoken.fault} ({spoken.text!r:.80})", "input"
                )
            yield pcm16(np.concatenate([before, spoken.wave])).astype("<i2").tobytes()
            before = reader.silence

    async def encode(self, samples: bytes, kind: str) -> bytes:
        """Samples as :meth:`speak` gives them, in a file of one of :data:`ttsfast.serving.request.WHOLE`."""
        return await asyncio.to_thread(_encoded, samples, kind, self.sample_rate)

    def header(self, kind: str) -> bytes:
        """What comes before a stream's samples."""
        return stream_header(self.sample_rate) if kind == "wav" else b""

    def _reading(self, asked: SpeechRequest) -> Reader:
        return replace(self._reader, speaker=asked.speaker, delivery=asked.delivery)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _line(asked: SpeechRequest) -> Line:
    return Line("speech", asked.text, "input")


def _encoded(samples: bytes, kind: str, sample_rate: int) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    subtype = {"mp3": "MPEG_LAYER_III", "flac": "PCM_16"}[kind]
    soundfile.write(buffer, np.frombuffer(samples, "<i2"), sample_rate, format=kind.upper(), subtype=subtype)
    return buffer.getvalue()
