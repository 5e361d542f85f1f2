"""Colours and templates of pictures: graphite-web's names and built-in tables.

A colour is a name of the table, or 6 or 8 hexadecimal digits (the last two are opacity), with or
without ``#``. Source: graphite-web 1.1.10, the colour names of its graphs and the templates of its
example configuration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tgres_py.errors import BadRequest

Color = tuple[float, float, float, float]

_NAMES = {
    "black": "000000",
    "white": "ffffff",
    "blue": "6464ff",
    "green": "00c800",
    "red": "c80032",
    "yellow": "ffff00",
    "orange": "ffa500",
    "purple": "c864ff",
    "brown": "966432",
    "cyan": "00ffff",
    "aqua": "009696",
    "gray": "afafaf",
    "grey": "afafaf",
    "magenta": "ff00ff",
    "pink": "ff6464",
    "gold": "c8c800",
    "rose": "c896c8",
    "darkblue": "0000ff",
    "darkgreen": "00ff00",
    "darkred": "ff0000",
    "darkgray": "6f6f6f",
    "darkgrey": "6f6f6f",
}
_HEX = re.compile(r"#?([0-9a-fA-F]{6})([0-9a-fA-F]{2})?")


def parse_color(text: str, parameter: str) -> Color:
    """(red, green, blue, opacity), each 0 to 1. BadRequest names the parameter."""
    match = _HEX.fullmatch(_NAMES.get(text.strip().lower(), text.strip()))
    if not match:
        raise BadRequest(f"{parameter}: {text[:40]!r} is no colour: a name, or 6 or 8 hex digits")
    digits = match.group(1) + (match.group(2) or "ff")
    red, green, blue, opacity = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4, 6))
    return red, green, blue, opacity


@dataclass(frozen=True, slots=True)
class Template:
    """``lines``: comma-separated colours that the series take in turn."""

    background: str = "white"
    foreground: str = "black"
    major: str = "rose"
    minor: str = "grey"
    lines: str = "blue,green,red,purple,brown,yellow,aqua,grey,magenta,pink,gold,rose"


_DARK = {"background": "black", "foreground": "white", "major": "white", "minor": "grey"}
_SOLARIZED = "268bd2aa,859900aa,dc322faa,d33682aa,db4b16aa,b58900aa,2aa198aa,6c71c4aa"
_RAMPS = {
    "ocean": "f7fcf0,e0f3db,ccebc5,a8ddb5,7bccc4,4eb3d3,2b8cbe,0868ac,084081",
    "forest": "f7fcf5,e5f5e0,c7e9c0,a1d99b,74c476,41ab5d,238b45,005a32",
    "sunset": "fff5eb,fee6ce,fdd0a2,fdae6b,fd8d3c,f16913,d94801,8c2d04",
    "moonlight": "fcfbfd,efedf5,dadaeb,bcbddc,9e9ac8,807dba,6a51a3,4a1486",
    "lava": "fff5f0,fee0d2,fcbba1,fc9272,fb6a4a,ef3b2c,cb181d,99000d",
}


def _reversed(colors: str) -> str:
    return ",".join(reversed(colors.split(",")))


TEMPLATES = {
    "default": Template(),
    "classic": Template(**_DARK),
    "noc": Template(
        **_DARK, lines="blue,green,red,yellow,purple,brown,aqua,grey,magenta,pink,gold,rose"
    ),
    "plain": Template(major="grey", minor="rose"),
    "summary": Template(background="black", foreground="white", lines="6666ff,66ff66,ff6666"),
    "alphas": Template(major="grey", minor="rose", lines="00ff00aa,ff000077,00337799"),
    "grafana": Template(
        lines="7eb26d,eab839,6ed0e0,ef843c,e24d42,1f78c1,ba43a9,705da0,508642,cca300,447ebc"
    ),
    "solarized-light": Template("fdf6e3", "657b83", "073642", "586e75", _SOLARIZED),
    "solarized-dark": Template("002b36", "839496", "fdf6e3", "eee8d5", _SOLARIZED),
    **{f"{name}1": Template(lines=ramp) for name, ramp in _RAMPS.items()},
    **{f"{name}2": Template(lines=_reversed(ramp)) for name, ramp in _RAMPS.items()},
}
