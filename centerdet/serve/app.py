"""The application: routes, errors, and the page."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from .. import __version__
from ..detector import Detector
from ..errors import CenterdetError
from .batching import Batcher
from .limits import Guard, Limits
from .prometheus import Metrics
from .protocols import LabelStudio, deepstack_routes, label_studio_routes
from .service import Service, read_options, read_upload

__all__ = ["create_app"]

PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}


def create_app(
    detector: Detector,
    *,
    model: str = "centerdet",
    token: str | None = None,
    local: bool = False,
    limits: Limits | None = None,
    label_studio: LabelStudio | None = None,
) -> Starlette:
    """An ASGI application that serves a detector.

    Args:
        detector: the detector; one thread uses it.
        model: its name in responses.
        token: the token that requests must contain; None: none. The page and `/health` need none.
        local: accept only requests to this machine's own host names.
        limits: limits per client and in total.
        label_studio: the Label Studio server that task images are fetched from.
    """
    limits, metrics = limits or Limits(), Metrics()
    batcher = Batcher(detector, limits, metrics)
    service = Service(batcher, tuple(detector.names), model, token)

    async def detect(request: Request) -> Response:
        service.authorize(request)
        options = read_options(request, service.names)
        detections = await service.predict(request, await read_upload(request), options.score, options.tile)
        if options.classes is not None:
            detections = detections.filter(names=options.classes)
        fields = detections.to_dict()
        del fields["source"]  # a path; an upload has none
        return JSONResponse({"model": model, **fields})

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "UP", "model_class": model, "version": __version__})

    async def show_metrics(request: Request) -> Response:
        service.authorize(request)
        gauges = {"queue_length": batcher.length, "queue_capacity": limits.queue}
        return PlainTextResponse(metrics.text(gauges), media_type="text/plain; version=0.0.4")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        with batcher.thread():
            yield

    routes = [
        *_page_routes(),
        Route("/detect", detect, methods=["POST"]),
        Route("/health", health),
        Route("/metrics", show_metrics),
        *deepstack_routes(service),
        *label_studio_routes(service, label_studio, limits.upload_bytes),
    ]
    guard = Middleware(Guard, limits=limits, metrics=metrics, paths=[route.path for route in routes], local=local)
    handlers: dict[Any, Any] = {
        HTTPException: _show_error,
        CenterdetError: _show_error,
        ClientDisconnect: _show_nothing,
        Exception: _show_failure,
    }
    return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=lifespan)


def _page_routes() -> list[Route]:
    routes = []
    for path, (name, kind) in PAGE.items():
        content = files(__package__).joinpath("page", name).read_bytes()

        async def show(_: Request, content: bytes = content, kind: str = kind) -> Response:
            return Response(content, media_type=kind)

        routes.append(Route(path, show))
    return routes


async def _show_error(request: Request, error: Exception) -> Response:
    """A bad request's error as JSON, in the form that the client of the path expects."""
    status, headers = 400, {}
    message = str(error)
    if isinstance(error, HTTPException):
        status, message, headers = error.status_code, error.detail, dict(error.headers or {})
        if status in (404, 405):
            known = "GET /, POST /detect, GET /health or GET /metrics"
            message = f"expected {known}, got {request.method} {request.url.path}"
    fields = {"success": False, "code": status} if request.url.path.startswith("/v1/") else {}
    return JSONResponse({"error": message, **fields}, status, headers)


async def _show_nothing(_: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; the metrics count it


async def _show_failure(request: Request, error: Exception) -> Response:
    return await _show_error(request, HTTPException(500, "the server failed; its log has the reason"))
