"""What one client may cost: bytes, pixels, tiles, seconds, connections. Beyond a limit the answer is an error.

`Guard` limits what an application reads; `TimedProtocol` closes connections on which no request arrives.
"""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from .prometheus import Metrics

__all__ = ["Guard", "Limits", "TimedProtocol"]

IDLE_SECONDS = 15.0
"""How long a connection may stay without a complete request head, or go on sending a body that was refused."""

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

HEADERS = {
    # Nothing inline, nothing from another host; the images are blobs of the page's own.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a server.

    Attributes:
        upload_bytes: of one request's body.
        total_bytes: of all bodies in memory together.
        pixels: of one image, by its header.
        tiles: of one image.
        queue: images that may wait for the detector.
        body_seconds: for a whole body to arrive.
        connections: open at a time.
    """

    upload_bytes: int = 20_000_000
    total_bytes: int = 256_000_000
    pixels: int = 50_000_000
    tiles: int = 64
    queue: int = 64
    body_seconds: float = 30.0
    connections: int = 512


class Guard:
    """Middleware that bounds what a request reads, adds the security headers, and counts requests.

    local: answer only requests whose Host is this machine, since a web page can point its own name at 127.0.0.1.
    """

    def __init__(self, app: ASGIApp, *, limits: Limits, metrics: Metrics, paths: Collection[str], local: bool) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self.paths, self.local = frozenset(paths), local
        self.held = 0  # bytes of all requests under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, size, more, status = time.monotonic(), 0, True, 500
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refuse(headers)

        async def receive_within() -> Message:
            nonlocal size, more
            if not more:
                return await receive()
            if refused:
                raise refused
            try:
                left = start + self.limits.body_seconds - time.monotonic()
                message = await asyncio.wait_for(receive(), max(0.0, left))
            except asyncio.TimeoutError:
                seconds = f"{self.limits.body_seconds:g} seconds"
                raise HTTPException(
                    408, f"expected the whole body within {seconds}, got {size} bytes", {"connection": "close"}
                ) from None
            more = message.get("more_body", False)
            size += len(message.get("body", b""))
            self.held += len(message.get("body", b""))
            if size > self.limits.upload_bytes:
                raise self._too_large(f"over {size}")
            if self.held > self.limits.total_bytes:
                raise HTTPException(503, "too many uploads at once: try again later", {"retry-after": "1"})
            return message

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                pairs = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *pairs]}
            await send(message)

        try:
            await self.app(scope, receive_within, send_safely)
        finally:
            self.held -= size
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.requests[path, status] += 1
            if status == 200 and scope["method"] == "POST":
                self.metrics.observe("request", time.monotonic() - start)

    def _refuse(self, headers: dict[bytes, str]) -> HTTPException | None:
        """The error that a request's head already earns."""
        host = headers.get(b"host", "")
        if self.local and (host if host.endswith("]") else host.rpartition(":")[0] or host) not in LOOPBACK:
            return HTTPException(403, f"expected a request to {' or '.join(LOOPBACK)}, got one to {host!r}")
        length = headers.get(b"content-length", "")
        if length.isdecimal() and int(length) > self.limits.upload_bytes:
            return self._too_large(length)
        return None

    def _too_large(self, got: str) -> HTTPException:
        return HTTPException(413, f"expected a body of at most {self.limits.upload_bytes} bytes, got {got}")


class TimedProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection without a request under way after IDLE_SECONDS.

    So a client that sends its request's head byte by byte, or never, cannot hold a connection; nor can one that goes
    on with a body after the answer. A body's own time is `Limits.body_seconds`.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
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
            self._timer = self.loop.call_later(IDLE_SECONDS, self.transport.close)
