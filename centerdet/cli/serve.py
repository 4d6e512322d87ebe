"""`centerdet serve`: a detector behind HTTP, with a page to try it."""

import re
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from .options import Device
from .show import console

__all__ = ["serve"]


def serve(
    weights: Annotated[str, typer.Argument(help="a shipped name (voc) or a weights file")],
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0: all of this machine's")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8000,
    token: Annotated[
        str, typer.Option(envvar="CENTERDET_TOKEN", help="what requests must bring as 'Authorization: Bearer TOKEN'")
    ] = "",
    no_token: Annotated[
        bool, typer.Option("--no-token", help="answer everyone who reaches the host, also under another name")
    ] = False,
    max_megabytes: Annotated[int, typer.Option(min=1, help="of one upload")] = 20,
    max_pixels: Annotated[int, typer.Option(min=1, help="of one image")] = 50_000_000,
    queue: Annotated[int, typer.Option(min=1, help="images that may wait; beyond it the answer is 503")] = 64,
    label_studio: Annotated[
        str, typer.Option(metavar="URL", help="the Label Studio whose images may be fetched, and no other's")
    ] = "",
    label_studio_key: Annotated[
        str, typer.Option(metavar="KEY", envvar="LABEL_STUDIO_API_KEY", help="an access token of that Label Studio")
    ] = "",
    device: Device = "",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; left out: PyTorch decides")] = None,
) -> None:
    """Answer HTTP requests with detections, and show a page to try them.

    POST /detect takes an image and returns JSON. The other paths and the protocols of other programs are in the docs.
    Ctrl-C and SIGTERM stop it when the accepted requests are answered.
    """
    try:
        from ..serve.app import create_app
        from ..serve.limits import LOOPBACK, Limits
        from ..serve.protocols import LabelStudio
        from ..serve.server import listen, make_server
    except ImportError as error:
        if (error.name or "").startswith("centerdet"):
            raise
        raise ConfigError(f"serve needs {error.name}: pip install 'centerdet[serve]'") from None
    import numpy as np

    from ..detector import Detector

    if token and no_token:
        raise typer.BadParameter("--token and --no-token: expected one of them")
    if not re.fullmatch(r"[!-~]*", token):
        raise typer.BadParameter("--token: expected printable ASCII without spaces")
    local = host in LOOPBACK or f"[{host}]" in LOOPBACK
    if not (local or token or no_token):
        raise typer.BadParameter(
            f"--host: {host} can be reached from other machines: add --token (or the variable CENTERDET_TOKEN), or "
            "--no-token to answer everyone"
        )
    if label_studio and not label_studio.startswith(("http://", "https://")):
        raise typer.BadParameter(f"--label-studio: expected an http(s) address, got {label_studio}")
    with listen(host, port) as listener:
        detector = Detector.load(weights, device=device or None, threads=threads)
        detector.predict(np.zeros((32, 32, 3), np.uint8))  # the first call is slow
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
        console.print(f"Serving {weights} at {address} (Ctrl-C stops)", soft_wrap=True)
        # uvicorn stops gracefully at a signal and then raises it anew: SIGTERM has done its work by then.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            make_server(app, limits).run(sockets=[listener])
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
