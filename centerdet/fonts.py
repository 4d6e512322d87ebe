"""Fonts for text in any script: a font of the system where one has the glyphs, else Latin letters.

Law: what `typeset` returns never shows a font's box for a missing glyph. Pillow's built-in font has little beyond ASCII
and is asked first, so that names in English look the same on every machine.
"""

import os
import re
import sys
import unicodedata
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias, cast

from PIL import ImageFont

from .files import walk_files

__all__ = ["Run", "letters", "romanize", "typeset"]

Run: TypeAlias = tuple[str, ImageFont.FreeTypeFont]
"""A part of a text and the font that it is drawn in."""

SUFFIXES = (".otf", ".otc", ".ttc", ".ttf")
STYLES = re.compile(
    "bold|italic|oblique|mono|serif|condensed|narrow|light|thin|black|math|symbol|display|dings|lastresort|blank", re.I
)
"""In a file's name: what is taken only where no plain font has the glyphs."""

LATIN = {
    **dict(zip("абвгдезиклмнопрстуфыэі", "abvgdeziklmnoprstufyei", strict=True)),
    "ж": "zh", "х": "kh", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "shch", "ъ": "", "ь": "", "ю": "yu", "я": "ya",  # noqa: RUF001
    **dict(zip("αβγδεζηικλμνξοπρσςτυφω", "avgdeziiklmnxoprsstyfo", strict=True)),
    "є": "ye", "θ": "th", "χ": "ch", "ψ": "ps", "ß": "ss",
}  # fmt: skip
"""Letters whose names in Unicode (GAMMA, ES) make no readable word."""


def letters(height: float) -> ImageFont.FreeTypeFont:
    """The built-in font for text of about so many px, at least 10."""
    return _open("", max(10, round(height)))


def typeset(text: str, height: float) -> list[Run]:
    """A line of text of about so many px, in parts with a font each: see `letters`.

    One font for the whole text where one has all its glyphs, else one for each word, else the word in Latin letters.
    """
    if text.isascii() and text.isprintable():
        return [(text, letters(height))]
    text = unicodedata.normalize("NFC", text)  # composed letters are in more fonts than their parts
    text = " ".join("".join(c for c in text if c.isspace() or not _is_control(c)).split())
    parts = re.split("( )", text) if _find_font(text) is None else [text]
    runs: list[tuple[str, str]] = []
    for part in parts:
        font = _find_font(part)
        shown = romanize(part) if font is None else part
        if runs and (part == " " or (font or "") == runs[-1][1]):
            runs[-1] = (runs[-1][0] + shown, runs[-1][1])
        else:
            runs.append((shown, font or ""))
    return [(part, _open(font, max(10, round(height)))) for part, font in runs]


def romanize(text: str) -> str:
    """Text in ASCII for a person: Größe → Grosse, собака → sobaka, ねこ → neko, 猫 → U+732B."""
    return "".join(map(_romanize, unicodedata.normalize("NFKC", text)))


def _romanize(character: str) -> str:
    name = unicodedata.name(character, "")  # CYRILLIC SMALL LETTER LJE, HANGUL SYLLABLE GAE, DOG FACE
    base = unicodedata.normalize("NFD", character)[0]
    if base.isascii():
        return base
    if unicodedata.category(character) == "Pd":
        return "-"
    if unicodedata.category(character).startswith("M") and "VOWEL SIGN" not in name:
        return ""
    if (latin := LATIN.get(base.lower())) is None:
        name = re.sub(r".*\b(LETTER|LIGATURE|SYLLABLE|CHARACTER|VOWEL SIGN|DIGIT) |(^| )WITH .*", "", name)
        latin = name.lower() if name and "IDEOGRAPH" not in name else f"U+{ord(character):04X}"
    return latin.capitalize() if character.isupper() else latin


def _is_control(character: str) -> bool:
    """Whether it has no glyph of its own: a control or format character, a variation selector."""
    return unicodedata.category(character) in ("Cc", "Cf") or "\ufe00" <= character <= "\ufe0f"


def _find_font(text: str) -> str | None:
    """The path of a font with all glyphs of a text, "" for the built-in one, None where there is none."""
    return _find_font_of(frozenset(text) - {" "})


@lru_cache(1000)
def _find_font_of(characters: frozenset[str]) -> str | None:
    return next((font for font in ("", *_list_fonts()) if all(_has_glyph(font, c) for c in sorted(characters))), None)


@cache
def _list_fonts() -> list[str]:
    """The fonts of the system, plain sans-serif ones first."""
    folders = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".fonts"]
    folders.append(Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"), "fonts"))
    if sys.platform == "darwin":
        folders = [Path("/System/Library/Fonts"), Path("/Library/Fonts"), Path.home() / "Library" / "Fonts"]
    if sys.platform == "win32":
        folders = [Path(os.environ.get("WINDIR", "C:/Windows"), "Fonts")]
        folders.append(Path(os.environ.get("LOCALAPPDATA", Path.home()), "Microsoft", "Windows", "Fonts"))
    fonts = [str(path) for folder in folders for path in walk_files(folder, SUFFIXES)]
    fonts.sort(key=lambda path: len(STYLES.findall(Path(path).stem)))
    matplotlib = find_spec("matplotlib")  # brings Latin, Greek, Cyrillic, Hebrew and Arabic where no font is installed
    if matplotlib and matplotlib.origin:
        fonts.append(str(Path(matplotlib.origin).with_name("mpl-data") / "fonts" / "ttf" / "DejaVuSans.ttf"))
    return fonts


@lru_cache(10_000)
def _has_glyph(font: str, character: str) -> bool:
    """Whether a font draws a character as something, and not as the box for what it lacks."""
    try:
        drawn, missing = (_open(font, 20, ImageFont.Layout.BASIC).getmask(c) for c in (character, "\uffff"))
    except (OSError, ValueError):  # a broken font, or one of a single size
        return False
    return drawn.getbbox() is not None and (drawn.size, bytes(drawn)) != (missing.size, bytes(missing))


@lru_cache(100)
def _open(path: str, size: int, engine: ImageFont.Layout | None = None) -> ImageFont.FreeTypeFont:
    if path:
        return ImageFont.truetype(path, size, layout_engine=engine)
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size)).font_variant(layout_engine=engine)
