"""One loader for every kind of image, and the mapping between an image and the network's square input.

Law: a path, its bytes, its PIL image and its array give the same pixels to the last bit, so Pillow alone decodes.
Images are RGB uint8 (H, W, 3), upright (EXIF orientation applied); sizes are (height, width); boxes are xyxy px.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import ConfigError, ImageError, MissingImageError
from .image_files import drop_texts, open_heif
from .orientation import read_orientation, turn_pixels
from .text import explain

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "Geometry",
    "Source",
    "load",
    "read_header",
    "read_size",
    "read_stream",
    "resize",
]

MAX_PIXELS = 100_000_000

IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""Of the files that folders and datasets are searched for, in lower case."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "AVIF", "HEIF")
"""Pillow's names of the formats that are read; none that runs another program (HEIF needs pillow-heif)."""

MAX_STREAM = 1_000_000_000
"""Bytes that are read of a pipe."""


class _Tensor(Protocol):
    def permute(self, *axes: int) -> Any: ...


Source: TypeAlias = str | Path | bytes | Image.Image | NDArray[Any] | _Tensor
"""A path, the bytes of an image file, a PIL image, an array (H, W, 3) or a torch tensor (3, H, W)."""


def load(
    source: Source, *, color: str = "rgb", max_pixels: int = MAX_PIXELS, where: str = "image from bytes"
) -> NDArray[np.uint8]:
    """Any image as RGB uint8 (H, W, 3), upright and contiguous.

    Args:
        source: a path (also of a pipe), the bytes of a file, a PIL image, a uint8 array (H, W, 3) or a uint8 tensor
            (3, H, W); arrays and tensors may also be gray (H, W), (H, W, 1) or have an alpha channel (H, W, 4).
        color: "bgr" where an array or tensor has blue first, as OpenCV reads them; of no effect on files.
        max_pixels: refuse a larger image; a file's header is read before its pixels.
        where: what errors call the bytes of a file.

    Transparency is blended with white, 16 bits a channel are cut to their high byte, of several frames the first is
    read. Floats are refused, since their range is unknown (1 or 255). Anything unusable is an `ImageError`.
    """
    if color not in ("rgb", "bgr"):
        raise ConfigError(f"color: expected 'rgb' or 'bgr', got {color!r}")
    if isinstance(source, str | Path):
        with _open_file(source) as file:
            return _load_file(file, str(source), max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _load_file(io.BytesIO(source), where, max_pixels)
    if isinstance(source, Image.Image):
        _check_size(source.height, source.width, "PIL image", max_pixels)
        return _decode(source, "PIL image")
    if isinstance(source, np.ndarray):
        return _from_array(source, "array", "(H, W, 3)", color, max_pixels)
    if hasattr(source, "permute"):
        return _from_tensor(source, color, max_pixels)
    hint = ": expected one image, use predict_batch for several" if isinstance(source, list | tuple) else ""
    hint = ": pass its read()" if hasattr(source, "read") else hint
    raise ImageError(f"expected a path, bytes, a PIL image, an array or a tensor, got {type(source).__name__}{hint}")


def read_stream(file: BinaryIO, where: str) -> bytes:
    """All bytes of a pipe, of which an image has at most MAX_STREAM."""
    content = file.read(MAX_STREAM + 1)
    if len(content) > MAX_STREAM:
        raise ImageError(f"{where}: expected an image of at most {MAX_STREAM} bytes, got more")
    return content


def read_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image file as `load` returns it, from its header."""
    return read_header(path)[0]


def read_header(path: str | Path) -> tuple[tuple[int, int], int]:
    """(height, width) of an image file as `load` returns it, and the EXIF orientation, 1 to 8, that it is turned by."""
    with _open_file(path) as file:
        image = _open_header(file, str(path))
        width, height = image.size
        if image.format == "TIFF":  # some versions of Pillow swap its size already
            width, height = image.tag_v2[256], image.tag_v2[257]  # type: ignore[attr-defined]
        if image.format == "PNG" and "exif" not in image.info:  # its chunk may follow the pixels
            file.seek(0)
            content = file.read()
            if not any(word in content for word in (b"eXIf", b"Raw profile type", b"com.adobe.xmp")):
                return (height, width), 1
            image = _open_header(drop_texts(content) or io.BytesIO(content), str(path))
        orientation = read_orientation(image)
        return ((width, height) if orientation >= 5 else (height, width)), orientation


def resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """An image (H, W, 3) as (height, width, 3): averaged along shrinking sides, else interpolated."""
    high, wide = image.shape[:2]
    if (min(wide, width), min(high, height)) != (wide, high):
        image = cv2.resize(image, (min(wide, width), min(high, height)), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return image


@dataclass(frozen=True, slots=True)
class Geometry:
    """The mapping between a (height, width) image and the square input of `size` px that it is resized to."""

    height: int
    width: int
    size: int

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.size) < 1:
            raise ConfigError(f"expected height, width and size of at least 1 px, got {self}")

    def forward_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image (H, W, 3) as input (size, size, 3): averaged along a side that shrinks, else interpolated."""
        if image.shape[:2] != (self.height, self.width):
            raise ImageError(f"expected an image of {(self.height, self.width)}, got {image.shape[:2]}")
        return resize(image, self.size, self.size)

    def forward(self, boxes: NDArray[np.floating]) -> NDArray[np.floating]:
        """Boxes of the image in pixels of the input, (N, 4) -> (N, 4) of the same dtype."""
        return self._scale(boxes, self.size / self.width, self.size / self.height)

    def inverse(self, boxes: NDArray[np.floating]) -> NDArray[np.floating]:
        """Boxes of the input in pixels of the image, (N, 4) -> (N, 4) of the same dtype."""
        return self._scale(boxes, self.width / self.size, self.height / self.size)

    @staticmethod
    def _scale(boxes: NDArray[np.floating], across: float, down: float) -> NDArray[np.floating]:
        scaled = boxes * np.array([across, down, across, down])  # float64, so that only the result is rounded
        return np.asarray(scaled, boxes.dtype)


def _open_file(path: str | Path) -> BinaryIO:
    try:
        file = open(path, "rb")  # noqa: SIM115
        if file.seekable():
            return file
        with file:
            return io.BytesIO(read_stream(file, str(path)))
    except FileNotFoundError:
        hint = ": stream() reads URLs with allow_urls=True" if str(path).startswith(("http:", "https:")) else ""
        raise MissingImageError(f"{path}: no such image{hint}") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: expected an image, got a folder: stream() reads folders") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read: {explain(error)}") from error


