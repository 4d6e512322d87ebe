"""What existing programs already send: DeepStack's (CodeProject.AI's) detection API and Label Studio's ML backend."""

import asyncio
import base64
import binascii
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
import numpy as np
from defusedxml import DefusedXmlException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ..detections import Detections
from ..errors import CenterdetError, ConfigError, ImageError
from .service import Service, read_form, read_score

__all__ = ["LabelStudio", "deepstack_routes", "label_studio_routes"]

MIN_CONFIDENCE = 0.45
"""DeepStack's own default."""

FETCH_SECONDS = 20.0


def deepstack_routes(service: Service) -> list[Route]:
    """`POST /v1/vision/detection`, as DeepStack and CodeProject.AI answer it, and the latter's ping."""

    async def detection(request: Request) -> JSONResponse:
        start = time.monotonic()
        content, fields = await read_form(request)
        service.authorize(request, fields.get("api_key", ""))
        if not content:
            raise ImageError("image: expected a file of a multipart form, got nothing")
        score = read_score("min_confidence", fields.get("min_confidence"), MIN_CONFIDENCE)
        detections = await service.predict(request, content, score)
        predictions = []
        for one in detections:
            corners = dict(zip(("x_min", "y_min", "x_max", "y_max"), map(round, one.box), strict=True))
            predictions.append({"label": one.name, "confidence": one.score, **corners})
        return JSONResponse(
            {
                "success": True,
                "predictions": predictions,
                "count": len(predictions),
                "code": 200,
                "inferenceMs": round(1000 * (time.monotonic() - start)),
            }
        )

    async def ping(_: Request) -> JSONResponse:
        return JSONResponse({"success": True, "code": 200})

    return [
        Route("/v1/vision/detection", detection, methods=["POST"]),
        Route("/v1/status/ping", ping),
    ]


@dataclass(frozen=True, slots=True)
class LabelStudio:
    """The Label Studio whose images may be fetched, and from nowhere else.

    Attributes:
        url: its address, such as "http://localhost:8080".
        key: an access token of one of its users, of either kind that it knows.
    """

    url: str
    key: str = ""

    def fetch(self, where: str, max_bytes: int) -> bytes:
        """The file of a task's image, which its address or its path on that server names."""
        address = urljoin(self.url, where)
        if urlsplit(address)[:2] != urlsplit(self.url)[:2]:
            raise ConfigError(f"{where}: expected an image of {self.url} (--label-studio)")
        request = urllib.request.Request(address)
        if self.key:
            # Not sent on where the server redirects to a cloud's storage.
            request.add_unredirected_header("Authorization", self._authorization())
        content = self._read(request, max_bytes + 1)
        if len(content) > max_bytes:
            raise ImageError(f"{where}: expected at most {max_bytes} bytes")
        return content

    def _authorization(self) -> str:
        if self.key.count(".") != 2:  # a legacy token, and no JSON Web Token, which is exchanged for a short-lived one
            return f"Token {self.key}"
        body = json.dumps({"refresh": self.key}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(urljoin(self.url, "/api/token/refresh"), body, headers)
        try:
            return f"Bearer {json.loads(self._read(request, 100_000))['access']}"
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.url}: expected an access token for the key, got {error!r}") from error

    def _read(self, request: urllib.request.Request, size: int) -> bytes:
        try:
            with urllib.request.urlopen(request, timeout=FETCH_SECONDS) as response:
                content: bytes = response.read(size)
        except (OSError, ValueError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # the answer that it holds
            raise ImageError(f"{request.full_url}: cannot be fetched: {error}") from error
        return content


@dataclass(frozen=True, slots=True)
class _Control:
    """Where a project's rectangles go: a RectangleLabels tag over an Image tag, and its labels by class name."""

    name: str
    image: str
    key: str
    labels: dict[str, str]


def label_studio_routes(service: Service, studio: LabelStudio | None, max_bytes: int) -> list[Route]:
    """`POST /setup` and `POST /predict`, as Label Studio calls its ML backends; `/health` is the server's own."""

    async def setup(request: Request) -> JSONResponse:
        service.authorize(request)
        fields = await _read_json(request)
        if schema := fields.get("schema"):
            _read_control(schema, service.names)
        return JSONResponse({"model_version": service.model})

    async def predict(request: Request) -> JSONResponse:
        service.authorize(request)
        fields = await _read_json(request)
        control = _read_control(fields.get("label_config"), service.names)
        tasks = fields.get("tasks")
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise ConfigError("tasks: expected a list of objects")
        results = []
        for task in tasks:
            try:
                content = await _read_task(task, control.key, studio, max_bytes)
                results.append(_to_result(await service.predict(request, content), control, service.model))
            except CenterdetError as error:  # the other tasks' results stand; as many are expected as there are tasks
                results.append({"result": [], "score": 0.0, "model_version": service.model, "error": str(error)})
        return JSONResponse({"results": results, "model_version": service.model})

    return [Route("/setup", setup, methods=["POST"]), Route("/predict", predict, methods=["POST"])]


async def _read_json(request: Request) -> dict[str, Any]:
    try:
        fields = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"body: expected JSON, got {error}") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"body: expected a JSON object, got {type(fields).__name__}")
    return fields


