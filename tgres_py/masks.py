"""Addresses without their secrets, for logs, errors and people."""

from __future__ import annotations

import re


def masked(address: str) -> str:
    """A URL or a DSN whose passwords are ``***``. What might belong to a password counts as such: written as it is, one may
    hold any character.
    """
    address = re.sub(r"(://[^/?#]*?:).*(@)", r"\1***\2", address)
    return re.sub(r"(?i)(password=)('[^']*'|[^\s&]*)", r"\1***", address)
