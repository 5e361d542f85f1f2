"""How many connections there are places for: as many as the settings say, if the system gives that many open files.

A connection is an open file, and so are the journal's segments and the connections to PostgreSQL. Senders that leave connections
open must not take the files that those need: OWN_FILES are kept back, the rest is shared.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass

OWN_FILES = (
    128  # journal, PostgreSQL, listeners, libraries that are loaded late, workers of queries
)
HTTP_SHARE = 0.25  # of the files, where there are too few for all


@dataclass(frozen=True, slots=True)
class Places:
    """Connections that may be open: of all TCP receivers together, and of HTTP. ``files``: that may be open at all."""

    tcp: int
    http: int
    files: int

    @property
    def missing(self) -> int:
        """By how much the limit of open files is too low for what was asked for; 0: it isn't."""
        return max(0, self.tcp + self.http + OWN_FILES - self.files)


def places(asked: Places) -> Places:
    """What of it there is: all, or the receivers' and HTTP's shares of the files. At least one of each."""
    if not asked.missing:
        return asked
    # with very few files half of them are the connections'
    free = max(asked.files - OWN_FILES, asked.files // 2)
    http = min(asked.http, int(free * HTTP_SHARE))
    tcp = min(asked.tcp, free - http)
    return Places(max(1, tcp), max(1, min(asked.http, free - tcp)), asked.files)


def raise_open_files() -> int:
    """Raises this process's limit of open files as far as it may by itself; what may be open then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS takes no unlimited
        hard = soft
    return 1 << 30 if hard == resource.RLIM_INFINITY else hard
