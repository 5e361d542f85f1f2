r"""The Graphite target language: text to a tree of frozen nodes.

    target   = primary *( "|" call )
    primary  = template | by_tag | call | path
    template = "template(" ( call | path ) *( "," literal ) *( "," name "=" literal ) ")"
    by_tag   = "seriesByTag(" string *( "," string ) ")"      kept as its raw text
    call     = name "(" [ arg *( "," arg ) ] ")"
    arg      = [ name "=" ] ( true | false | none | inf | number | string | target )
    number   = ["-"] digits ["." digits] ["e" ["-"] digits]
    string   = "'" chars "'" | '"' chars '"'                  a backslash keeps the quote, and stays
    path     = element *( "." element )
    element  = 1*( text | "{" text *( "," text ) "}" )        text: printable, see below

Text holds no ( ) { } , . ' " \ or | unless a backslash stands before it. Source of the rules:
graphite-web 1.1.10, whose grammar was asked by the conformance corpus. Decided knowingly:

- The whole text must parse. graphite-web takes the longest valid prefix and ignores the rest, so
  that ``scale(a.b,2`` reads a metric named ``scale`` and answers an empty list; here it is an error
  with its position.
- Keyword arguments need no positional one before them, and series in them are fetched
  (graphite-web reads ``f(x=1)`` as a metric ``f`` and never fetches series of keywords). A
  positional argument after a keyword is an error.
- ``a|f(2)`` is ``f(a,2)`` exactly; graphite-web loses a pipe when a function evaluates its
  argument again.
- Enumerations don't nest and hold no dots (graphite-web: an accident each); an error says so.
- A number as a whole target is a path, as there. A number, ``true``, ``none`` or ``inf`` before
  ``|`` is a path too.
- Non-ASCII characters are allowed in names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from tgres_py.errors import BadRequest, LimitExceeded, TargetSyntaxError

NESTING_MAX = 100  # for parsing, planning and carrying out, which are recursive; the setting is below
TARGET_CHARS_MAX = 65_536
KEPT_CHARS_MAX = 1_024  # the trees of longer targets aren't kept

Scalar = int | float | str | bool | None


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, string, boolean or none."""

    value: Scalar
    position: int = 0


@dataclass(frozen=True, slots=True)
class Path:
    """A path expression; backslashes are gone, wildcards and braces are kept."""

    text: str
    position: int = 0


@dataclass(frozen=True, slots=True)
class ByTag:
    """seriesByTag(…): ``text`` as written, which is the path expression of its series."""

    text: str
    expressions: tuple[str, ...]
    position: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    args: tuple[Node, ...]
    kwargs: tuple[tuple[str, Node], ...] = ()
    position: int = 0


@dataclass(frozen=True, slots=True)
class Template:
    body: Node
    values: tuple[tuple[str, Scalar], ...]
    position: int = 0


Node = Literal | Path | ByTag | Call | Template

_BLANK = re.compile(r"[ \t\r\n]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CALL = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)[ \t\r\n]*\(")
_KEYWORD = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)[ \t\r\n]*=")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE]-?\d+)?")
_STRING = re.compile(r"""'(?:[^'\\\r\n]|\\.)*'|"(?:[^"\\\r\n]|\\.)*\"""")
# str.isspace and control characters end a path; the rest of Unicode is text
_TEXT = re.compile(r"""(?:[^\s\x00-\x1f\x7f(){},.'"\\|]|\\[(){},.'"\\|=])+""")
_ESCAPE = re.compile(r"\\(.)")
_NUMERIC = re.compile(r"-?\d+(\.\d+)?")
_WORDS: Mapping[str, Scalar] = {"true": True, "false": False, "none": None, "inf": float("inf")}


