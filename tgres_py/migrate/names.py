"""From the path of a whisper file to the name of its series, and back.

Plain:  servers/web1/cpu.wsp                         <-> servers.web1.cpu
Tagged: _tagged/1ab/2cd/disk_DOT_used;host=a.wsp     <-> disk.used;host=a
The two folders are the first hex digits of the name's SHA-256; dots of the name stand as _DOT_ (or, with carbon's
setting TAG_HASH_FILENAMES, the file is named by the whole hash and its name can't be known from it).
Rules: carbon 1.1.10, ``TaggedSeries.encode``.
"""

from __future__ import annotations

import hashlib
import re

from tgres_py.model.ident import NAME_BYTES_MAX, NameRefused, canonical

SUFFIX = ".wsp"
TAGGED = "_tagged"
DOT = "_DOT_"

_HASH = re.compile(r"[0-9a-f]{64}")


def name_of_path(path: str, prefix: str = "", name_bytes_max: int = NAME_BYTES_MAX) -> str:
    """The canonical name of the file at ``path``, relative to the root, with ``/`` between folders.

    ``prefix``: put before it with a dot, unless it is empty. NameRefused when no series can have the name.
    """
    parts = path.removesuffix(SUFFIX).split("/")
    if parts[0] == TAGGED:
        if _HASH.fullmatch(parts[-1]):
            raise NameRefused(
                "the file is named by a hash (TAG_HASH_FILENAMES): its name is unknown"
            )
        name = parts[-1].replace(DOT, ".")
    else:
        name = ".".join(parts)
    lead = prefix.strip(".")
    return canonical(f"{lead}.{name}" if lead else name, name_bytes_max)


def path_of_name(name: str) -> str:
    """Where carbon keeps the series, relative to the root of its files.

    NameRefused when the name is no path below the root.
    """
    if ";" in name:
        digest = hashlib.sha256(name.encode()).hexdigest()
        path = f"{TAGGED}/{digest[:3]}/{digest[3:6]}/{name.replace('.', DOT)}"
    else:
        path = name.replace(".", "/")
    if "/" in name or "\0" in name:
        raise NameRefused(f"{name!a} holds a slash: no file can be named so")
    return path + SUFFIX
