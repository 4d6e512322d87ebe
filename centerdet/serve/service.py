"""What every request needs: who may ask, which image and options came, and the detector behind its queue."""

import base64
import binascii
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..detections import Detections
from ..errors import ConfigError, ImageError
from ..text import nearest
from .batching import Batcher

__all__ = ["Options", "Service", "read_form", "read_options", "read_score", "read_upload"]

SCORE = 0.3
"""The least score of an object where a request names none, as `Detector.predict` has it."""


@dataclass(frozen=True, slots=True)
class Service:
    """A detector that answers requests.

    Attributes:
        batcher: the detector behind its queue.
        names: of its classes.
        model: its name in answers, such as "voc".
        token: what a request must bring; None: nothing.
    """

    batcher: Batcher
    names: tuple[str, ...]
    model: str
    token: str | None = None

    def authorize(self, request: Request, key: str = "") -> None:
        """Refuse a request without the token: as bearer, as password of basic authentication, or as `key`."""
        if self.token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                given = ""
        if not any(hmac.compare_digest(one.encode(), self.token.encode()) for one in (given, key)):
            raise HTTPException(
                401, "expected the server's token, as in 'Authorization: Bearer TOKEN'", {"www-authenticate": "Bearer"}
            )

    async def predict(
        self, request: Request, content: bytes, score: float = SCORE, tile: int | None = None
    ) -> Detections:
        """The objects of an encoded image, which is given up where the request's client has gone."""
        return await self.batcher.predict(content, score, tile, request.is_disconnected)


@dataclass(frozen=True, slots=True)
class Options:
    """What a query asks for; classes: None for all."""

    score: float = SCORE
    tile: int | None = None
    classes: tuple[str, ...] | None = None


def read_options(request: Request, names: Sequence[str]) -> Options:
    """The options of `?score=&classes=&tile=`; an unknown one, or an unknown class, is a `ConfigError`."""
    query = request.query_params
    for key in query:
        if key not in Options.__slots__:
            raise ConfigError(f"query: no option {key!r}; {nearest(key, Options.__slots__)}")
        if key != "classes" and len(query.getlist(key)) > 1:
            raise ConfigError(f"{key}: expected one value, got {len(query.getlist(key))}")
    classes: list[str] = []
    for value in query.getlist("classes"):
        classes += [value] if value in names else [name.strip() for name in value.split(",")]
    for name in classes:
        if name not in names:
            raise ConfigError(f"classes: no class {name!r}; {nearest(name, names)}")
    tile = query.get("tile")
    if tile is not None and not (tile.isascii() and tile.isdecimal() and len(tile) < 10):
        raise ConfigError(f"tile: expected a side in px, got {tile!r}")
    return Options(
        read_score("score", query.get("score"), SCORE),
        int(tile) if tile else None,
        tuple(classes) if "classes" in query else None,
    )


def read_score(name: str, value: object, default: float) -> float:
    """A score from 0 to 1 out of text, or the default where there is none."""
    if value is None:
        return default
    try:
        score = float(value) if isinstance(value, str) else -1.0
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise ConfigError(f"{name}: expected a number from 0 to 1, got {value!r}")
    return score


async def read_form(request: Request) -> tuple[bytes, dict[str, str]]:
    """(the one file's bytes, the other fields) of a multipart form; without a file the bytes are empty."""
    async with request.form(max_files=1, max_fields=20) as form:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        content = await files[0].read() if files else b""
        return content, {key: value for key, value in form.items() if isinstance(value, str)}


async def read_upload(request: Request) -> bytes:
    """The image that a request brings, encoded: its body, or the one file of a multipart form."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        content, fields = await read_form(request)
        if fields:
            raise ConfigError(f"form: expected one file, got {next(iter(fields))!r}: options go in the query")
    else:
        content = await request.body()
    if not content:
        raise ImageError("expected an image in the body, as its bytes or as a multipart form's file, got nothing")
    return content
