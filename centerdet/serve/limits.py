"""What one client may cost: bytes, pixels, tiles, seconds, connections. Beyond a limit the answer is an error.

What a request's body may cost stands here; how long a connection may wait for a request in `server`.
"""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .prometheus import Metrics

__all__ = ["LOOPBACK", "Guard", "Limits"]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""This machine's names for itself, as the header Host has them."""

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
        idle_seconds: for a complete head of a request to arrive, or the rest of a refused body.
    """

    upload_bytes: int = 20_000_000
    total_bytes: int = 256_000_000
    pixels: int = 50_000_000
    tiles: int = 64
    queue: int = 64
    body_seconds: float = 30.0
    connections: int = 512
    idle_seconds: float = 15.0


class Guard:
    """Middleware that bounds what a request reads, adds the security headers, and counts requests.

    local: answer only requests whose Host is this machine, since a web page can point its own name at 127.0.0.1.
    """

    def __init__(self, app: ASGIApp, *, limits: Limits, metrics: Metrics, paths: Collection[str], local: bool) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self.paths, self.local = frozenset(paths), local
        self.buffered = 0  # bytes of all requests under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, size, more, status = time.monotonic(), 0, True, 500
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self.local and (host if host.endswith("]") else host.rpartition(":")[0] or host) not in LOOPBACK:
            error = f"expected a request to {' or '.join(LOOPBACK)}, got one to {host!r}"
            await JSONResponse({"error": error}, 403)(scope, receive, send)
            return
        length = headers.get(b"content-length", "")
        too_long = length.isdecimal() and int(length) > self.limits.upload_bytes

        async def receive_within() -> Message:
            nonlocal size, more
            if not more:
                return await receive()
            if too_long:
                raise self._too_large(length)
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
            self.buffered += len(message.get("body", b""))
            if size > self.limits.upload_bytes:
                raise self._too_large(f"over {size}")
            if self.buffered > self.limits.total_bytes:
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
            self.buffered -= size
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.requests[path, status] += 1
            if status == 200 and scope["method"] == "POST":
                self.metrics.observe("request", time.monotonic() - start)

    def _too_large(self, got: str) -> HTTPException:
        return HTTPException(413, f"expected a body of at most {self.limits.upload_bytes} bytes, got {got}")
