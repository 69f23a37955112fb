"""An ASGI application called as a server calls it, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

App = Callable[[Any, Any, Any], Awaitable[None]]


class Exchange:
    """One request, and what came back of it."""

    def __init__(self, app: App, path: str, body: bytes | None = None, **headers: str) -> None:
        self._app = app
        # In pieces, as it comes from a network.
        self.coming = [(body or b"")[at : at + 65536] for at in range(0, len(body or b"a"), 65536)]
        """Pieces of the request that are still to come; none: nothing does."""
        self.gone = asyncio.Event()
        """Set by the client when it goes."""
        self.taking = asyncio.Event()
        """Cleared by a client that does not read."""
        self.taking.set()
        self.status, self.headers, self.pieces, self.ended = 0, dict[str, str](), list[bytes](), False
        given = {"host": "localhost", **{key.replace("_", "-"): value for key, value in headers.items()}}
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET" if body is None else "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(key.encode(), value.encode()) for key, value in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }

    async def run(self) -> Exchange:
        """Until the application has returned."""
        await self._app(self._scope, self._receive, self._send)
        return self

    @property
    def content(self) -> bytes:
        """The body that came back."""
        return b"".join(self.pieces)

    @property
    def error(self) -> dict[str, Any]:
        """The body as OpenAI's clients read an error."""
        return json.loads(self.content)["error"]

    async def _receive(self) -> dict[str, Any]:
        if self.coming:
            piece = self.coming.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self.coming)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await self.taking.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {key.decode(): value.decode() for key, value in message["headers"]}
        else:
            self.pieces.append(message.get("body", b""))
            self.ended = not message.get("more_body", False)


async def call(app: App, path: str, body: bytes | None = None, **headers: str) -> Exchange:
    """One whole exchange."""
    return await Exchange(app, path, body, **headers).run()


async def until(condition: Callable[[], bool]) -> None:
    """Let others go on until something is so."""
    while not condition():
        await asyncio.sleep(0)
