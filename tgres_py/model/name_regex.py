"""A regular expression over whole names: RE2's syntax, matched in linear time.

It is found anywhere in a name, as ``grep`` does; ``^`` and ``$`` are the name's ends. In what it is replaced by,
``\\1`` … ``\\9`` are its groups, ``\\0`` is all that was found and ``\\\\`` a backslash.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import re2  # type: ignore[import-untyped]  # it comes without types
from numpy.typing import NDArray

from tgres_py.errors import BadRequest

MEMORY_BYTES = 8 << 20
PATTERN_CHARS_MAX = 16_384

_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)


class NameRegex:
    """BadRequest: RE2 can't compile it."""

    def __init__(self, text: str) -> None:
        if len(text) > PATTERN_CHARS_MAX:
            raise BadRequest(f"a regular expression of {len(text)} characters is too long")
        options = re2.Options()
        options.max_mem = MEMORY_BYTES
        options.log_errors = False
        try:
            self._compiled = re2.compile(text, options)
        except re2.error as error:
            reason = error.args[0] if error.args else "not understood"
            reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason
            raise BadRequest(f"regular expression {text!r}: {reason}") from None
        self.text = text

    def found_in(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """In which names it is found: bool (n,)."""
        search = self._compiled.search
        return np.fromiter((search(name) is not None for name in names), np.bool_, len(names))

    def replaced(self, name: str, replacement: str) -> str:
        """The name with its first match replaced. BadRequest: a group that isn't there, a stray backslash."""
        match = self._compiled.search(name)
        if match is None:
            return name

        def expand(escape: re.Match[str]) -> str:
            text = escape[1]
            if text == "\\":
                return text
            if not text.isdigit() or int(text) > self._compiled.groups:
                raise BadRequest(f"replacement {replacement!r}: there is no group {escape[0]}")
            return match[int(text)] or ""

        return name[: match.start()] + _ESCAPE.sub(expand, replacement) + name[match.end() :]
