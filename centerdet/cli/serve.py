"""`centerdet serve`: a detector behind HTTP, with a page to try it."""

import ipaddress
import signal
import socket
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
        import uvicorn

        from ..serve.app import create_app
        from ..serve.limits import IDLE_SECONDS, Limits, TimedProtocol
        from ..serve.protocols import LabelStudio
    except ImportError as error:
        if (error.name or "").startswith("centerdet"):
            raise
        raise ConfigError(f"serve needs {error.name}: pip install 'centerdet[serve]'") from None
    from ..detector import Detector

    if token and no_token:
        raise typer.BadParameter("--token and --no-token: expected one of them")
    local = _is_loopback(host)
    if not (local or token or no_token):
        raise typer.BadParameter(
            f"--host: {host} can be reached from other machines: add --token (or the variable CENTERDET_TOKEN), or "
            "--no-token to answer everyone"
        )
    if label_studio and not label_studio.startswith(("http://", "https://")):
        raise typer.BadParameter(f"--label-studio: expected an http(s) address, got {label_studio}")
    with _listen(host, port) as listener:
        detector = Detector.load(weights, device=device or None, threads=threads)
        limits = Limits(upload_bytes=max_megabytes * 1_000_000, pixels=max_pixels, queue=queue)
        app = create_app(
            detector,
            model=Path(weights).name,
            token=token or None,
            local=local and not (token or no_token),
            limits=limits,
            label_studio=LabelStudio(label_studio, label_studio_key) if label_studio else None,
            max_batch=16 if "cuda" in str(detector.device) else 1,
        )
        config = uvicorn.Config(
            app,
            http=TimedProtocol,
            ws="none",
            lifespan="on",
            log_level="error",
            access_log=False,
            server_header=False,
            limit_concurrency=limits.connections,
            timeout_keep_alive=int(IDLE_SECONDS),
            timeout_graceful_shutdown=60,
        )
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        console.print(f"Serving {weights} at {address} (Ctrl-C stops)", soft_wrap=True)
        # uvicorn stops gracefully at a signal and then raises it anew: SIGTERM has done its work by then.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        hint = "; --port 0 takes any that is free" if port else ""
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}{hint}") from error
