"""One loader: path = bytes = PIL = array, every kind of image, every kind of bad one; `Geometry` and its inverse."""

import io
import os
import struct
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile, features

from centerdet.errors import CenterdetError, ConfigError, ImageError
from centerdet.files import read_file
from centerdet.images import Geometry, load, read_header, read_size

Pixels = NDArray[np.uint8]


def _photo(height: int = 60, width: int = 90, channels: int = 3) -> Pixels:
    """Smooth colors with an edge, so that JPEG, chroma and orientation all matter."""
    rows, columns = np.mgrid[:height, :width]
    planes = [rows * 3 + 17 * k + columns * (k + 1) + 60 * (columns > width // 3) for k in range(channels)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _check_same(content: bytes, path: Path) -> Pixels:
    """Path, bytes, PIL image and array are one image, and the header knows its size."""
    path.write_bytes(content)
    pixels = load(path)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.flags.c_contiguous
    with Image.open(path) as image:
        for other in (str(path), content, image, pixels, pixels[..., None, :].squeeze(2)):
            np.testing.assert_array_equal(load(other), pixels)
    np.testing.assert_array_equal(load(pixels[..., ::-1], color="bgr"), pixels)
    np.testing.assert_array_equal(load(torch.from_numpy(pixels.copy()).permute(2, 0, 1)), pixels)
    assert read_size(path) == pixels.shape[:2]
    return pixels


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_path_bytes_pil_and_array_agree_in_every_format(kind: str, mode: str, tmp_path: Path) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    if (kind, mode) in [("AVIF", "1"), ("JPEG", "1"), ("WEBP", "1")]:
        pytest.skip("the format has no such images")
    image = Image.fromarray(_photo()).convert(mode)
    pixels = _check_same(_encode(image, kind), tmp_path / f"image.{kind.lower()}")
    if kind in ("PNG", "BMP", "PPM", "TIFF"):
        np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


def test_jpegs_of_cameras_and_the_web(tmp_path: Path) -> None:
    image = Image.fromarray(_photo(61, 87))
    for number, options in enumerate(
        [{"quality": 30}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"optimize": True}]
    ):
        _check_same(_encode(image, "JPEG", **options), tmp_path / f"{number}.jpg")


def test_non_ascii_paths(tmp_path: Path) -> None:
    folder = tmp_path / "Straße 東京 🚲"
    folder.mkdir()
    _check_same(_encode(Image.fromarray(_photo()), "PNG"), folder / "naïve façade.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, kind: str, tmp_path: Path) -> None:
    upright = _photo(33, 70)
    # What a camera stores is the upright image taken back through the orientation's own transformation.
    back = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright), 7: np.rot90(upright, 2).swapaxes(0, 1), 8: np.rot90(upright, 3),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    stored = Image.fromarray(np.ascontiguousarray(back[orientation]))
    pixels = _check_same(_encode(stored, kind, exif=exif, **options), tmp_path / f"turned.{kind.lower()}")
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).mean() < (2 if kind == "JPEG" else 1e-9)


