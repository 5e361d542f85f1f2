"""`retention.*` on the store alone: what a plan says, and jobs from beginning to end; what a change means, in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tgres_py import clock
from tgres_py.admin.frame import Admin, Row, find_verb, is_result
from tgres_py.admin.retention import _conflicts
from tgres_py.admin.select import Series
from tgres_py.config import Settings
from tgres_py.errors import BadRequest
from tgres_py.ingest.rows import rows_of_block
from tgres_py.model.retention import BundleSpec, Cf, OnDuplicate, make_bundle, parse_retention
from tgres_py.model.retention_change import Held, bytes_after, change_of, describe_spec, differs
from tgres_py.storage.postgres import PostgresStore

OLD = make_bundle(parse_retention("10s:1h,1m:1d"))
RULES = """
[web]
pattern = ^web
retentions = 10s:30m,1m:2d,10m:30d

[all]
pattern = .*
retentions = 10s:1h,1m:1d
"""


async def filled(store: PostgresStore, spec: BundleSpec = OLD) -> None:
    """web.a, web.b, db.c: the last hour of the finest archive is known."""
    [bundle] = await store.ensure_bundles([spec])
    ids, _ = await store.create_series(["web.a", "web.b", "db.c"], np.full(3, bundle, np.int32))
    last = clock.now_s() // 10
    block = np.arange(350 * 3, dtype=np.float64).reshape(350, 3)
    await store.write_chunks(list(rows_of_block(0, spec.archives[0], ids, last - 349, block)))


async def run(store: PostgresStore, verb: str, **given: Any) -> list[Row]:
    admin = Admin(store, None, Settings())
    return [
        row async for row in find_verb(f"retention.{verb}").start(admin, given) if is_result(row)
    ]


async def test_a_job_from_plan_to_forget(postgres_store: PostgresStore) -> None:
    await filled(postgres_store)
    [row] = await run(postgres_store, "plan", schemas=RULES)
    assert row["series"] == 2 and row["names"] == ["web.a", "web.b"]
    assert row["from"] == "10s:1h,1m:1d average 0.5"
    assert row["to"] == "10s:30m,1m:2d,10m:30d average 0.5"
    assert row["lost"] == ["10s:1h now 30m"]
    assert row["gained"] == ["1m:1d now 2d", "10m:30d new"]
    assert 250 <= row["slots_lost"] <= 2 * 180
    assert row["slots_gained"] == 2 * (1440 + 4320)
    assert 0 < row["now_bytes"] < row["full_now_bytes"] < row["full_then_bytes"]
    assert await run(postgres_store, "plan", schemas=RULES, glob=["db.*"]) == []

    [job] = await run(postgres_store, "apply", schemas=RULES)
    assert (job["state"], job["series"], job["moved"]) == ("done", 2, 2)
    assert await run(postgres_store, "plan", schemas=RULES) == []
    rows = await postgres_store.load_series()
    specs = dict(await postgres_store.load_bundles())
    changed = [
        name for name, b in zip(rows.names, rows.bundle_id.tolist(), strict=True) if specs[b] != OLD
    ]
    assert sorted(changed) == ["web.a", "web.b"]

    [job] = await run(postgres_store, "undo", job=job["job"])
    assert (job["state"], job["moved"], job["undone"]) == ("undone", 0, 2)
    assert len(await run(postgres_store, "plan", schemas=RULES)) == 1
    with pytest.raises(BadRequest, match="only what is done"):
        await run(postgres_store, "forget", job=job["job"])

    [job] = await run(postgres_store, "apply", schemas=RULES, rate=1000)
    [job] = await run(postgres_store, "forget", job=job["job"])
    assert (job["state"], job["moved"], job["undone"]) == ("forgotten", 2, 0) and not job["undo"]
    with pytest.raises(BadRequest, match="nothing left to undo"):
        await run(postgres_store, "undo", job=job["job"])
    assert [row["state"] for row in await run(postgres_store, "status")] == ["undone", "forgotten"]


async def test_the_store_alone_wants_to_be_told_the_rules(postgres_store: PostgresStore) -> None:
    with pytest.raises(BadRequest, match="say which rules"):
        await run(postgres_store, "plan")
    with pytest.raises(BadRequest, match="no job 7"):
        await run(postgres_store, "undo", job=7)


async def test_a_running_server_does_the_work(postgres_store: PostgresStore) -> None:
    """Its lock is held: a detached job waits for it, and none is begun here."""
    await filled(postgres_store)
    lock = await postgres_store.live_lock(shared=True)
    assert lock is not None
    assert await postgres_store.live_lock(shared=False) is None
    [job] = await run(postgres_store, "apply", schemas=RULES, detach=True)
    assert (job["state"], job["waiting"]) == ("running", 2)
    # what a job is going to move is no other's
    assert await run(postgres_store, "apply", schemas=RULES) == []
    [stopped] = await run(postgres_store, "stop", job=job["job"])
    assert stopped["state"] == "stopped"
    lock.release()
    [job] = await run(postgres_store, "resume", job=job["job"])
    assert (job["state"], job["moved"]) == ("done", 2)


async def test_series_that_a_job_moves_back_are_no_other_s(postgres_store: PostgresStore) -> None:
    """Their rows go: a job begun now would find them gone, and count too few."""
    await filled(postgres_store)
    [job] = await run(postgres_store, "apply", schemas=RULES)
    lock = await postgres_store.live_lock(shared=True)
    assert lock is not None
    [undoing] = await run(postgres_store, "undo", job=job["job"], detach=True)
    assert undoing["state"] == "undoing"
    longer = RULES.replace("30d", "60d")
    assert await run(postgres_store, "apply", schemas=longer, detach=True) == []
    lock.release()
    [undone] = await run(postgres_store, "undo", job=job["job"])
    assert (undone["state"], undone["undone"]) == ("undone", 2)
    [after] = await run(postgres_store, "apply", schemas=longer)
    assert (after["series"], after["moved"]) == (2, 2)


async def test_jobs_are_undone_in_their_order(postgres_store: PostgresStore) -> None:
    await filled(postgres_store)
    [first] = await run(postgres_store, "apply", schemas=RULES)
    [second] = await run(postgres_store, "apply", schemas=RULES.replace("30d", "60d"))
    with pytest.raises(BadRequest, match=f"job {second['job']} moved some"):
        await run(postgres_store, "undo", job=first["job"])
    for job in (second, first):
        [undone] = await run(postgres_store, "undo", job=job["job"])
        assert undone["state"] == "undone"
    rows = await postgres_store.load_series()
    specs = dict(await postgres_store.load_bundles())
    assert {specs[b] for b in rows.bundle_id.tolist()} == {OLD}


async def test_series_that_are_removed_meanwhile_leave_the_job(
    postgres_store: PostgresStore,
) -> None:
    await filled(postgres_store)
    [job] = await run(postgres_store, "apply", schemas=RULES, detach=True)
    rows = await postgres_store.load_series()
    gone = rows.rrd_id[[rows.names.index("web.a")]]
    await postgres_store.trash_series(gone, await postgres_store.next_batch(), "test")
    [job] = await run(postgres_store, "resume", job=job["job"])
    assert (job["state"], job["moved"], job["waiting"]) == ("done", 1, 0)


async def test_series_of_a_second_writer_are_shown(postgres_store: PostgresStore) -> None:
    await filled(postgres_store)
    rows = await postgres_store.load_series()
    other = make_bundle(parse_retention("10s:2h"))
    specs = [other if name == "db.c" else OLD for name in rows.names]
    here = Series(rows.names, rows.rrd_id, specs)
    admin = Admin(postgres_store, object(), Settings())  # type: ignore[arg-type]  # what is used of it is there
    [row] = [row async for row in _conflicts(admin, here)]
    assert row["names"] == ["db.c"] and row["series"] == 1
    assert row["from"].startswith("10s:1h,1m:1d") and row["to"].startswith("10s:2h")
    assert "another writer" in row["problem"]


def test_what_counts_as_a_change() -> None:
    pairs = parse_retention("10s:1h,1m:1d")
    assert not differs(OLD, make_bundle(pairs))
    assert not differs(make_bundle(pairs, xff=0.1), make_bundle(pairs, xff=float(np.float32(0.1))))
    for other in (
        make_bundle(parse_retention("10s:1h,1m:2d")),
        make_bundle(pairs, Cf.MAX),
        make_bundle(pairs, xff=0.1),
        make_bundle(pairs, on_duplicate=OnDuplicate.SUM),
    ):
        assert differs(OLD, other)
    change = change_of(OLD, make_bundle(pairs, Cf.MAX, on_duplicate=OnDuplicate.SUM))
    assert change.gained == ("roll-up average now max", "two points in a slot last now sum")
    assert (change.lost, change.slots_lost) == ((), 0)
    assert "sum of a slot's points" in describe_spec(
        make_bundle(pairs, on_duplicate=OnDuplicate.SUM)
    )


def test_bytes_follow_slots_and_age() -> None:
    held = {0: Held(10.0, 20_000.0, 3_600), 1: Held(2.0, 1_000.0, 86_400)}
    shorter = make_bundle(parse_retention("1m:1d"))
    longer = make_bundle(parse_retention("10s:1h,1m:10d"))
    assert bytes_after(OLD, shorter, held) < bytes_after(OLD, OLD, held)
    # data of a day fill no ten days
    assert bytes_after(OLD, longer, held) == pytest.approx(bytes_after(OLD, OLD, held), rel=0.2)
    assert bytes_after(OLD, OLD, {}) == 0
