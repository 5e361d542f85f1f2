"""Several worker processes that share the files of one import."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import asdict

from tgres_py.errors import ConfigError, StoreUnavailable
from tgres_py.migrate.files import Found
from tgres_py.migrate.load import Options, Report

LINE_BYTES_MAX = 64 << 20
END_TIMEOUT_S = 5.0


class WorkerFailed(ConfigError):
    """A worker process ended by itself."""


async def load_files(
    dsn: str, timeout_s: float, options: Options, parts: Iterable[list[Found]], jobs: int
) -> AsyncIterator[tuple[int, Report]]:
    """Imports the parts in ``jobs`` processes: (files of the part, what became of them), as they are done.

    StoreUnavailable when PostgreSQL is away: what was finished is remembered.
    """
    waiting = iter(parts)
    done: asyncio.Queue[tuple[int, Report] | Exception | None] = asyncio.Queue()
    head = {"dsn": dsn, "timeout_s": timeout_s, "options": asdict(options)}

    async def work() -> None:
        try:
            async for result in _one(head, waiting):
                done.put_nowait(result)
            done.put_nowait(None)
        except Exception as error:
            done.put_nowait(error)

    tasks = [asyncio.create_task(work(), name=f"import-{i}") for i in range(jobs)]
    try:
        running = jobs
        while running:
            result = await done.get()
            if isinstance(result, Exception):
                raise result
            if result is None:
                running -= 1
            else:
                yield result
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _one(head: object, waiting: Iterable[list[Found]]) -> AsyncIterator[tuple[int, Report]]:
    """One process, which takes parts as long as there are any."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tgres_py.migrate.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(head).encode() + b"\n")
        for part in waiting:
            process.stdin.write(json.dumps(part).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
            if not line:
                raise WorkerFailed(f"a worker process ended with code {await process.wait()}")
            answer = json.loads(line)
            if "error" in answer:
                raise (StoreUnavailable if answer["unavailable"] else ConfigError)(answer["error"])
            yield len(part), Report.from_data(answer)
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
