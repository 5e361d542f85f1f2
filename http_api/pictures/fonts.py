"""Fonts of pictures: the one asked for, the one that matplotlib brings, and what else the machine has for other scripts.

DejaVu Sans, which comes with matplotlib, has Latin, Greek, Cyrillic, Arabic, Hebrew and many signs, but no
Chinese, Japanese, Korean or Indian script. A text with a character that it lacks is drawn with the first of
FALLBACKS that is installed and has it; what no font has becomes a box, so that nothing is warned about at
each picture. Which fonts there are is asked once.
"""

from __future__ import annotations

import logging
from functools import cache, lru_cache

from matplotlib.font_manager import FontProperties, fontManager, get_font

from http_api.pictures.options import Font

SANS = "DejaVu Sans"
MISSING = "\N{WHITE SQUARE}"
# as distributions and systems name them; all outlines, for matplotlib draws no bitmaps
FALLBACKS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "Noto Sans SC",
    "Noto Sans JP",
    "Noto Sans KR",
    "Source Han Sans SC",
    "Source Han Sans",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "IPAGothic",
    "IPAexGothic",
    "TakaoGothic",
    "VL Gothic",
    "NanumGothic",
    "UnDotum",
    "PingFang SC",
    "PingFang HK",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "SimHei",
    "Yu Gothic",
    "MS Gothic",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Noto Sans Bengali",
    "Noto Sans Tamil",
    "Noto Sans Thai",
    "Lohit Devanagari",
    "FreeSans",
    "Noto Sans Symbols2",
    "Noto Emoji",
    "Symbola",
    "Arial Unicode MS",
    "Unifont",
)

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)


def properties_of(font: Font, text: str, size: float | None = None) -> FontProperties:
    """What matplotlib draws ``text`` with; ``size`` in pixels, else the font's own."""
    return FontProperties(
        family=list(_chosen(font.name, text)[0]),
        size=size or font.size,
        weight="bold" if font.bold else "normal",
        style="italic" if font.italic else "normal",
    )


def plain(text: str) -> str:
    """Without what no font has: control characters, halves of surrogate pairs."""
    return "".join(mark if mark.isprintable() else " " for mark in text)


def drawable(text: str, font: Font) -> str:
    """A plain text in which a box stands for what no font of the machine has."""
    text = plain(text)
    missing = _chosen(font.name, text)[1]
    return text.translate(dict.fromkeys(missing, MISSING)) if missing else text


@lru_cache(maxsize=4_096)
def _chosen(name: str, text: str) -> tuple[tuple[str, ...], frozenset[int]]:
    """The families for a text in the order in which they are asked for its characters, and the characters
    that none has.
    """
    installed = _installed()
    families = list(dict.fromkeys((installed.get(name.lower(), SANS), SANS)))
    missing = frozenset() if text.isascii() else frozenset(map(ord, text))
    for family in families:
        missing -= _characters(family) if missing else missing
    for fallback in FALLBACKS:
        family = installed.get(fallback.lower(), "")
        if family and missing and (found := missing & _characters(family)):
            families.append(family)
            missing -= found
    return tuple(families), missing


@cache
def _installed() -> dict[str, str]:
    return {font.name.lower(): font.name for font in fontManager.ttflist}


@cache
def _characters(family: str) -> frozenset[int]:
    """The code points that a family has glyphs for."""
    return frozenset(get_font(fontManager.findfont(FontProperties(family=[family]))).get_charmap())
