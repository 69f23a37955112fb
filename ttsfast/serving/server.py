"""The application on a socket, until it is told to stop."""

from __future__ import annotations

import ipaddress
import signal
import socket

import uvicorn

from ttsfast.errors import InputError
from ttsfast.serving.app import make_app
from ttsfast.serving.service import Service

_CONNECTIONS = 256
_SECONDS_TO_END = 10
_SEND_BUFFER = 256 * 1024
"""bytes that the system holds for a client that does not read them"""


def bind(host: str, port: int, seconds: float) -> socket.socket:
    """A socket at that address; port 0 takes any.

    Connections whose other end takes nothing for twice ``seconds`` are ended by the system: those that the
    service gave up would else hold what was still to be sent.

    Raises:
        InputError: there is no such address, or it is taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(2000 * seconds))
            bound.bind((host, port))
        except BaseException:
            bound.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{host}:{port}: cannot be served at ({reason}); choose another --host or --port"
        ) from error
    return bound


def serve(service: Service, name: str, bound: socket.socket) -> None:
    """Answer requests at the socket until SIGTERM or Ctrl-C; what is being spoken then is ended first."""
    host = bound.getsockname()[0]
    loopback = ipaddress.ip_address(host).is_loopback
    # By any name where others may come: which names lead here is not known.
    hosts = ["127.0.0.1", "localhost", host] if loopback else ["*"]
    config = uvicorn.Config(
        make_app(service, name, hosts),
        log_level="error",
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_SECONDS_TO_END,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises again, at the end, the signal that ended it.
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[bound])
