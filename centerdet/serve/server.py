"""The HTTP server under the application: its socket, its time-outs, its graceful stop."""

import asyncio
import socket
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from ..errors import ConfigError
from ..text import explain
from .limits import Limits

__all__ = ["listen", "make_server"]

STOP_SECONDS = 60
"""After this a stopping server gives up the requests that it still has."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections; port 0: any that is free. A `ConfigError` where that cannot be."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        hint = "; --port 0 takes any that is free" if port else ""
        raise ConfigError(f"cannot listen on {host} port {port}: {explain(error)}{hint}") from error


def make_server(app: Starlette, limits: Limits) -> uvicorn.Server:
    """A server to `run(sockets=[...])`; SIGINT, SIGTERM or `should_exit` stop it after the accepted requests."""

    class Protocol(_TimedProtocol):
        idle_seconds = limits.idle_seconds

    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=int(limits.idle_seconds) + 1,  # the protocol's own comes first
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    return uvicorn.Server(config)


class _TimedProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection on which no request has been under way for `idle_seconds`.

    So a client that sends the head of its request byte by byte, or never, cannot hold a connection; nor can one that
    keeps sending a body after the answer. uvicorn's own time-out ends with the first byte.
    """

    idle_seconds: float
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # An answer's head and body are two packets; without this the second waits 40 ms for the first's receipt.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._timer:
            self._timer.cancel()

    def _watch(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's annotation hides the None before a first request
        if cycle is not None and not cycle.response_complete:
            if self._timer:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = self.loop.call_later(self.idle_seconds, self.transport.abort)