class _Parser:
    """Recursive descent over one text; ``at`` is the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = self.deepest = 0

    def fail(self, message: str, position: int | None = None) -> TargetSyntaxError:
        shown = self.text if len(self.text) <= 200 else self.text[:200] + "…"
        return TargetSyntaxError(
            f"target {shown!r}: {message}", self.at if position is None else position
        )

    def skip(self) -> None:
        match = _BLANK.match(self.text, self.at)
        if match:
            self.at = match.end()

    def peek(self) -> str:
        self.skip()
        return self.text[self.at : self.at + 1]

    def expect(self, char: str, where: str) -> None:
        if self.peek() != char:
            found = self.peek()
            raise self.fail(
                f"expected {char!r} {where}, found {found!r}"
                if found
                else f"expected {char!r} {where}, the text ends"
            )
        self.at += 1

    def target(self) -> Node:
        """primary *( "|" call )"""
        self.depth += 1
        self.check_depth(self.depth)
        outside, self.deepest = self.deepest, self.depth
        node = self.primary()
        while self.peek() == "|":
            self.at += 1
            self.skip()
            if not _CALL.match(self.text, self.at):
                raise self.fail("a pipe must lead into a function call")
            call = self.call()
            if not isinstance(call, Call):
                raise self.fail("a pipe can't lead into template() or seriesByTag()")
            node = replace(call, args=(node, *call.args))
            self.deepest += 1  # all that stands before the pipe is now one level deeper
            self.check_depth(self.deepest)
        self.depth -= 1
        self.deepest = max(outside, self.deepest)
        return node

    def check_depth(self, depth: int) -> None:
        if depth > NESTING_MAX:
            raise self.fail(f"nested more than {NESTING_MAX} deep")

    def primary(self) -> Node:
        self.skip()
        if _CALL.match(self.text, self.at):
            return self.call()
        return self.path()

    def call(self) -> Node:
        start = self.at
        match = _CALL.match(self.text, start)
        assert match
        name = match.group(1)
        self.at = match.end()
        if name == "template":
            return self.template(start)
        args: list[Node] = []
        kwargs: list[tuple[str, Node]] = []
        if self.peek() == ")":
            self.at += 1
        else:
            self.arguments(args, kwargs)
        if name == "seriesByTag":
            return self.by_tag(start, args, kwargs)
        return Call(name, tuple(args), tuple(kwargs), start)

    def arguments(self, args: list[Node], kwargs: list[tuple[str, Node]]) -> None:
        while True:
            self.skip()
            position = self.at
            keyword = _KEYWORD.match(self.text, self.at)
            if keyword:
                if any(keyword.group(1) == seen for seen, _ in kwargs):
                    raise self.fail(f"argument {keyword.group(1)} is given twice")
                self.at = keyword.end()
                kwargs.append((keyword.group(1), self.argument()))
            elif kwargs:
                raise self.fail("a positional argument follows a keyword argument", position)
            else:
                args.append(self.argument())
            if self.peek() != ",":
                break
            self.at += 1
        self.expect(")", "or ',' after an argument")

    def argument(self) -> Node:
        self.skip()
        return self.literal() or self.target()

    def literal(self) -> Literal | None:
        """A literal if one stands here and an argument ends behind it, else None."""
        start = self.at
        string = _STRING.match(self.text, start)
        if string:
            self.at = string.end()
            return Literal(string.group()[1:-1], start)
        if self.text[start : start + 1] in ("'", '"') and start < len(self.text):
            raise self.fail("a string without an end")
        word = _TEXT.match(self.text, start)
        number = _NUMBER.match(self.text, start)
        if number and self.ends_argument(number.end()):
            self.at = number.end()
            is_int = number.group(1) is None and number.group(2) is None
            text = number.group()
            try:
                return Literal(int(text) if is_int else float(text), start)
            except ValueError:
                raise self.fail("a number with too many digits", start) from None
        if word and word.group().lower() in _WORDS and self.ends_argument(word.end()):
            self.at = word.end()
            return Literal(_WORDS[word.group().lower()], start)
        return None

    def ends_argument(self, at: int) -> bool:
        match = _BLANK.match(self.text, at)
        end = match.end() if match else at
        return self.text[end : end + 1] in ("", ",", ")")

    def path(self) -> Path:
        start = self.at
        parts = [self.element()]
        while self.text[self.at : self.at + 1] == ".":
            self.at += 1
            parts.append(self.element())
        return Path(".".join(parts), start)

    def element(self) -> str:
        out: list[str] = []
        while True:
            text = _TEXT.match(self.text, self.at)
            if text:
                self.at = text.end()
                out.append(_ESCAPE.sub(r"\1", text.group()))
            elif self.text[self.at : self.at + 1] == "{":
                out.append(self.enumeration())
            elif out:
                return "".join(out)
            else:
                found = self.text[self.at : self.at + 1]
                raise self.fail(
                    f"expected a metric, function or value, found {found!r}"
                    if found
                    else "expected a metric, function or value, the text ends"
                )

    def enumeration(self) -> str:
        """{a,b}: no dots, no braces inside, no empty member."""
        out: list[str] = []
        self.at += 1
        while True:
            self.skip()
            text = _TEXT.match(self.text, self.at)
            if not text:
                raise self.fail("expected text in { }: no dots, no nesting, no empty member")
            self.at = text.end()
            out.append(_ESCAPE.sub(r"\1", text.group()))
            if self.peek() != ",":
                break
            self.at += 1
        self.expect("}", "or ',' in an enumeration")
        return "{" + ",".join(out) + "}"

    def template(self, start: int) -> Template:
        self.skip()
        body = self.primary()
        values: list[tuple[str, Scalar]] = []
        positional = 0
        while self.peek() == ",":
            self.at += 1
            self.skip()
            keyword = _KEYWORD.match(self.text, self.at)
            if keyword:
                self.at = keyword.end()
                name = keyword.group(1)
            else:
                positional += 1
                name = str(positional)
            self.skip()
            literal = self.literal()
            if literal is None or isinstance(literal.value, bool) or literal.value is None:
                raise self.fail("template() takes only numbers and strings")
            values.append((name, literal.value))
        self.expect(")", "or ',' in template()")
        return Template(body, tuple(values), start)

    def by_tag(self, start: int, args: list[Node], kwargs: list[tuple[str, Node]]) -> ByTag:
        expressions: list[str] = []
        for arg in args:
            if not isinstance(arg, Literal) or not isinstance(arg.value, str):
                raise self.fail("seriesByTag() takes only strings", arg.position)
            expressions.append(arg.value)
        if kwargs or not expressions:
            raise self.fail("seriesByTag() takes one tag expression or more", start)
        return ByTag(self.text[start : self.at], tuple(expressions), start)


def parse_target(text: str, nesting_max: int = NESTING_MAX) -> Node:
    """The tree of a target. TargetSyntaxError names the position of the first character that
    doesn't fit; LimitExceeded: functions in functions beyond ``nesting_max``.
    """
    if len(text) > TARGET_CHARS_MAX:
        raise BadRequest(f"target: {len(text)} characters are more than {TARGET_CHARS_MAX}")
    node, depth = _parse_kept(text) if len(text) <= KEPT_CHARS_MAX else _parse(text)
    if depth > nesting_max:
        raise LimitExceeded("levels of a target", depth, nesting_max, "query_nesting_max")
    return node


def _parse(text: str) -> tuple[Node, int]:
    """The tree, and how deep it is nested."""
    parser = _Parser(text)
    node = parser.target()
    if parser.peek():
        raise parser.fail(f"unexpected {parser.peek()!r} after the end of the expression")
    return node, parser.deepest


# a dashboard asks the same targets each time it is refreshed; trees are frozen, so all may share them
_parse_kept = lru_cache(maxsize=4_096)(_parse)


def resolve_templates(node: Node, overrides: Mapping[str, str] | None = None) -> Node:
    """The tree with every template() replaced by its body, in which $name stands for its value.

    ``overrides``: the request's template[name] parameters, which go before the call's own values. A
    path that is exactly ``$name`` becomes the value itself, a text that is a number becomes a float
    (as graphite-web).
    """
    return _Resolver(overrides or {}).resolve(node, {})


class _Resolver:
    """One target's templates. Its paths may be as long together as a written target: values hold names of other values, and
    a few hundred characters can stand for gigabytes.
    """

    def __init__(self, overrides: Mapping[str, str]) -> None:
        self.overrides = overrides
        self.chars_left = TARGET_CHARS_MAX

    def resolve(self, node: Node, values: Mapping[str, Scalar]) -> Node:
        match node:
            case Template(body, own):
                return self.resolve(body, {**dict(own), **self.overrides})
            case Path(text, position) if values:
                return self.substitute(text, position, values)
            case Call(name, args, kwargs, position):
                return Call(
                    name,
                    tuple(self.resolve(arg, values) for arg in args),
                    tuple((key, self.resolve(arg, values)) for key, arg in kwargs),
                    position,
                )
            case _:
                return node

    def substitute(self, text: str, position: int, values: Mapping[str, Scalar]) -> Node:
        if text.startswith("$") and text[1:] in values:
            value = values[text[1:]]
            if isinstance(value, str) and _NUMERIC.fullmatch(value):
                value = float(value)
            return Literal(value, position)
        # longest names first: $hostname must not be read as $host
        for name in sorted(values, key=len, reverse=True):
            shown = str(values[name])
            self.take(text.count("$" + name) * len(shown))
            text = text.replace("$" + name, shown)
        return Path(text, position)

    def take(self, chars: int) -> None:
        self.chars_left -= chars
        if self.chars_left < 0:
            raise BadRequest(
                f"target: with the values of its template it has more than {TARGET_CHARS_MAX} characters"
            )


def first_path(name: str) -> str:
    """The path inside a series name that looks like a call: ``scale(a.b,2)`` gives ``a.b``.

    The first argument of each call is followed down (as graphite-web's aliasByNode); a name that
    leads to no path (to seriesByTag, to a number) is given back as it is. Names that don't parse (an alias may be any text) are
    read up to the first character that no path has.
    """
    try:
        node: Node | None = parse_target(name)
    except BadRequest:
        match = _TEXT.match(name)
        dotted = re.match(r"""[^\s(){},'"\\|]+""", name)
        return dotted.group() if match and dotted else name
    while isinstance(node, Call | Template):
        node = node.body if isinstance(node, Template) else next(iter(node.args), None)
    return node.text if isinstance(node, Path) else name