def test_png_orientation_behind_the_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = _encode(Image.fromarray(_photo(20, 40)), "PNG", exif=exif)
    start = turned.index(b"eXIf") - 4
    length = 12 + struct.unpack(">I", turned[start : start + 4])[0]
    chunk, rest = turned[start : start + length], turned[:start] + turned[start + length :]
    assert _check_same(rest[:-12] + chunk + rest[-12:], tmp_path / "late.png").shape == (40, 20, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_is_no_orientation(tmp_path: Path) -> None:
    content = _encode(Image.fromarray(_photo()), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    path = tmp_path / "exif.jpg"
    path.write_bytes(content)
    pixels = load(path)
    assert pixels.shape == (60, 90, 3)
    assert read_size(path) == (60, 90)


def test_transparency_is_put_over_white(tmp_path: Path) -> None:
    rgba = _photo(channels=4)
    rgba[:30, :, 3], rgba[30:40, :, 3] = 0, 255
    pixels = _check_same(_encode(Image.fromarray(rgba), "PNG"), tmp_path / "alpha.png")
    np.testing.assert_array_equal(load(rgba), pixels)
    np.testing.assert_array_equal(load(rgba[..., [2, 1, 0, 3]], color="bgr"), pixels)
    np.testing.assert_array_equal(load(torch.from_numpy(rgba).permute(2, 0, 1)), pixels)
    assert (pixels[:30] == 255).all()
    np.testing.assert_array_equal(pixels[30:40], rgba[30:40, :, :3])
    exact = 255 + (rgba[..., :3].astype(float) - 255) * rgba[..., 3:] / 255
    assert np.abs(pixels - exact).max() <= 0.5
    gray = _check_same(_encode(Image.fromarray(rgba[..., 2:], "LA"), "PNG"), tmp_path / "la.png")
    assert (gray[:30] == 255).all()
    palette = Image.fromarray(rgba[..., :3]).quantize(16)
    _check_same(_encode(palette, "PNG", transparency=3), tmp_path / "palette.png")
    _check_same(_encode(palette, "PNG"), tmp_path / "opaque.png")


def test_gray_arrays() -> None:
    gray = _photo(channels=1)
    expected = np.repeat(gray, 3, axis=2)
    for source in (gray, gray[..., 0], torch.from_numpy(gray[..., 0]), torch.from_numpy(gray).permute(2, 0, 1)):
        np.testing.assert_array_equal(load(source), expected)
        np.testing.assert_array_equal(load(source, color="bgr"), expected)


def test_sixteen_bits_are_cut_to_their_high_byte(tmp_path: Path) -> None:
    deep = (_photo(channels=1)[..., 0].astype(np.uint16) << 8) + 77
    for kind in ("PNG", "TIFF", "PPM"):
        path = tmp_path / f"deep.{kind.lower()}"
        path.write_bytes(_encode(Image.fromarray(deep), kind))
        np.testing.assert_array_equal(load(path), np.repeat(deep[..., None] >> 8, 3, axis=2))
    colors = (_photo().astype(np.uint16) << 8) + 200
    cv2.imwrite(str(tmp_path / "deep_rgb.png"), colors[..., ::-1])
    np.testing.assert_array_equal(load(tmp_path / "deep_rgb.png"), _photo())


def test_cmyk_and_ycbcr(tmp_path: Path) -> None:
    image = Image.fromarray(_photo())
    pixels = _check_same(_encode(image.convert("CMYK"), "JPEG", quality=100, subsampling=0), tmp_path / "cmyk.jpg")
    assert np.abs(pixels.astype(int) - _photo()).mean() < 4
    _check_same(_encode(image.convert("CMYK"), "TIFF"), tmp_path / "cmyk.tif")
    assert load(image.convert("YCbCr")).shape == (60, 90, 3)


@pytest.mark.parametrize("image", [Image.new("F", (5, 5)), Image.new("I", (5, 5))])
def test_wide_channels_are_refused(image: Image.Image, tmp_path: Path) -> None:
    image.save(tmp_path / "wide.tif")
    for source in (image, tmp_path / "wide.tif"):
        with pytest.raises(ImageError, match="8 or 16 bits"):
            load(source)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (50, 8000), (8000, 50), (1, 40000)])
def test_extreme_sizes(height: int, width: int, tmp_path: Path) -> None:
    pixels = _check_same(_encode(Image.fromarray(_photo(height, width)), "PNG"), tmp_path / "extreme.png")
    assert Geometry(height, width, 320).forward_image(pixels).shape == (320, 320, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])
def test_truncated_files_are_errors_that_name_the_file(kind: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (70, 50, 3), np.uint8)
    content = _encode(Image.fromarray(noise), kind)
    path = tmp_path / f"cut.{kind.lower()}"
    for share in (0.01, 0.1, 0.5, 0.9, 0.97):
        path.write_bytes(content[: max(4, int(len(content) * share))])
        with pytest.raises(ImageError, match=f"cut.{kind.lower()}: "):
            load(path)
        with pytest.raises(ImageError, match="from bytes: "):
            load(path.read_bytes())


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of odd metadata
def test_damaged_files_never_raise_anything_else(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    contents = [_encode(Image.fromarray(_photo()), kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")]
    for number in range(120):
        damaged = np.frombuffer(contents[number % len(contents)], np.uint8).copy()
        places = generator.integers(0, min(len(damaged), 600), 6)
        damaged[places] = generator.integers(0, 256, 6)
        path = tmp_path / "damaged"
        path.write_bytes(damaged.tobytes())
        for read in (load, read_size):
            try:
                read(path)
            except ImageError as error:
                assert "damaged" in str(error)  # noqa: PT017


def test_files_that_are_no_images(tmp_path: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("this is no image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for path, message in [
        (text, "expected an image"),
        (tmp_path / "empty.png", "empty"),
        (tmp_path / "script.jpg", "expected an image"),
        (tmp_path / "missing.jpg", "no such image"),
        (tmp_path, "folder"),
        (Path("nul\0.jpg"), "cannot be read"),
    ]:
        for read in (load, read_size):
            with pytest.raises(ImageError, match=message) as caught:
                read(path)
            assert str(path) in str(caught.value)
    with pytest.raises(ImageError, match="allow_urls"):
        load("https://example.org/cat.jpg")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


TEXTS = {
    "compressed": _chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(3_000_000))),
    "international": _chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(bytes(3_000_000))),
    "plain": _chunk(b"tEXt", b"workflow\0" + b"x" * 3_000_000),
    "many": _chunk(b"tEXt", b"workflow\0" + b"x" * 8_000_000) * 10,
    "profile": _chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3_000_000))),
    "broken profile": _chunk(b"iCCP", b"profile\0\7" + bytes(9)),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind the pixels"])
