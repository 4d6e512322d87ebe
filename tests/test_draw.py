"""Images with boxes: every size readable, labels inside, colors stable, files whole."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from centerdet.detections import Detections
from centerdet.draw import color_of, draw, draw_boxes, file_format
from centerdet.errors import ConfigError, ImageError
from centerdet.images import load

GRAY = 90
NAMES = ("cat", "dog", "traffic light")


def _gray(height: int, width: int) -> NDArray[np.uint8]:
    image = np.full((height, width, 3), GRAY, np.uint8)
    image.setflags(write=False)
    return image


def _found(boxes: object, height: int, width: int, source: str | None = None) -> Detections:
    corners = np.reshape(boxes, (-1, 4))
    scores = np.linspace(0.99, 0.5, len(corners))
    return Detections(corners, scores, np.arange(len(corners)) % 3, NAMES, (height, width), source)


def _painted(drawn: NDArray[np.uint8], label: int) -> NDArray[np.bool_]:
    return np.asarray((drawn == color_of(label)).all(axis=2))


def test_lines_stand_on_the_boxes_own_pixels() -> None:
    drawn = draw(_gray(200, 200), _found([20, 50, 120, 150], 200, 200))
    rows, columns = np.nonzero(_painted(drawn, 0)[50:])
    assert (rows.min(), rows.max() + 51, columns.min(), columns.max() + 1) == (0, 150, 20, 120)
    assert (drawn[60:140, 30:110] == GRAY).all()


@pytest.mark.parametrize(("height", "width"), [(100, 100), (375, 500), (3000, 2000)])
def test_lines_and_letters_grow_with_the_image(height: int, width: int) -> None:
    box = np.array([0.3, 0.3, 0.9, 0.9]) * [width, height, width, height]
    painted = _painted(draw(_gray(height, width), _found(box, height, width)), 0)
    side = (height * width) ** 0.5
    line = painted[height * 6 // 10].sum() / 2  # both upright lines
    assert max(1, side / 400) <= line <= max(1, side / 150)
    label = painted[: round(box[1]), round(width * 0.3)].sum()
    assert max(10, side / 50) <= label <= max(16, side / 20)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 300), (50, 8000), (8000, 50), (40, 40), (100, 120)])
def test_odd_sizes_and_boxes_at_every_edge(height: int, width: int) -> None:
    boxes = np.array(
        [[0, 0, 1, 1], [0, 0, 0.1, 0.1], [0.9, 0.9, 1, 1], [0.9, 0, 1, 0.1], [0, 0.9, 0.1, 1], [1, 1, 1, 1]]
    )
    outside = [[-50, -50, -10, -10], [width + 9, height + 9, width + 20, height + 20]]
    found = _found([*(boxes * [width, height, width, height]), *outside], height, width)
    drawn = draw(_gray(height, width), found)
    assert drawn.shape == (height, width, 3)
    assert drawn.dtype == np.uint8
    assert (drawn != GRAY).any()


def test_labels_stay_inside_and_apart() -> None:
    found = _found([[180, 0, 200, 60], [180, 0, 200, 60], [0, 30, 60, 90]], 100, 200)
    drawn = draw(_gray(100, 200), found)
    first, second = np.argwhere(_painted(drawn, 0)), np.argwhere(_painted(drawn, 1))
    assert first[:, 0].min() == 0
    assert first[:, 1].min() < 180  # moved left to fit in
    assert second[:, 0].max() > 60  # below its box, since the better one's label is at the top
    _, corner = np.argwhere(_painted(drawn, 2)).min(axis=0)
    assert corner == 0


def test_scores_are_left_out_where_a_label_would_cross_half_of_a_tiny_image() -> None:
    widths = []
    for side in (60, 300):
        drawn = _painted(draw(_gray(side, side), _found([0, 30, 20, 50], side, side)), 0)
        widths.append((drawn.any(axis=0).nonzero()[0].max() + 1) / side)
    assert max(widths) <= 0.5


def test_small_objects_are_not_covered_by_their_own_lines() -> None:
    drawn = draw(_gray(3000, 3000), _found([1500, 1500, 1516, 1516], 3000, 3000))
    assert (drawn[1504:1512, 1504:1512] == GRAY).all()


def test_colors_are_stable_and_distinct() -> None:
    assert color_of(0) == (22, 111, 243)
    colors = np.array([color_of(label) for label in range(80)])
    assert len(np.unique(colors, axis=0)) == 80
    assert min(np.abs(one - other).sum() for one, other in combinations(colors[:20], 2)) > 80


@pytest.mark.parametrize("label", range(20))
def test_text_can_be_read_on_its_color(label: int) -> None:
    found = Detections(
        np.array([[5, 50, 150, 90]]),
        np.array([0.9]),
        np.array([label]),
        tuple(f"dog {n}" for n in range(20)),
        (100, 160),
    )
    painted = draw(_gray(100, 160), found).astype(float) / 255
    label_box = painted[40:50, 5:40].reshape(-1, 3)
    linear = np.where(label_box <= 0.04045, label_box / 12.92, ((label_box + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (luminance.max() + 0.05) / (luminance.min() + 0.05) > 4.5  # WCAG 2.2, level AA


def test_boxes_without_scores_solid_or_dashed() -> None:
    boxes, colors = np.array([[20.0, 50, 120, 150], [140, 50, 190, 150]]), [color_of(0), color_of(1)]
    drawn = draw_boxes(_gray(200, 200), boxes, ["cat", "dog"], colors, [True, False])
    dashed, solid = _painted(drawn, 0)[:, 20], _painted(drawn, 1)[:, 189]
    assert solid[50:150].all() and 0.4 < dashed[50:150].mean() < 0.6
    assert dashed[50] and not dashed[:30].any() and not dashed[150:].any()
    plain = draw_boxes(_gray(200, 200), boxes, ["pottedplant" * 9, "dog"], colors)
    assert _painted(plain, 0)[50:150, 20].all() and _painted(plain, 0)[40, 180:].any()  # a long word is not left out


def test_nothing_found_draws_nothing() -> None:
    np.testing.assert_array_equal(draw(_gray(9, 9), _found([], 9, 9)), _gray(9, 9))


def test_plot_reads_the_source_again_and_writes(tmp_path: Path) -> None:
    source = tmp_path / "Straße.png"
    Image.fromarray(_gray(120, 160)).save(source)
    found = _found([20, 50, 120, 100], 120, 160, str(source))
    for kind in ("png", "PNG", "bmp", "tif", "tiff", "jpg", "JPEG", "webp"):
        out = tmp_path / f"boxes.{kind}"
        drawn = found.plot(str(out))
        assert np.abs(load(out).astype(int) - drawn).mean() < (
            0.1 if kind in ("png", "PNG", "bmp", "tif", "tiff") else 9
        )
    np.testing.assert_array_equal(found.plot(), drawn)
    np.testing.assert_array_equal(found.plot(image=source.read_bytes()), draw(load(source), found))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_plot_and_crop_take_every_kind_of_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    pixels.setflags(write=False)
    found = _found([[10.2, 20.7, 30.5, 40.1], [-5, -5, 3, 3], [80, 60, 80, 60]], 60, 80)
    crops = found.crop(pixels)
    np.testing.assert_array_equal(crops[0], pixels[20:41, 10:31])
    np.testing.assert_array_equal(crops[1], pixels[:3, :3])
    assert crops[2].shape == (1, 1, 3)
    assert all(one.base is None for one in crops)  # none keeps the whole image alive
    np.testing.assert_array_equal(found.crop(Image.fromarray(pixels))[0], crops[0])
    np.testing.assert_array_equal(found.crop(pixels[..., ::-1], color="bgr")[0], crops[0])
    np.testing.assert_array_equal(found.plot(image=pixels[..., ::-1], color="bgr"), found.plot(image=pixels))


def test_what_cannot_be_drawn_or_written_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    Image.fromarray(_gray(60, 80)).save(source)
    found = _found([10, 20, 30, 40], 60, 80, str(source))
    with pytest.raises(ConfigError, match=r"boxes\.jpgg: expected a file called \*\.bmp"):
        found.plot(tmp_path / "boxes.jpgg")
    with pytest.raises(ConfigError, match="expected a file called"):
        found.plot(tmp_path / "boxes")
    with pytest.raises(ConfigError, match="expected a file called"):
        file_format("boxes.txt")
    with pytest.raises(ConfigError, match=r"out: expected a path to write to, got ndarray \(an image goes to image=\)"):
        found.plot(_gray(60, 80))  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"pass image="):
        _found([10, 20, 30, 40], 60, 80).plot()
    with pytest.raises(ImageError, match=r"\(60, 80\) px, got \(50, 80, 3\)"):
        found.plot(image=_gray(50, 80))
    with pytest.raises(ImageError, match=r"\(60, 80\)"):
        found.crop(_gray(50, 80))
    source.unlink()
    with pytest.raises(ImageError, match=r"a\.png: no such image"):
        found.plot(tmp_path / "boxes.jpg")
    wide = _found([10, 0, 30, 1], 1, 70_000)
    with pytest.raises(ImageError, match="JPEG cannot hold 1 x 70000 px"):
        wide.plot(tmp_path / "wide.jpg", _gray(1, 70_000))
    assert list(tmp_path.iterdir()) == []