def _load_file(file: BinaryIO, where: str, max_pixels: int) -> NDArray[np.uint8]:
    image = _open_header(file, where)
    _check_size(image.height, image.width, where, max_pixels)
    try:
        return _decode(image, where)
    except ImageError:
        if image.format != "PNG" or (smaller := drop_texts(_read_all(file))) is None:
            raise
        return _load_file(smaller, where, max_pixels)  # texts behind the pixels


def _open_header(file: BinaryIO, where: str) -> Image.Image:
    """A file's image before decoding: Pillow's `open`, without its warning about sizes, which `max_pixels` limits."""
    start = file.read(16)
    if (heif := open_heif(file, where)) is not None:
        return heif
    Image.preinit()
    for name in FORMATS if start else ():
        if name not in Image.OPEN:
            Image.init()
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or (accept is not None and accept(start) is not True):
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except Exception as error:
            if name == "PNG" and (smaller := drop_texts(_read_all(file))) is not None:
                return _open_header(smaller, where)
            raise ImageError(f"{where}: broken {name} image: {error}") from error
    what = f"expected an image ({', '.join(FORMATS)}), its content is none of these" if start else "the file is empty"
    raise ImageError(f"{where}: {what}")


def _read_all(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _check_size(height: int, width: int, where: str, max_pixels: int) -> None:
    if height < 1 or width < 1:
        raise ImageError(f"{where}: expected at least 1 x 1 px, got height {height}, width {width}")
    if height * width > max_pixels:
        raise ImageError(f"{where}: expected at most {max_pixels} pixels (max_pixels), got {height} x {width}")


def _decode(image: Image.Image, where: str) -> NDArray[np.uint8]:
    try:
        image.load()
        pixels = _to_rgb(image, where)
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything on broken files
        raise ImageError(f"{where}: broken or truncated image: {error}") from error
    return np.ascontiguousarray(turn_pixels(pixels, read_orientation(image)))


def _to_rgb(image: Image.Image, where: str) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        high = (np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)
        return np.repeat(high[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ImageError(f"{where}: expected 8 or 16 bits a channel, got 32 (PIL mode {image.mode!r})")
    if image.has_transparency_data:
        return _over_white(np.asarray(image.convert("RGBA")))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _over_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = pixels[..., 3:].astype(np.uint16)
    blended = pixels[..., :3] * alpha + 255 * (255 - alpha)  # at most 255 * 255
    return ((blended + 127) // 255).astype(np.uint8)


def _from_tensor(tensor: Any, color: str, max_pixels: int) -> NDArray[np.uint8]:
    try:
        array = tensor.detach().cpu().numpy()
    except (TypeError, RuntimeError) as error:
        raise ImageError(
            f"tensor: expected uint8 (3, H, W), got {tensor.dtype} {tuple(tensor.shape)}: {error}"
        ) from error
    if array.ndim == 3 and (array.shape[0] in (1, 3, 4) or array.shape[2] not in (1, 3, 4)):
        return _from_array(array.transpose(1, 2, 0), "tensor", "(3, H, W)", color, max_pixels, array.shape)
    return _from_array(array, "tensor", "(3, H, W)", color, max_pixels)


def _from_array(
    array: NDArray[Any], where: str, layout: str, color: str, max_pixels: int, shape: tuple[int, ...] | None = None
) -> NDArray[np.uint8]:
    """An array with channels last; `layout` and `shape` are the caller's order, for messages."""
    shape = shape or array.shape
    gray = array.ndim == 2
    hints = []
    if array.ndim == 4:
        hints.append("give one image at a time")
    elif not gray and (array.ndim != 3 or array.shape[2] not in (1, 3, 4)):
        hints.append("transpose" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else "give it 3 channels")
    elif where == "tensor" and not gray and shape == array.shape:
        hints.append("permute(2, 0, 1)")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        hints.append("replace NaN and infinity")
    if array.dtype != np.uint8:
        hints.append("scale to 0-255" if array.dtype.kind in "fu" else "convert to uint8 of 0-255")
    if hints:
        raise ImageError(f"{where}: expected uint8 {layout}, got {array.dtype} {shape}: {' and '.join(hints)}")
    _check_size(array.shape[0], array.shape[1], where, max_pixels)
    if gray or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if color == "bgr":
        array = array[..., [2, 1, 0, 3][: array.shape[2]]]
    return np.ascontiguousarray(_over_white(array) if array.shape[2] == 4 else array)
