"""A image from the web: fetched within a number of seconds and of bytes, whatever the server does.

A socket's own time-out begins anew with each piece that arrives, so a server that sends a byte now and then would never
be given up. Here every wait, for the connection, TLS, headers and content, is cut to what is left of one deadline.
"""

import io
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any
from urllib import request
from urllib.parse import quote

from ..errors import ImageError

__all__ = ["download", "is_url"]

RESERVED = "%/:?#[]@!$&'()*+,;="  # what a URL may hold as it is


def is_url(source: str) -> bool:
    """Whether this is an address of the web, not a path."""
    return source.lower().startswith(("http://", "https://"))


def download(url: str, timeout: float, max_bytes: int) -> tuple[bytes, str | None]:
    """The content behind an http(s) URL and its Content-Type; redirects lead to such URLs only.

    Only the look-up of a host's address, which is the system's, can outlast `timeout` seconds. What goes wrong is an
    OSError, HTTPException or ValueError.
    """
    end = time.monotonic() + timeout

    def left() -> float:
        if (seconds := end - time.monotonic()) > 0:
            return seconds
        raise TimeoutError(f"not all there after {timeout:g} s (timeout)")

    opener = request.OpenerDirector()  # knows no other kind of URL
    for handler in (
        request.ProxyHandler(), request.UnknownHandler(), _Handler(left), _RedirectHandler(),
        request.HTTPDefaultErrorHandler(), request.HTTPErrorProcessor(),
    ):  # fmt: skip
        opener.add_handler(handler)
    try:
        with opener.open(request.Request(quote(url, safe=RESERVED), headers={"User-Agent": "centerdet"})) as response:
            if (size := response.length or 0) <= max_bytes:
                content = response.read(max_bytes + 1)
                size = len(content)
    except OSError:
        left()  # tells where this is why
        raise
    if size > max_bytes:
        raise ImageError(f"want at most {max_bytes} bytes (max_bytes), got {size} or more")
    return content, response.headers.get("Content-Type")


class _Handler(request.AbstractHTTPHandler):
    """Opens http(s) URLs on connections of which every wait ends in the seconds left."""

    def __init__(self, left: Callable[[], float]) -> None:
        super().__init__()
        self.left = left

    def http_open(self, asked: request.Request) -> HTTPResponse:
        return self.do_open(partial(self.connect, HTTPConnection), asked)

    def https_open(self, asked: request.Request) -> HTTPResponse:
        return self.do_open(partial(self.connect, HTTPSConnection), asked)

    http_request = https_request = request.AbstractHTTPHandler.do_request_

    def connect(self, kind: type[HTTPConnection], host: str, **options: Any) -> HTTPConnection:
        connection = kind(host, **options)
        connection._create_connection = self.open_socket  # type: ignore[attr-defined]
        connection.response_class = self.answer  # type: ignore[assignment]
        return connection

    def open_socket(self, address: tuple[str, int], *_: Any) -> socket.socket:
        for found in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            with suppress(OSError):
                sock = socket.create_connection((str(found[4][0]), address[1]), self.left())
                sock.settimeout(self.left())  # for TLS to begin
                return sock
        raise OSError(f"nobody answers at {address[0]}:{address[1]}")

    def answer(self, sock: socket.socket, *arguments: Any, **options: Any) -> HTTPResponse:
        response = HTTPResponse(sock, *arguments, **options)
        response.fp = io.BufferedReader(_Reader(sock, response.fp.detach(), self.left))
        return response


class _RedirectHandler(request.HTTPRedirectHandler):
    def redirect_request(self, req: request.Request, fp: Any, *arguments: Any) -> request.Request | None:
        fp.close()  # or its content would be read, whatever its size
        return super().redirect_request(req, fp, *arguments)


class _Reader(io.RawIOBase):
    """What a socket receives, `file` being its own; no piece is waited for longer than the seconds left."""

    def __init__(self, sock: socket.socket, file: io.RawIOBase, left: Callable[[], float]) -> None:
        self.sock, self.file, self.left = sock, file, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self.sock.settimeout(self.left())
        return self.file.readinto(buffer)

    def close(self) -> None:
        self.file.close()
        super().close()
