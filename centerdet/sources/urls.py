"""An image from the web, within a number of seconds and of bytes, whatever the server does.

A time-out per read begins anew with each piece that arrives, so a server that sends a byte now and then would never be
given up. Here one deadline ends everything: look-up, connection, TLS, redirects, headers and content.
"""

import asyncio

from ..errors import ImageError

__all__ = ["MAX_BYTES", "SECONDS", "download"]

SECONDS = 10.0
"""That a URL may take in all, its redirects included."""
MAX_BYTES = 50_000_000
"""Of the largest image that is fetched."""
MAX_REDIRECTS = 5


def download(url: str, *, seconds: float = SECONDS, max_bytes: int = MAX_BYTES) -> tuple[bytes, str | None]:
    """The content of an http(s) URL and its Content-Type; redirects lead to such URLs only.

    Anything that goes wrong is an `ImageError`. Needs httpx.
    """
    import httpx

    try:
        return asyncio.run(asyncio.wait_for(_fetch(url, max_bytes), seconds))
    except asyncio.TimeoutError:
        raise ImageError(f"{url}: cannot be fetched: the download did not finish within {seconds:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{url}: cannot be fetched: {reason}") from error


async def _fetch(url: str, max_bytes: int) -> tuple[bytes, str | None]:
    import httpx

    headers = {"User-Agent": "centerdet", "Accept-Encoding": "identity"}
    async with httpx.AsyncClient(headers=headers, timeout=None) as client:
        request = client.build_request("GET", url)
        for _ in range(MAX_REDIRECTS + 1):
            response = await client.send(request, stream=True)
            try:
                if response.next_request is not None:  # a redirect, whose content is not read, whatever its size
                    request = response.next_request
                    continue
                if response.status_code != 200:
                    raise ValueError(f"HTTP status {response.status_code}")
                size = int(response.headers.get("Content-Length", 0))
                content = bytearray()
                if size <= max_bytes:
                    async for chunk in response.aiter_raw():
                        content += chunk
                        if (size := len(content)) > max_bytes:
                            break
                if size > max_bytes:
                    raise ValueError(f"expected at most {max_bytes} bytes, got {size} or more")
                return bytes(content), response.headers.get("Content-Type")
            finally:
                await response.aclose()
        raise ValueError(f"more than {MAX_REDIRECTS} redirects")
