"""Series verbs on the store alone: trash, expiry, purge, names that change places, merges; their texts."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.admin.frame import Admin, Row, find_verb, is_result
from tgres_py.admin.housekeeping import expire, keep_house, purge_old
from tgres_py.config_sources import load
from tgres_py.errors import BadRequest, ConfigError
from tgres_py.ingest.rows import rows_of_block
from tgres_py.model.duration import format_duration, parse_duration
from tgres_py.model.name_regex import NameRegex
from tgres_py.model.retention import BundleSpec, Cf, make_bundle, parse_retention
from tgres_py.model.rules import RuleSet, SchemaRule, parse_schemas
from tgres_py.storage.postgres import PostgresStore
from tgres_py.storage.series_names import (
    PAYLOAD_CHARS_MAX,
    PAYLOAD_ROWS_MAX,
    parse_payload,
    payloads,
)

SPEC = make_bundle(parse_retention("10s:1h,1m:1d"), Cf.AVERAGE, 0.0)
COARSE = make_bundle(parse_retention("1m:1d"), Cf.MAX, 0.0)
DAY_S = 86_400


@pytest.fixture
def admin(postgres_store: PostgresStore) -> Admin:
    return Admin(postgres_store, None, load(environ={}))


async def run(admin: Admin, name: str, **given: Any) -> list[Row]:
    """The results of a verb."""
    rows = [row async for row in find_verb(name).start(admin, given)]
    return [row for row in rows if is_result(row)]


async def make(admin: Admin, *names: str, spec: BundleSpec = SPEC) -> NDArray[np.int64]:
    [bundle] = await admin.store.ensure_bundles([spec])
    bundles = np.full(len(names), bundle, np.int32)
    rrd_ids, _ = await admin.store.create_series(names, bundles)
    return rrd_ids


async def names(admin: Admin) -> list[str]:
    return sorted((await admin.store.load_series()).names)


async def write(admin: Admin, row: int, points: dict[int, float], spec: BundleSpec = SPEC) -> None:
    """Finest slots of one series: slot -> value."""
    low, high = min(points), max(points) + 1
    block = np.full((high - low, 1), np.nan)
    for slot, value in points.items():
        block[slot - low, 0] = value
    rows = rows_of_block(0, spec.archives[0], np.array([row]), low, block)
    await admin.store.write_chunks(list(rows))


async def read(admin: Admin, row: int, spec: BundleSpec = SPEC) -> dict[int, float]:
    archive = spec.archives[0]
    rows = await admin.store.read_chunks(np.array([row]), 0, archive.width, 0, 1 << 40)
    return {
        int(start_s) // archive.step_s + int(i): float(dp[i])
        for start_s, dp in zip(rows.start_s, rows.dp, strict=True)
        for i in np.flatnonzero(~np.isnan(dp))
    }


# -- verbs ---------------------------------------------------------------------------------------


async def test_names_change_places(admin: Admin) -> None:
    a, b, c = (await make(admin, "x.a", "x.b", "x.c;t=1")).tolist()
    await run(admin, "series.rename", old=r"^x\.(.)$", new=r"y.\1;k=v", regex=True, yes=True)
    found = await admin.store.find_series(np.array([a, b, c]))
    assert found.names == ["y.a;k=v", "y.b;k=v", "x.c;t=1"]
    await admin.store.rename_series(np.array([a, b]), ["y.b;k=v", "y.a;k=v"])
    assert (await admin.store.find_series(np.array([a, b]))).names == ["y.b;k=v", "y.a;k=v"]
    with pytest.raises(BadRequest, match="another series"):
        await admin.store.rename_series(np.array([a]), ["x.c;t=1"])
    assert await names(admin) == ["x.c;t=1", "y.a;k=v", "y.b;k=v"]
    assert await admin.store.load_untagged() == []


async def test_a_name_that_no_series_can_have_is_refused(admin: Admin) -> None:
    await make(admin, "x.a")
    for new in ("", "x\n", "x;", "n" * 2_000):
        with pytest.raises(BadRequest):
            await run(admin, "series.rename", old="x.a", new=new, yes=True)
    assert await names(admin) == ["x.a"]


async def test_an_undo_that_brings_nothing_back_fails(admin: Admin) -> None:
    await make(admin, "x.a", "x.b")
    [removed] = await run(admin, "series.rm", glob=["x.*"], yes=True)
    await make(admin, "x.a", "x.b")
    with pytest.raises(BadRequest, match=r"all 2 names of batch \d+ live again: --merge"):
        await run(admin, "series.undo", batch=removed["batch"], yes=True)
    [done] = await run(admin, "series.undo", batch=removed["batch"], yes=True, merge=True)
    assert (done["series"], done["merged"]) == (0, 2)


@pytest.mark.parametrize("option", ["schemas", "aggregation"])
async def test_rules_given_to_a_plan_that_are_none_are_the_askers_mistake(
    admin: Admin, option: str
) -> None:
    good = "[x]\npattern = .*\nretentions = 10s:1h\n"
    bad = "[x]\npattern = .*\nretentions = 10s:1h,15s:1d\nxFilesFactor = 7\n"
    with pytest.raises(BadRequest, match=rf"--{option}, line \d"):
        await run(admin, "retention.plan", **{"schemas": good, option: bad})


async def test_several_that_get_one_name_are_merged_only_on_request(admin: Admin) -> None:
    slot = clock.now_s() // 10 - 20
    rows = (await make(admin, "x.a", "x.b", "x.c")).tolist()
    for number, row in enumerate(rows):
        await write(admin, row, {slot + number: float(number), slot + 9: 9.0 + number})
    given = {"old": r"^x\..$", "new": "all", "regex": True}
    with pytest.raises(BadRequest, match="--merge"):
        await run(admin, "series.rename", **given, yes=True)
    await run(admin, "series.rename", **given, merge=True, yes=True)
    assert await names(admin) == ["all"]
    [row] = (await admin.store.load_series()).rrd_id.tolist()
    expected = {slot + number: float(number) for number in range(3)}
    assert await read(admin, row) == expected | {slot + 9: 9.0 + rows.index(row)}
    [batch] = await run(admin, "series.trash")
    assert batch["series"] == 2


async def test_a_merge_into_another_retention_is_re_bucketed(admin: Admin) -> None:
    minute = clock.now_s() // 60 - 10
    [fine] = (await make(admin, "fine")).tolist()
    [coarse] = (await make(admin, "coarse", spec=COARSE)).tolist()
    await write(admin, fine, {minute * 6: 1.0, minute * 6 + 5: 5.0, minute * 6 + 6: 3.0})
    await write(admin, coarse, {minute + 1: 70.0}, COARSE)
    [done] = await run(admin, "series.merge", glob=["fine"], into="coarse", yes=True)
    assert done["series"] == 1
    assert await read(admin, coarse, COARSE) == {minute: 5.0, minute + 1: 70.0}
    await run(admin, "series.undo", batch=done["batch"], yes=True)
    assert await names(admin) == ["coarse", "fine"]
    assert len(await read(admin, fine)) == 3


async def test_stale_looks_up_what_was_never_noted(admin: Admin) -> None:
    now_s = clock.now_s()
    old, new, never = (await make(admin, "old", "new", "never")).tolist()
    await write(admin, old, {now_s // 10 - 300: 1.0})
    await admin.store.touch_series(np.array([new]), np.array([now_s]))
    [row] = await run(admin, "series.stale", **{"for": "30m"})
    assert (row["name"], row["last_point_at_s"]) == ("old", (now_s // 10 - 300) * 10)
    last_s, _ = await admin.store.last_of_series(np.array([old, new, never]))
    assert last_s.tolist() == [(now_s // 10 - 300) * 10, now_s, 0]


async def test_last_points_are_not_noted_for_small_differences(admin: Admin) -> None:
    ids = await make(admin, "a")
    for last_s, noted_s in ((1_000_000, 1_000_000), (1_000_600, 1_000_000), (1_030_000, 1_030_000)):
        await admin.store.touch_series(ids, np.array([last_s]))
        assert (await admin.store.last_of_series(ids))[0].tolist() == [noted_s]


async def test_rm_by_age_needs_no_names(admin: Admin) -> None:
    ids = await make(admin, "old", "new")
    now_s = clock.now_s()
    await admin.store.touch_series(ids, np.array([now_s - 40 * DAY_S, now_s]))
    [done] = await run(admin, "series.rm", stale_for="30d", yes=True)
    assert done["names"] == ["old"] and await names(admin) == ["new"]


# -- housekeeping --------------------------------------------------------------------------------


async def test_series_expire_by_their_schema(admin: Admin) -> None:
    ids = await make(admin, "k8s.old", "k8s.new", "kept.old")
    now_s = clock.now_s()
    await admin.store.touch_series(ids, now_s - np.array([91, 89, 500]) * DAY_S)
    rules = parse_schemas(
        "[pods]\npattern = ^k8s\nretentions = 10s:1h\nexpire = 90d\n"
        "[rest]\npattern = .*\nretentions = 10s:1h\n",
        "test",
    )
    await keep_house(admin, RuleSet(rules))
    assert await names(admin) == ["k8s.new", "kept.old"]
    [batch] = await run(admin, "series.trash")
    assert (batch["series"], batch["first_name"], batch["why"]) == (
        1,
        "k8s.old",
        "no point for 90d",
    )
    assert await expire(admin, RuleSet(rules)) == 0


async def test_the_trash_is_purged_in_time(admin: Admin) -> None:
    [row] = (await make(admin, "a")).tolist()
    await write(admin, row, {170_000_000: 1.0})
    await run(admin, "series.rm", glob=["a"], yes=True)
    assert await purge_old(admin) == 0
    now = Admin(admin.store, None, load(options={"trash_keep_s": "0"}, environ={}))
    assert await purge_old(now) == 1
    assert await read(admin, row) == {}
    assert await run(admin, "series.trash") == []


async def test_a_purge_of_any_age_takes_all_whatever_the_clocks_say(admin: Admin) -> None:
    await make(admin, "a")
    await run(admin, "series.rm", glob=["a"], yes=True)
    clock.replace_source(lambda: time.time() - 100)  # PostgreSQL's is ahead
    try:
        [dry] = await run(admin, "series.purge")
        assert dry["series"] == 1
        [done] = await run(admin, "series.purge", yes=True)
        assert done["series"] == 1
    finally:
        clock.replace_source(None)


def test_expire_is_a_duration_of_a_day_or_more() -> None:
    text = "[a]\npattern = x\nretentions = 10s:1h\nexpire = {}\n"
    assert parse_schemas(text.format("2w"), "f")[0].expire_s == 14 * DAY_S
    for value, message in (("soon", "no duration"), ("1h", "at least"), ("3mo", "no duration")):
        with pytest.raises(ConfigError, match=f"line 4.*{message}"):
            parse_schemas(text.format(value), "f")
    rule = SchemaRule("a", "x", parse_retention("10s:1h"), expire_s=5.0)
    assert RuleSet([rule]).expiry_many(["x", "y"]) == [5.0, None]
    assert RuleSet([rule]).expires and not RuleSet().expires


# -- texts ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 1 << 40), max_size=3_000))
def test_rows_fit_into_notifications(ids: list[int]) -> None:
    texts = payloads(np.array(ids, np.int64))
    assert all(0 < len(text) <= PAYLOAD_CHARS_MAX for text in texts)
    found = [part for text in texts if (part := parse_payload(text)) is not None]
    assert np.concatenate([np.empty(0, np.int64), *found]).tolist() == sorted(set(ids))


def test_strange_notifications_mean_all_rows() -> None:
    for text in ("", "x", "1,", "1-x", "-", "-1", "1-2-3", "1_0", "9" * 19, "0-" + "9" * 18):
        assert parse_payload(text) is None
    assert parse_payload(f"1-{PAYLOAD_ROWS_MAX},7") is None, (
        "memory is bounded for all ranges together"
    )
    assert parse_payload("9-7") is not None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1.5h", 5_400),
        ("30d", 30 * DAY_S),
        ("2 weeks", 14 * DAY_S),
        ("15min", 900),
        ("1y", 365 * DAY_S),
        (12, 12),
        ("15M", 900),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "-1d", "3mo", "1x", "soon", True, None, "1e3"])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


@given(st.integers(0, 10**9))
def test_durations_go_round(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("pattern", "name", "replacement", "result"),
    [
        (r"^a\.(\w+)", "a.b.c", r"x.\1", "x.b.c"),
        (r"(é+)", "x.éé.y", r"[\1]", "x.[éé].y"),
        ("b", "a.b.b", "c", "a.c.b"),
        ("z", "a.b", "c", "a.b"),
        (r"(a)|(b)", "b", r"\1\2\0\\", "bb\\"),
    ],
)
def test_replacements(pattern: str, name: str, replacement: str, result: str) -> None:
    assert NameRegex(pattern).replaced(name, replacement) == result


def test_bad_patterns_and_replacements() -> None:
    with pytest.raises(BadRequest, match=r"regular expression '\(': missing"):
        NameRegex("(")
    for replacement in (r"\2", "\\", r"\x"):
        with pytest.raises(BadRequest, match="no group"):
            NameRegex("(a)").replaced("a", replacement)
