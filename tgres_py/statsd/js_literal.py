"""Reads the literal object of a JavaScript file; nothing is run.

    file    = [ name "=" ] object [ ";" ]           comments and blanks anywhere
    object  = "{" [ key ":" value { "," key ":" value } [ "," ] ] "}"
    array   = "[" [ value { "," value } [ "," ] ] "]"
    value   = object | array | text in ' " or ` | number | true | false | null | undefined

Any other value (a call, a sum, a variable) is an ``Expression``: its text is kept, to be told to the user.
Source: ECMA-262 (StringLiteral, NumericLiteral), and that etsy's statsd evaluates ``config = `` + its file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tgres_py.errors import ConfigError

TEXT_CHARS_MAX = 1_048_576
DEPTH_MAX = 32

_BLANK = re.compile(r"(?:[\s\ufeff]+|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_$][\w$]*")
_NUMBER = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|Infinity)"
)
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}|(\r\n|.))", re.DOTALL
)
_PLAIN_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "undefined": None}
_CLOSES = {"{": "}", "[": "]", "(": ")"}


@dataclass(frozen=True, slots=True)
class Expression:
    """A value that isn't a literal; ``line`` counts from 1."""

    text: str
    line: int


def read_object(text: str) -> dict[str, Any]:
    """The object that the file consists of. ConfigError with the line where it isn't one."""
    if len(text) > TEXT_CHARS_MAX:
        raise ConfigError(f"the file is longer than {TEXT_CHARS_MAX} characters")
    reader = _Reader(text)
    reader.skip()
    if head := re.compile(r"(?:(?:var|let|const)\s+)?[\w$.]+\s*=(?!=)").match(text, reader.at):
        reader.at = head.end()
        reader.skip()
    if not reader.sees("{"):
        raise reader.error("an object, {…}, is wanted")
    value = reader.object(0)
    reader.skip()
    while reader.sees(";"):
        reader.at += 1
        reader.skip()
    if reader.at < len(text):
        raise reader.error("nothing is wanted behind the object")
    return value


class _Reader:
    """A position in the text; every method leaves it behind what it read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def error(self, what: str, at: int | None = None) -> ConfigError:
        return ConfigError(f"line {self.line(self.at if at is None else at)}: {what}")

    def line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    def sees(self, sign: str) -> bool:
        return self.text.startswith(sign, self.at)

    def skip(self) -> None:
        if match := _BLANK.match(self.text, self.at):
            self.at = match.end()

    def object(self, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        self.at += 1
        self.skip()
        while not self.sees("}"):
            key = self.key()
            self.skip()
            if not self.sees(":"):
                raise self.error(f"a colon is wanted behind {key}")
            self.at += 1
            members[key] = self.value("}", depth)
            self.end_of_member("}")
        self.at += 1
        return members

    def array(self, depth: int) -> list[Any]:
        items: list[Any] = []
        self.at += 1
        self.skip()
        while not self.sees("]"):
            items.append(self.value("]", depth))
            self.end_of_member("]")
        self.at += 1
        return items

    def end_of_member(self, closing: str) -> None:
        self.skip()
        if self.sees(","):
            self.at += 1
            self.skip()
        elif not self.sees(closing):
            raise self.error(f"a comma or {closing} is wanted")

    def key(self) -> str:
        if self.text[self.at : self.at + 1] in ("'", '"'):
            return self.quoted()
        match = _WORD.match(self.text, self.at) or re.compile(r"\d+").match(self.text, self.at)
        if match is None:
            raise self.error("a name is wanted")
        self.at = match.end()
        return match[0]

    def value(self, closing: str, depth: int) -> Any:
        """The next value; an Expression if what stands before the next comma or bracket is no literal."""
        if depth >= DEPTH_MAX:
            raise self.error(f"more than {DEPTH_MAX} levels")
        self.skip()
        begin = self.at
        value = self.literal(depth)
        self.skip()
        if not isinstance(value, Expression) and (self.sees(",") or self.sees(closing)):
            return value
        self.at = begin
        return self.expression(closing)

    def literal(self, depth: int) -> Any:
        sign = self.text[self.at : self.at + 1]
        if sign == "{":
            return self.object(depth + 1)
        if sign == "[":
            return self.array(depth + 1)
        if sign and sign in "'\"`":
            return self.quoted()
        if match := _NUMBER.match(self.text, self.at):
            self.at = match.end()
            return _number(match[0])
        match = _WORD.match(self.text, self.at)
        if match and match[0] in _WORDS:
            self.at = match.end()
            return _WORDS[match[0]]
        return Expression("", 0)

    def quoted(self) -> str:
        """A text in quotes. A template with ``${`` in it comes back as it stands, see ``expression``."""
        begin, quote = self.at, self.text[self.at]
        match = re.compile(rf"{quote}((?:[^{quote}\\]|\\.)*){quote}", re.DOTALL).match(
            self.text, begin
        )
        if match is None or (quote != "`" and re.search(r"(?<!\\)\n", match[1])):
            raise self.error("a text without its closing quote", begin)
        self.at = match.end()
        if quote == "`" and "${" in match[1]:
            self.at = begin  # what follows is no comma, so it is read as an expression
            return ""
        plain = _ESCAPE.sub(_unescape, match[1])
        return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def expression(self, closing: str) -> Expression:
        """What stands up to the next comma or bracket that is on the same level."""
        begin = self.at
        open_brackets: list[str] = []
        while self.at < len(self.text):
            sign = self.text[self.at]
            if sign in "'\"":
                self.quoted()
                continue
            if sign == "`":
                self.at = self.text.find("`", self.at + 1)
                if self.at < 0:
                    break
            elif not open_brackets and sign in (",", closing):
                text = " ".join(self.text[begin : self.at].split())
                if not text:
                    raise self.error("a value is wanted")
                return Expression(text, self.line(begin))
            elif sign in _CLOSES:
                open_brackets.append(_CLOSES[sign])
            elif open_brackets and sign == open_brackets[-1]:
                open_brackets.pop()
            self.at += 1
        raise self.error("this value has no end", begin)


def _number(text: str) -> int | float:
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    if digits == "Infinity":
        return sign * float("inf")
    if digits[:2].lower() in ("0x", "0o", "0b"):
        return sign * int(digits, 0)
    if re.fullmatch(r"0[0-7]+", digits):
        return sign * int(digits, 8)
    number = float(digits)
    return sign * (int(number) if number.is_integer() and abs(number) < 2**53 else number)


def _unescape(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    if code:
        return chr(min(int(code, 16), 0x10FFFF))
    sign = match[4]
    return "" if sign in ("\n", "\r\n") else _PLAIN_ESCAPES.get(sign, sign)