def _read_control(config: object, names: tuple[str, ...]) -> _Control:
    """The first RectangleLabels of a labeling configuration; a label stands for the class of its name.

    Label Studio's own way to join classes works too: <Label value="vehicle" predicted_values="car, bus">.
    """
    try:
        root: Element = defusedxml.ElementTree.fromstring(config if isinstance(config, str) else "")
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise ConfigError(f"label_config: expected XML, got {error}") from error
    images = {tag.get("name"): tag.get("value", "") for tag in root.iter("Image")}
    tag = next((tag for tag in root.iter("RectangleLabels") if tag.get("toName") in images), None)
    if tag is None:
        raise ConfigError("label_config: expected <RectangleLabels> with the name of an <Image> in toName")
    labels = {}
    classes = {name.casefold(): name for name in names}
    for label in tag.iter("Label"):
        value = label.get("value", "")
        for alias in (label.get("predicted_values") or value).split(","):
            if name := classes.get(alias.strip().casefold()):
                labels[name] = value
    if not labels:
        values = ", ".join(label.get("value", "") for label in tag.iter("Label"))
        raise ConfigError(f"label_config: expected a label of the classes {', '.join(names)}, got {values}")
    image = tag.get("toName", "")
    return _Control(tag.get("name", ""), image, images[image].removeprefix("$"), labels)


async def _read_task(task: dict[str, Any], key: str, studio: LabelStudio | None, max_bytes: int) -> bytes:
    data = task.get("data")
    where = data.get(key) if isinstance(data, dict) else None
    if not isinstance(where, str):
        raise ConfigError(f"task {task.get('id')}: expected the address of an image in data.{key}")
    if where.startswith("data:"):
        try:
            return base64.b64decode(where.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise ImageError(f"task {task.get('id')}: expected base64: {error}") from error
    if studio is None:
        raise ConfigError(f"{where}: fetched only from the server that --label-studio names")
    return await asyncio.to_thread(studio.fetch, where, max_bytes)


def _to_result(detections: Detections, control: _Control, model: str) -> dict[str, Any]:
    """A prediction of Label Studio: rectangles in percent of the image's sides."""
    height, width = detections.size
    shown = [one for one in detections if one.name in control.labels]
    rectangles = []
    for number, one in enumerate(shown):
        x1, y1, x2, y2 = one.box
        value = {
            "x": 100 * x1 / width,
            "y": 100 * y1 / height,
            "width": 100 * (x2 - x1) / width,
            "height": 100 * (y2 - y1) / height,
            "rotation": 0,
            "rectanglelabels": [control.labels[one.name]],
        }
        rectangles.append(
            {
                "id": f"object-{number}",
                "type": "rectanglelabels",
                "from_name": control.name,
                "to_name": control.image,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "score": one.score,
                "value": value,
            }
        )
    score = float(np.mean([one.score for one in shown])) if shown else 0.0
    return {"result": rectangles, "score": score, "model_version": model}
