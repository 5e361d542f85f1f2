"""Brings the schema up to date: numbered files under sql/, each applied once, in order, in a transaction of its own.

Several servers may start at once, and one may die half-way: each step holds an advisory lock of the
transaction, so that nothing is left behind but whole steps.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import NamedTuple

import asyncpg

from tgres_py.errors import ConfigError

ADVISORY_LOCK = 0x7467726573  # "tgres"
STEP_TIMEOUT_S = 3_600.0  # an ALTER of a large table, or somebody else's, may take much longer than a statement

_FILE = re.compile(r"(\d{3})_\w+\.sql")


class Migration(NamedTuple):
    version: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """All migrations of this program, in order."""
    folder = resources.files("tgres_py.storage") / "sql"
    found = [
        Migration(int(match[1]), file.name, file.read_text("utf-8"))
        for file in folder.iterdir()
        if (match := _FILE.fullmatch(file.name))
    ]
    return sorted(found)


async def migrate(connection: asyncpg.Connection, steps: list[Migration] | None = None) -> int:
    """Applies what is missing; returns the schema's version.

    ConfigError when the schema is newer than this program knows. Errors of PostgreSQL pass through.
    """
    known = migrations() if steps is None else steps
    while True:
        async with connection.transaction():
            await connection.execute(
                "SELECT pg_advisory_xact_lock($1)", ADVISORY_LOCK, timeout=STEP_TIMEOUT_S
            )
            version = await _version(connection)
            _refuse_newer(version, known[-1].version)
            step = next((step for step in known if step.version > version), None)
            if step is None:
                return version
            await connection.execute(step.sql, timeout=STEP_TIMEOUT_S)
            await connection.execute(
                "INSERT INTO schema_version (version, name) VALUES ($1, $2)",
                step.version,
                step.name,
                timeout=STEP_TIMEOUT_S,
            )


async def _version(connection: asyncpg.Connection) -> int:
    """The highest step applied; 0 for an empty database."""
    if await connection.fetchval("SELECT to_regclass('schema_version')") is None:
        await connection.execute(
            "CREATE TABLE schema_version (version int PRIMARY KEY, name text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
    version = await connection.fetchval("SELECT max(version) FROM schema_version")
    return int(version or 0)


def _refuse_newer(version: int, known: int) -> None:
    if version > known:
        raise ConfigError(
            f"the database's schema has version {version}, this tgres knows {known}: "
            "install the tgres that made it, or a newer one"
        )
