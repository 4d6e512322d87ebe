"""`centerdet serve`: a detector as an HTTP server, with a web page to try it."""

import re
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import requires
from .options import Device
from .show import console

__all__ = ["serve"]


def serve(
    weights: Annotated[str, typer.Argument(help="a shipped name (voc, voc-all) or a weights file")],
    host: Annotated[
        str, typer.Option(help="address to listen on; 0.0.0.0: all addresses of this machine")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on; 0: any free port")] = 8000,
    token: Annotated[
        str, typer.Option(envvar="CENTERDET_TOKEN", help="token that requests must send: 'Authorization: Bearer TOKEN'")
    ] = "",
    no_token: Annotated[
        bool, typer.Option("--no-token", help="accept requests without a token, under any host name")
    ] = False,
    max_megabytes: Annotated[int, typer.Option(min=1, help="maximum size of an upload")] = 20,
    max_pixels: Annotated[int, typer.Option(min=1, help="maximum number of pixels of an image")] = 50_000_000,
    queue: Annotated[int, typer.Option(min=1, help="maximum number of queued images; more get status 503")] = 64,
    label_studio: Annotated[
        str, typer.Option(metavar="URL", help="Label Studio server; images are fetched only from this address")
    ] = "",
    label_studio_key: Annotated[
        str, typer.Option(metavar="KEY", envvar="LABEL_STUDIO_API_KEY", help="access token of the Label Studio server")
    ] = "",
    device: Device = "",
    threads: Annotated[
        int | None, typer.Option(min=1, help="maximum number of CPU threads; default: the runtime decides")
    ] = None,
) -> None:
    """Run a detector as an HTTP server, with a web page to try it.

    POST /detect takes an image and returns JSON. The documentation describes the other paths and the protocols of other
    programs. Ctrl-C and SIGTERM stop the server after it has answered the accepted requests.
    """
    with requires("centerdet[serve]", "serve"):
        from ..serve.app import create_app
        from ..serve.limits import LOOPBACK, Limits
        from ..serve.protocols import LabelStudio
        from ..serve.server import listen, make_server
    from ..detector import Detector

    if token and no_token:
        raise typer.BadParameter("--token and --no-token: expected one of them")
    if not re.fullmatch(r"[!-~]*", token):
        raise typer.BadParameter("--token: expected printable ASCII without spaces")
    local = host in LOOPBACK or f"[{host}]" in LOOPBACK
    if not (local or token or no_token):
        raise typer.BadParameter(
            f"--host: {host} can be reached from other machines: pass --token (or set CENTERDET_TOKEN), or pass "
            "--no-token to accept everyone"
        )
    if label_studio and not label_studio.startswith(("http://", "https://")):
        raise typer.BadParameter(f"--label-studio: expected an http(s) address, got {label_studio}")
    with listen(host, port) as listener:
        detector = Detector.load(weights, device=device or None, threads=threads)
        limits = Limits(upload_bytes=max_megabytes * 1_000_000, pixels=max_pixels, queue=queue)
        app = create_app(
            detector,
            model=Path(weights).name,
            token=token or None,
            local=local and not (token or no_token),
            limits=limits,
            label_studio=LabelStudio(label_studio, label_studio_key) if label_studio else None,
        )
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        console.out(f"Serving {weights} at {address} (Ctrl-C stops)")
        # uvicorn stops gracefully on a signal and then raises it again: SIGTERM is handled by then.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            make_server(app, limits).run(sockets=[listener])
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
