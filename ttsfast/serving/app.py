"""The service over HTTP: OpenAI's ``POST /v1/audio/speech``, and a page to try it.

Nothing that a client sends is taken for a path, and no file is opened for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from ttsfast.progress import console
from ttsfast.serving.page import PAGE_POLICY, page
from ttsfast.serving.request import STREAMED, WHOLE, Refused, SpeechRequest
from ttsfast.serving.service import Service

PIECE = 32 * 1024
"""bytes of an answer that are sent at a time"""
_DRAINED = 32 * 1024 * 1024
"""bytes of a request that are read past its limit, so that its client hears why it is refused"""

_NAMED = 50
"""symbols in a header"""


def make_app(service: Service, name: str, hosts: list[str]) -> Starlette:
    """The application.

    Args:
        service: what speaks; closed with the application.
        name: of the voice, for people.
        hosts: that requests may be addressed to: a web page elsewhere must not reach a service of this
            machine by a name of its own that points here.
    """
    shown = page(name, service.speakers, service.language, service.limits.characters)

    async def front(_: Request) -> Response:
        return HTMLResponse(shown, headers={"Content-Security-Policy": PAGE_POLICY})

    async def models(_: Request) -> Response:
        return JSONResponse(
            {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "ttsfast"}]}
        )

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        service.close()

    return Starlette(
        routes=[
            Route("/", front),
            Route("/health", health),
            Route("/v1/models", models),
            Route("/v1/audio/speech", SpeechEndpoint(service), methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
        lifespan=lifespan,
    )


class SpeechEndpoint:
    """Reads a request, speaks it, and leaves off when its client has gone or does not read."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer(send, self._service.limits.seconds)
        try:
            asked = await self._asked(scope, receive)
            with self._service.place():
                await _unless_gone(self._speak(asked, answer), receive)
        except Refused as refused:
            if answer.begun:
                # The connection ends without the answer's end, which no client can take for a whole one.
                console.print(f"an answer was cut short: {refused.message}", markup=False)
                return
            headers = {"Retry-After": "1"} if refused.status == 503 else None
            await JSONResponse(refused.to_dict(), refused.status, headers)(scope, receive, send)
        except (asyncio.TimeoutError, _Gone):
            return

    async def _asked(self, scope: Scope, receive: Receive) -> SpeechRequest:
        limits = self._service.limits
        # Of another type a web page could send one from anywhere, without asking.
        kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(415, "send JSON, with the header Content-Type: application/json")
        try:
            body = await asyncio.wait_for(_body(receive, limits.body_bytes), limits.seconds)
        except asyncio.TimeoutError as error:
            raise Refused(408, f"the request was not there after {limits.seconds:g} s") from error
        return SpeechRequest.parse(body, self._service.speakers, limits)

    async def _speak(self, asked: SpeechRequest, answer: _Answer) -> None:
        service = self._service
        answer.left_out = await service.check(asked)
        if asked.format in WHOLE:
            samples = b"".join([piece async for piece in service.speak(asked)])
            content = await service.encode(samples, asked.format)
            await answer.start(WHOLE[asked.format])
            await answer.write(content)
        else:
            async for piece in service.speak(asked):
                # Not before: what fails until here can still be said.
                if not answer.begun:
                    await answer.start(f"{STREAMED[asked.format]}; rate={service.sample_rate}; channels=1")
                    await answer.write(service.header(asked.format))
                await answer.write(piece)
        await answer.end()


class _Answer:
    """What is sent to a client, which must take each piece in time."""

    def __init__(self, send: Send, seconds: float) -> None:
        self._out, self._seconds = send, seconds
        self.begun = False
        self.left_out: list[str] = []
        """Symbols of the text that are unknown and not spoken; a header names their code points."""

    async def start(self, media_type: str) -> None:
        self.begun = True
        headers = [(b"content-type", media_type.encode()), (b"cache-control", b"no-store")]
        if self.left_out:
            named = ", ".join(f"U+{ord(symbol):04X}" for symbol in self.left_out[:_NAMED])
            headers.append((b"x-left-out", named.encode()))
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def write(self, content: bytes) -> None:
        for start in range(0, len(content), PIECE):
            piece = content[start : start + PIECE]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, message: Message) -> None:
        await asyncio.wait_for(self._out(message), self._seconds)


class _Gone(Exception):
    """The client is not there any more."""


async def _body(receive: Receive, limit: int) -> bytes:
    """A request's body; raises Refused when it is over the limit, and _Gone."""
    body, size, more = bytearray(), 0, True
    while more and size <= _DRAINED:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size <= limit:
            body += part
    if size > limit:
        raise Refused(413, f"the request is over {limit} bytes, more than any text needs")
    return bytes(body)


async def _unless_gone(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Do ``work``, but raise _Gone and leave off when the client goes."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(_departure(receive))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise _Gone
        tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
