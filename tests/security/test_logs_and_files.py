"""What others sent makes no lines of its own in the log, and what the server writes is the server's alone."""

from __future__ import annotations

import logging
import os
import stat
import sys
from pathlib import Path

import pytest

from tests.acceptance.process import ServerProcess
from tests.security.test_doors import http, raw
from tgres_py.cli.serve import OneLine

FALSE_LINE = "a\n2026-01-01 00:00:00,000 ERROR tgres: all is lost\r\x1b[2J\u202e\x85\ud800b"


def formatted(message: str, error: BaseException | None = None) -> str:
    info = (type(error), error, None) if error else None
    record = logging.LogRecord("tgres", logging.INFO, "", 0, "%s", (message,), info)
    return OneLine("%(levelname)s %(message)s").format(record)


def test_a_message_is_one_line_that_no_terminal_obeys() -> None:
    assert formatted(FALSE_LINE) == (
        "INFO a\\n2026-01-01 00:00:00,000 ERROR tgres: all is lost\\r\\x1b[2J\\u202e\\x85\\ud800b"
    )
    assert formatted("Füße, 名前") == "INFO Füße, 名前"


def test_a_traceback_makes_no_line_that_looks_like_a_message() -> None:
    first, *others = formatted("it failed", ValueError(FALSE_LINE)).split("\n")
    assert first == "INFO it failed"
    assert others and all(line.startswith("  ") and line.isprintable() for line in others)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /render HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /render HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"POST /render HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /render HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /render HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST /render HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /render HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nabcde",
        b"POST /render HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        b"POST /render HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"\x1b[2J\n2026-01-01 ERROR false\r\n\r\n",
    ],
)
async def test_heads_with_two_meanings_end_the_connection_and_fill_no_log(
    head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a proxy and this server might see different requests in one stream (request smuggling)."""
    caplog.set_level(logging.INFO)
    async with http() as listener:
        answer = await raw(listener, head + b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.0 400 ")
        assert answer.count(b"HTTP/1.") == 1, "what follows is not read"
        assert listener.counts.malformed == 1
    assert not [record for record in caplog.records if record.name == "tgres.http"]


@pytest.mark.skipif(sys.platform == "win32", reason="files have no modes there")
def test_files_are_readable_by_the_server_only(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        server = ServerProcess(tmp_path, runs_initdb=True)
        server.start()
    finally:
        os.umask(umask)
    try:
        server.send("a.b 1 1\n")
        files = [path for name in ("journal", "pg") for path in (server.data / name).iterdir()]
        files += [server.data / name for name in ("journal", "pg", "pg.log", "pg.lock")]
        assert len(files) > 10
        for path in files:
            mode = stat.S_IMODE(path.stat().st_mode)
            # a socket's file has its directory's protection, too
            assert mode & 0o077 == 0, f"{path}: {mode:o}"
    finally:
        server.close()