def test_megabytes_of_text_or_profile_are_no_reason_to_refuse_a_png(kind: str, behind: bool, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = _encode(Image.fromarray(_photo(20, 40)), "PNG", exif=exif)
    place = len(content) - 12 if behind else 33  # IEND, or behind IHDR
    path = tmp_path / "text.png"
    path.write_bytes(content[:place] + TEXTS[kind] + content[place:])
    assert read_size(path) == (40, 20)
    np.testing.assert_array_equal(load(path), load(content))
    path.write_bytes(path.read_bytes().replace(b"IDAT", b"IDAT\xff", 1))
    with pytest.raises(ImageError, match=r"text\.png: "):
        load(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_pipes(tmp_path: Path) -> None:
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    content = _encode(Image.fromarray(_photo()), "PNG")
    thread = threading.Thread(target=path.write_bytes, args=(content,))
    thread.start()
    np.testing.assert_array_equal(load(path), _photo())
    thread.join()


HEIC = b"\0\0\0\x18ftyp%s\0\0\0\0%s" + bytes(50)


@pytest.mark.parametrize(("brand", "other"), [(b"heic", b"mif1"), (b"mif1", b"heic"), (b"msf1", b"hevc")])
def test_heic_leads_to_pillow_heif(brand: bytes, other: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "phone.HEIC"
    path.write_bytes(HEIC % (brand, other))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        for read in (load, read_size):
            with pytest.raises(ImageError, match=r"phone\.HEIC: .*pip install 'centerdet\[heif\]'"):
                read(path)
    pytest.importorskip("pillow_heif")
    for read in (load, read_size):
        with pytest.raises(ImageError, match=r"phone\.HEIC: broken HEIF image"):
            read(path)


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_is_read_where_pillow_heif_is_installed(orientation: int, tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    heif.from_pillow(Image.fromarray(_photo(60, 90))).save(file, quality=95, exif=exif.tobytes())
    path = tmp_path / "phone.heic"
    path.write_bytes(file.getvalue())
    pixels = load(path)
    np.testing.assert_array_equal(load(file.getvalue()), pixels)
    assert read_size(path) == pixels.shape[:2]
    upright = _photo(60, 90) if orientation == 1 else np.rot90(_photo(60, 90), -1)
    assert np.abs(pixels.astype(int) - upright).mean() < 12
    path.write_bytes(file.getvalue()[:300])
    with pytest.raises(ImageError, match=r"phone\.heic: broken"):
        load(path)


def _huge_png(height: int, width: int) -> bytes:
    """The header of a PNG with no pixels behind it."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + _chunk(b"IDAT", zlib.compress(b""))
    )


def test_the_size_limit_is_checked_before_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(_huge_png(60_000, 60_000))
    with pytest.raises(ImageError, match=r"huge.png: expected at most 100000000 pixels .* 60000 x 60000"):
        load(path)
    assert read_size(path) == (60_000, 60_000)
    with pytest.raises(ImageError, match="max_pixels"):
        load(_photo(), max_pixels=1000)
    with pytest.raises(ImageError, match="max_pixels"):
        load(Image.fromarray(_photo()), max_pixels=1000)


def test_a_large_image_within_the_limit_warns_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow warns above it, raises at twice
    for kind in ("JPEG", "PNG", "BMP"):
        assert load(_encode(Image.fromarray(_photo()), kind)).shape == (60, 90, 3)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            np.zeros((3, 512, 512), np.float32),
            "got float32 .3, 512, 512.: transpose and scale to 0-255",
        ),
        (np.zeros((9, 9, 3)), "got float64 .9, 9, 3.: scale to 0-255"),
        (np.full((9, 9, 3), np.nan, np.float32), "replace NaN"),
        (np.full((9, 9, 3), 300.0), "scale to 0-255"),
        (np.zeros((9, 9, 3), np.uint16), "got uint16"),
        (np.zeros((9, 9, 3), np.int64), "got int64"),
        (np.zeros((9, 9), bool), "got bool"),
        (np.zeros((9, 9, 2), np.uint8), "give it 3 channels"),
        (np.zeros((3, 9, 9), np.uint8), "transpose"),
        (np.zeros((2, 9, 9, 3), np.uint8), "one image at a time"),
        (np.zeros(9, np.uint8), "got uint8 .9,."),
        (np.zeros((0, 9, 3), np.uint8), "at least 1 x 1"),
        (torch.zeros(3, 9, 9), "tensor: expected uint8 .3, H, W., got float32 .3, 9, 9.: scale"),
        (torch.zeros(3, 9, 9, dtype=torch.bfloat16), "bfloat16"),
        (torch.zeros(9, 8, 3, dtype=torch.uint8), "permute"),
        (torch.zeros(2, 9, 9, dtype=torch.uint8), "got uint8 .2, 9, 9.: give it 3 channels"),
        (torch.zeros(1, 3, 9, 9, dtype=torch.uint8), "one image at a time"),
        (io.BytesIO(b"x"), "pass its read"),
        (["a.jpg"], "predict_batch"),
        (None, "got NoneType"),
    ],
)
def test_unusable_sources(source: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load(source)  # type: ignore[arg-type]


def test_unknown_color_order() -> None:
    with pytest.raises(ConfigError, match="rgbx"):
        load(_photo(), color="rgbx")


def test_sources_are_left_alone() -> None:
    pixels = _photo()
    pixels.setflags(write=False)
    for color in ("rgb", "bgr"):
        assert load(pixels, color=color).shape == pixels.shape
    image = Image.fromarray(pixels)
    load(image)
    np.testing.assert_array_equal(np.asarray(image), pixels)
    assert Geometry(60, 90, 32).forward_image(pixels).flags.writeable
    assert load(_encode(image, "JPEG")).flags.writeable


def test_threads_may_load_at_once(tmp_path: Path) -> None:
    contents = [_encode(Image.fromarray(_photo(40 + k, 50)), "JPEG") for k in range(8)]
    expected = [load(content) for content in contents]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            if not np.array_equal(load(contents[number]), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.integers(1, 8000),
    st.integers(1, 8000),
    st.sampled_from([32, 320, 512]),
    st.sampled_from([np.float32, np.float64]),
)
def test_geometry_inverse_undoes_forward(height: int, width: int, size: int, dtype: type) -> None:
    geometry = Geometry(height, width, size)
    boxes = np.random.default_rng(height).uniform(-0.1, 1.1, (20, 4)) * np.array([width, height, width, height])
    boxes = boxes.astype(dtype)
    boxes.setflags(write=False)
    there = geometry.forward(boxes)
    back = geometry.inverse(there)
    assert there.dtype == back.dtype == dtype
    assert np.abs(back - boxes).max() < 1e-3
    whole = np.array([[0, 0, width, height]], dtype)
    np.testing.assert_allclose(geometry.forward(whole), [[0, 0, size, size]], rtol=1e-6)


def test_geometry_moves_pixels_and_boxes_alike() -> None:
    for height, width in [(480, 640), (100, 90), (1000, 80)]:
        image = np.zeros((height, width, 3), np.uint8)
        box = np.array([[width * 0.25, height * 0.5, width * 0.75, height * 0.8]]).round()
        left, top, right, bottom = box[0].astype(int)
        image[top:bottom, left:right] = 255
        geometry = Geometry(height, width, 160)
        bright = geometry.forward_image(image)[..., 0] > 127
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.abs(geometry.forward(box)[0] - found).max() <= 1.5


def test_geometry_refuses_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="at least 1 px"):
        Geometry(0, 10, 320)
    with pytest.raises(ImageError, match=r"\(50, 50\)"):
        Geometry(50, 50, 32).forward_image(_photo())


@pytest.mark.parametrize(
    "read", [load, read_header, lambda name: read_file(Path(name))], ids=["load", "header", "file"]
)
def test_an_error_of_the_system_names_the_file_once(read: Callable[[str], object]) -> None:
    with pytest.raises(CenterdetError, match="File name too long") as caught:
        read("x" * 300)
    assert str(caught.value).count("x" * 300) == 1
