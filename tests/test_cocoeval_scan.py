"""Results files read into arrays: the numbers are those of the JSON parser, bit for bit, or the file is left to it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from centerdet.metrics.coco_records import Table
from centerdet.metrics.coco_scan import scan_results


def records(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Numbers as programs write them: whole, rounded, with 17 digits, tiny, huge, negative, of float32."""
    rng = np.random.default_rng(seed)

    def number() -> Any:
        kind = rng.integers(9)
        if kind == 0:
            return int(rng.integers(-500, 500))
        if kind == 1:
            return round(float(rng.normal(0, 300)), int(rng.integers(0, 6)))
        if kind == 2:
            return float(np.float32(rng.normal(0, 300)))
        if kind == 3:
            return float(rng.normal() * 10.0 ** rng.integers(-30, 30))
        if kind == 4:
            return float(rng.random() * 10.0 ** -rng.integers(0, 8))
        if kind == 5:
            return [
                0,
                0.0,
                -0.0,
                1e-7,
                5e-324,
                2**53 + 2.0,
                0.1,
                1e22,
                1e23,
                9007199254740993,
                123456789012345678901234,
            ][rng.integers(11)]
        return float(rng.random() * 640)

    return [
        {
            "image_id": int(rng.integers(0, 10**12)), "category_id": int(rng.integers(-5, 90)),
            "bbox": [number() for _ in range(4)], "score": number(),
        }
        for _ in range(count)
    ]  # fmt: skip


def assert_read(file: Path, content: str) -> None:
    file.write_text(content)
    table, expected = scan_results(file), Table.from_records(json.loads(content), "results")
    assert table is not None
    for name in ("images", "categories"):
        np.testing.assert_array_equal(getattr(table, name), getattr(expected, name))
    for name in ("bbox", "scores"):  # as bits, so that -0.0 is not 0.0
        np.testing.assert_array_equal(getattr(table, name).view(np.int64), getattr(expected, name).view(np.int64))


@pytest.mark.parametrize("layout", [{}, {"indent": 1}, {"separators": (",", ":")}])
def test_numbers_are_those_of_float(tmp_path: Path, layout: dict[str, Any]) -> None:
    assert_read(tmp_path / "results.json", json.dumps(records(3000, 1), **layout))


@pytest.mark.parametrize("shift", range(7))
def test_records_across_chunks(tmp_path: Path, shift: int) -> None:
    content = json.dumps([{"score": 0.5, **one} for one in records(9000, 2)])
    assert len(content) > 1 << 20
    assert_read(tmp_path / "results.json", " " * shift + content + "\n")


def test_other_spellings(tmp_path: Path) -> None:
    text = '[{"score":%s,"bbox":[%s,1E2,1.5e+3,-2.25E-1],"category_id":3,"image_id":%s}]'
    for score in ("1", "0.30000000000000004", "1e-05", "12345678901234567890", "0.00012345678901234567", "1e400"):
        content = text % (score, "-7", "139")
        if score == "1e400":
            (tmp_path / "results.json").write_text(content)
            assert scan_results(tmp_path / "results.json") is None
        else:
            assert_read(tmp_path / "results.json", content)


ONE = '{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}'


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", "[", "null", ONE, f"[{ONE}", f"[{ONE},]", f"[{ONE} {ONE}]", f"[{ONE}]x", f"[{ONE}]]",
        "[" + ONE.replace("0.5", "NaN") + "]", "[" + ONE.replace("0.5", "0.5.1") + "]",
        "[" + ONE.replace("0.5", "0 5") + "]", "[" + ONE.replace("0.5", "--5") + "]",
        "[" + ONE.replace("0.5", "5.") + "]", "[" + ONE.replace("0.5", "5e") + "]",
        "[" + ONE.replace("0.5", ".5") + "]",
        "[" + ONE.replace("0.5", "+5") + "]", "[" + ONE.replace("0.5", "5-") + "]",
        "[" + ONE.replace("1,", '"1",', 1) + "]",
        "[" + ONE.replace("1,", "1.0,", 1) + "]", "[" + ONE.replace("1,", "99999999999999999999,", 1) + "]",
        "[" + ONE.replace("3, 4", "3") + "]", f'[{ONE},{{"score": 0.5}}]', f"[{ONE},{ONE.replace('score', 'conf')}]",
        "[" + ONE.replace("}", ', "id": 3}') + "]",
        f"[{ONE},{ONE.replace('score', 'segmentation')}]",
    ],
)  # fmt: skip
def test_what_is_left_to_the_json_parser(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    assert scan_results(tmp_path / "results.json") is None
