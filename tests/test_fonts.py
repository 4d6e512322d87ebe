"""Names in any script: glyphs where a font has them, Latin letters where none has, never a box."""

import io
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from PIL import ImageFont

from centerdet.detections import Detections
from centerdet.fonts import letters, romanize, typeset

NAMES = (
    "Größe", "naïve façade", "Łódź", "собака", "світлофор", "γάτα", "猫", "交通信号灯", "ねこ", "ネコ", "한국어", "สุนัข",
    "कुत्ता", "שלום עולם", "قطة", "ქართული", "ውሻ", "🐶", "👨‍👩‍👧", "✔️", "½ — “x”", "é", "a\nb\tc", "\x7f", "\u200d", "",
    " ", "\ud800", "\uffff", "\U0010ffff", "\ue000", "猫 собака car", "ﬁ", "a\u0301\u0302\u0303",
)  # fmt: skip


def _characters(font: ImageFont.FreeTypeFont) -> set[str]:
    """What a font has glyphs for, by another library."""
    file = io.BytesIO(font.path.getvalue()) if isinstance(font.path, io.BytesIO) else font.path
    with TTFont(file, fontNumber=0) as opened:
        return {chr(code) for code in opened.getBestCmap()}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_every_letter_is_in_the_font_that_it_is_drawn_in(name: str) -> None:
    for text in (name, f"{name} 0.95"):
        runs = typeset(text, 20)
        for part, font in runs:
            assert set(part) - {" "} <= _characters(font), (part, font.getname())
        assert "".join(part for part, _ in runs).split()[-1:] == ["0.95"] or text == name


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_without_any_font_text_is_ascii(name: str) -> None:
    assert romanize(name).isascii()


def test_letters_of_alphabets_are_readable_in_latin() -> None:
    expected = {
        "Größe": "Grosse", "Łódź": "Lodz", "собака": "sobaka", "Щука": "Shchuka", "світло": "svitlo", "γάτα": "gata",
        "ねこ": "neko", "ネコ": "neko", "개": "gae", "🐶": "dog face", "猫": "U+732B", "\ud800": "U+D800", "ﬁn": "fin",
    }  # fmt: skip
    assert {name: romanize(name) for name in expected} == expected


@pytest.mark.parametrize("names", [("ö", "ß", "o"), ("é", "ñ", "è"), ("д", "ж"), ("猫", "犬"), ("ก", "ข"), ("א", "ב")])
def test_different_names_are_drawn_differently(names: tuple[str, ...]) -> None:
    gray = np.full((240, 240, 3), 200, np.uint8)
    drawn = [
        Detections(np.array([[20, 60, 220, 200]]), np.array([0.9]), np.array([0]), (name,), (240, 240)).plot(image=gray)
        for name in names
    ]
    assert not any(np.array_equal(one, other) for one, other in combinations(drawn, 2))


def test_english_looks_the_same_whatever_is_installed() -> None:
    [(part, font)] = typeset("traffic light 0.95", 20)
    assert (part, font.getname(), font.size) == ("traffic light 0.95", letters(20).getname(), 20)
    assert letters(1).size == 10


def _write_font(path: Path, characters: str) -> None:
    """A font of square letters, which has nothing but these."""
    pen = TTGlyphPen(None)
    for place in ((100, 0), (100, 700), (700, 700), (700, 0)):
        (pen.moveTo if place == (100, 0) else pen.lineTo)(place)
    pen.closePath()
    names = [".notdef", *(f"u{ord(c):x}" for c in characters)]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(c): f"u{ord(c):x}" for c in characters})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), **dict.fromkeys(names[1:], pen.glyph())})
    font.setupHorizontalMetrics(dict.fromkeys(names, (800, 100)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Square", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="fonts are installed elsewhere")
def test_fonts_of_the_system_are_used_also_without_latin_letters(tmp_path: Path) -> None:
    (tmp_path / "fonts" / "deep").mkdir(parents=True)
    _write_font(tmp_path / "fonts" / "deep" / "Square.TTF", "\U00016800\U00016801")  # Bamum, of no common font
    (tmp_path / "fonts" / "broken.ttf").write_bytes(b"no font")
    code = (
        "from centerdet.fonts import typeset\n"
        "for part, font in typeset('\\U00016801 \\U00016800 0.9', 20):\n"
        "    print(ascii(part), font.getname()[0])"
    )
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [r"'\U00016801 \U00016800 ' Square", "'0.9' Aileron"]
