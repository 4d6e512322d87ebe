"""A server on this machine for the tests of URLs."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class QuietHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(handler: type[QuietHandler]) -> Iterator[str]:
    """Its address, while it serves."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as playing:
        thread = threading.Thread(target=playing.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{playing.server_address[1]}"
        playing.shutdown()
        thread.join()
