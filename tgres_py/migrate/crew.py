"""Several worker processes that share the files of one import."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from tgres_py.errors import ConfigError, StoreUnavailable
from tgres_py.migrate.files import Found
from tgres_py.migrate.load import Options, Report

LINE_BYTES_MAX = 64 << 20
END_TIMEOUT_S = 5.0


class WorkerFailed(ConfigError):
    """A worker process ended by itself."""


@dataclass(frozen=True, slots=True)
class Crew:
    """How many processes, what they connect to, and which arguments ``config.load`` has for the rules of new
    series (None: files' own archives)."""

    dsn: str
    timeout_s: float
    jobs: int
    rules: tuple[str | None, dict[str, Any]] | None = None


async def load_files(
    crew: Crew, options: Options, parts: Iterable[list[Found]]
) -> AsyncIterator[tuple[int, Report]]:
    """Imports (or compares) the parts: (files of the part, what became of them), as they are done.

    StoreUnavailable when PostgreSQL is away: what was finished is remembered.
    """
    waiting = iter(parts)
    done: asyncio.Queue[tuple[int, Report] | Exception | None] = asyncio.Queue()
    head = {
        "dsn": crew.dsn,
        "timeout_s": crew.timeout_s,
        "options": asdict(options),
        "rules": crew.rules,
    }

    async def work() -> None:
        try:
            async for result in _one(head, waiting):
                done.put_nowait(result)
            done.put_nowait(None)
        except Exception as error:
            done.put_nowait(error)

    tasks = [asyncio.create_task(work(), name=f"import-{i}") for i in range(crew.jobs)]
    try:
        running = crew.jobs
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
        start_new_session=True,  # Ctrl-C is for the parent; the end of its input ends a worker
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
