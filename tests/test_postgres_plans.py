"""EXPLAIN of the hot statements: they go by the primary key, on tables large enough to tempt the planner."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.test_store_conformance import chunk
from tgres_py.storage.postgres import PostgresStore
from tgres_py.storage.queries import query

SERIES = 300
# width 20: chunks of 200 s and of 1,200 s
_FILL = f"""
INSERT INTO rrd_bundle (retention, cf, xff, on_duplicate, steps_s, sizes, widths)
VALUES ('10s:1h,1m:6h', 'average', 0.5, 'last', '{{10,60}}', '{{360,360}}', '{{20,20}}');
INSERT INTO rrd (name, bundle_id) SELECT 'servers.web' || i || '.cpu', 1
FROM generate_series(1, 20 * {SERIES}) i;
WITH archive AS (
    SELECT a.number - 1 AS number, a.step_s * a.width AS chunk_s, a.size / a.width + 1 AS chunks,
           floor(extract(epoch FROM now()))::bigint / (a.step_s * a.width) AS latest
    FROM rrd_bundle, unnest(steps_s, sizes, widths) WITH ORDINALITY AS a (step_s, size, width, number)
)
INSERT INTO ts (rrd_id, archive, n, start_s, dp)
SELECT i, number, c % chunks, c * chunk_s, array_fill(i::float8, ARRAY[20])
FROM generate_series(1, {SERIES}) i, archive, generate_series(latest - chunks + 1, latest) c;
ANALYZE rrd; ANALYZE rrd_bundle; ANALYZE ts;
"""


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    await connection.execute(_FILL)
    yield connection
    await connection.close()


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """All nodes of a plan, top first."""
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes(child))]


async def explain(
    connection: asyncpg.Connection, sql: str, *, analyze: bool = False
) -> list[dict[str, Any]]:
    text = await connection.fetchval(f"EXPLAIN (FORMAT json, ANALYZE {analyze}) {sql}")
    return nodes(json.loads(text)[0]["Plan"])


def scan_of(plan: list[dict[str, Any]], table: str) -> dict[str, Any]:
    """The only node that reads ``table``."""
    [found] = [node for node in plan if node.get("Relation Name") == table]
    return found


def with_values(sql: str, *values: str) -> str:
    """``sql`` with $1 … replaced by literals."""
    for number, value in reversed(list(enumerate(values, 1))):
        sql = sql.replace(f"${number}", value)
    return sql


@pytest.mark.parametrize("ids", ["'{7}'", "(SELECT array_agg(i) FROM generate_series(1, 100) i)"])
@pytest.mark.parametrize("name", ["read_chunks", "read_chunks_of_ring"])
async def test_chunks_are_read_by_the_primary_key(
    connection: asyncpg.Connection, name: str, ids: str
) -> None:
    sql = with_values(query(name), ids, "0", "0", "99999999999", "1", "2")
    plan = await explain(connection, sql, analyze=True)
    scan = scan_of(plan, "ts")
    condition = scan["Index Cond"] if "Index Cond" in scan else scan["Plans"][0]["Index Cond"]
    assert "rrd_id = ANY" in condition and "archive = " in condition
    if name == "read_chunks_of_ring":
        assert "n >= 1" in condition and "n <= 2" in condition


async def test_the_upsert_meets_rows_by_the_primary_key(postgres_store: PostgresStore) -> None:
    await postgres_store.write_chunks([chunk(1, 0, 0, [1, 2, 3, 4])])
    async with postgres_store._writer.use() as connection:
        plan = await explain(connection, query("upsert_stage").replace("$1", "0"))
    assert plan[0]["Conflict Arbiter Indexes"] == ["ts_pkey"]
    assert plan[-1]["Relation Name"] == "tgres_stage"  # and no sort: COPY came in order


NAME = "name = 'servers.web7.cpu'"
RECENT = "time > now() - interval '10 minutes'"


async def test_tv_reads_only_the_chunks_of_the_window(connection: asyncpg.Connection) -> None:
    plan = await explain(
        connection, f"SELECT time, value FROM tv WHERE {NAME} AND {RECENT}", analyze=True
    )
    scan = scan_of(plan, "ts")
    assert scan["Index Name"] == "ts_pkey"
    for column in ("rrd_id", "archive", "n"):
        assert f"({column} = " in scan["Index Cond"]
    # 10 minutes touch at most 4 chunks of 200 s and 2 of 20 minutes, of 19 + 19
    assert 1 <= scan["Actual Loops"] <= 6
    assert plan[0]["Actual Rows"] >= 60


async def test_tv_finds_the_series_by_its_name(connection: asyncpg.Connection) -> None:
    plan = await explain(connection, f"SELECT time, value FROM tv WHERE {NAME} AND {RECENT}")
    assert scan_of(plan, "rrd")["Index Name"] == "rrd_name_key"


async def test_tv_of_one_step_makes_no_slots_of_others(connection: asyncpg.Connection) -> None:
    sql = f"SELECT time, value FROM tv WHERE {NAME} AND step_s = 60 AND {RECENT}"
    plan = await explain(connection, sql, analyze=True)
    [slots] = [node for node in plan if node["Node Type"] == "ProjectSet"]
    assert (slots["Actual Loops"], slots["Actual Rows"]) == (1, 360)
    assert 1 <= scan_of(plan, "ts")["Actual Loops"] <= 2


async def test_tv_of_a_prefix_goes_by_the_keys_too(connection: asyncpg.Connection) -> None:
    sql = (
        f"SELECT avg(value) FROM tv WHERE name LIKE 'servers.web12_.%' AND step_s = 10 AND {RECENT}"
    )
    plan = await explain(connection, sql, analyze=True)
    assert scan_of(plan, "ts")["Index Name"] == "ts_pkey"
    assert scan_of(plan, "ts")["Actual Loops"] <= 4 * 10
