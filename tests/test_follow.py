"""Series that others remove, bring back, rename and make: registry, ring, journal and recovery against dicts."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rig import Rig, running_rig
from tgres_py import clock
from tgres_py.model.retention import Archive, BundleSpec, Cf
from tgres_py.storage.memory import MemoryStore

NOW_S = 1_700_000_000 // 720 * 720
SPEC = BundleSpec((Archive(10, 720, 12), Archive(60, 240, 6)), Cf.AVERAGE, 0.0)
OTHER = BundleSpec((Archive(60, 720, 12),), Cf.MAX, 0.0)
NAMES = ("a", "a.b", "b;x=1", "c.d")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running_rig(MemoryStore(), tmp_path / "journal", SPEC, now_s=NOW_S) as rig:
        yield rig


def memory(rig: Rig) -> MemoryStore:
    assert isinstance(rig.store, MemoryStore)
    return rig.store


async def restart(rig: Rig) -> None:
    await rig.kill()
    await rig.start()


async def known(rig: Rig, name: str) -> dict[int, float]:
    """What the finest archive holds of a series: time -> value; empty when there is no such series."""
    if rig.registry.table.get(name.encode()) < 0:
        return {}
    first = NOW_S // 10 - 10
    values = await rig.read(name, 0, first, rig.now_s // 10 + 10)
    return {(first + i) * 10 - NOW_S: v for i, v in enumerate(values.tolist()) if v == v}


async def follow(rig: Rig, *rrd_ids: int) -> None:
    await rig.follower.apply(np.array(rrd_ids, np.int64) if rrd_ids else None)


def index(rig: Rig) -> list[str]:
    """The names in tree and index of tags, which agree with the registry."""
    registry = rig.registry
    registry.sync_index()
    names = [registry.names(registry.tree.expand(p)) for p in ("*", "*.*")]
    tagged = registry.names(registry.tags.find(["name=~."]))
    for name in itertools.chain(*names, tagged):
        assert registry.tree.get(name) == registry.table.get(name.encode()), name
    return sorted(itertools.chain(*names, tagged))


# -- everything at once --------------------------------------------------------------------------


@dataclass
class Model:
    """Names and points as plain dicts; a series is the dict of its points."""

    living: dict[str, dict[int, float]] = field(default_factory=dict)
    trash: dict[int, tuple[str, dict[int, float]]] = field(default_factory=dict)


_name = st.sampled_from(NAMES)
_step = st.one_of(
    st.tuples(st.just("add"), _name, st.integers(0, 30), st.integers(0, 99)),
    st.tuples(st.just("pass"), st.sampled_from([10, 60, 130])),
    st.tuples(st.just("tick")),
    st.tuples(st.just("flush")),
    st.tuples(st.just("checkpoint")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("trash"), _name, st.booleans()),
    st.tuples(st.just("restore"), st.booleans()),
    st.tuples(st.just("purge"), st.just(True)),  # untold, what the journal has goes by its name
    st.tuples(st.just("rename"), _name, _name, st.booleans()),
)


async def change(rig: Rig, model: Model, kind: str, *args: Any) -> bool:
    """An operator's change of the store, and of the model; whether it took place."""
    store = memory(rig)
    await rig.flusher.create_rows()
    if kind == "trash" and args[0] in model.living:
        row = store.trash(args[0])
        model.trash[row] = args[0], model.living.pop(args[0])
        return True
    if kind == "rename" and args[0] in model.living:
        names = {args[0]: args[1]}
        if args[1] in model.living:  # they change places
            names[args[1]] = args[0]
        if args[0] != args[1]:
            store.rename(names)
            moved = {new: model.living.pop(old) for old, new in names.items()}
            model.living |= moved
        return True
    if kind in ("restore", "purge") and model.trash:
        row = min(model.trash)
        name, points = model.trash[row]
        if kind == "purge":
            store.purge(row)
            del model.trash[row]
        elif store.restore(row):
            del model.trash[row]
            model.living[name] = points
        return True
    return False


async def run_steps(steps: list[tuple[Any, ...]], folder: Path) -> None:
    rig = Rig(MemoryStore(), folder, SPEC, now_s=NOW_S)
    model = Model()
    await rig.start()
    for kind, *args in steps:
        if kind == "add":
            name, age, value = args
            time_s = rig.now_s - age * 10
            if time_s >= NOW_S - 90:
                rig.add([(name, time_s, float(value))])
                model.living.setdefault(name, {})[time_s - NOW_S - (time_s - NOW_S) % 10] = value
        elif kind == "pass":
            rig.now_s += args[0]
        elif kind == "tick":
            await rig.tick()
        elif kind == "flush":
            await rig.flusher.flush_now()
        elif kind == "checkpoint":
            await rig.flusher.checkpoint()
        elif kind == "restart":
            await restart(rig)
        elif await change(rig, model, kind, *args):
            if args[-1]:
                await follow(rig)
            else:  # the server is killed before it hears of it
                await restart(rig)
        for name in NAMES:
            assert await known(rig, name) == model.living.get(name, {}), (kind, name)
        assert index(rig) == sorted(model.living)
        assert len(rig.registry) == len(model.living)
        assert rig.intake.ledger.balance == 0
    await restart(rig)
    for name in NAMES:
        assert await known(rig, name) == model.living.get(name, {}), name
    await rig.kill()


@given(st.lists(_step, max_size=40))
@settings(max_examples=100, deadline=None)
def test_names_and_points_equal_plain_dicts(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            asyncio.run(run_steps(steps, Path(folder)))
        finally:
            clock.replace_source(None)


# -- one thing at a time -------------------------------------------------------------------------


async def test_points_that_came_under_a_new_name_reach_its_series(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await rig.flusher.create_rows()
    memory(rig).rename({"a": "b"})
    rig.add([("b", NOW_S + 10, 2.0)])  # the server hasn't heard of it
    rig.now_s += 20
    await follow(rig)
    assert await known(rig, "b") == {0: 1.0, 10: 2.0}
    await rig.flusher.flush_now()
    await restart(rig)
    assert await known(rig, "b") == {0: 1.0, 10: 2.0}
    assert rig.registry.table.get(b"a") == -1 and index(rig) == ["b"]


async def test_points_that_came_under_a_new_name_with_a_row_reach_its_series(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await rig.flusher.create_rows()
    memory(rig).rename({"a": "b"})
    rig.add([("b", NOW_S + 10, 2.0)])
    await rig.flusher.create_rows()  # which is that of a
    await follow(rig, 1)
    await follow(rig)
    assert await known(rig, "b") == {0: 1.0, 10: 2.0}
    rig.now_s += 500
    await rig.flusher.flush_now()
    assert await known(rig, "b") == {0: 1.0, 10: 2.0}


async def test_names_that_are_handed_on_in_a_circle(rig: Rig) -> None:
    names = ["a", "a.b", "c.d"]
    rig.add([(name, NOW_S, float(i)) for i, name in enumerate(names)])
    await rig.flusher.create_rows()
    memory(rig).rename({"a": "a.b", "a.b": "c.d", "c.d": "a"})
    for row in (2, 1, 3):  # the server hears of one after the other
        await follow(rig, row)
    assert [await known(rig, name) for name in names] == [{0: 2.0}, {0: 0.0}, {0: 1.0}]
    assert index(rig) == names


async def test_series_of_others_are_taken_up_with_what_the_store_holds(rig: Rig) -> None:
    other = Rig(rig.store, rig.folder.parent / "other", SPEC, now_s=NOW_S)
    await other.start()
    other.add([("a", NOW_S, 1.0), ("b;x=1", NOW_S, 2.0)])
    await other.flusher.flush_now()
    other.journal.close()
    clock.replace_source(lambda: rig.now_s)
    await follow(rig)
    assert index(rig) == ["a", "b;x=1"]
    assert await known(rig, "a") == {0: 1.0}
    rig.now_s += 200
    rig.add([("a", NOW_S + 200, 3.0), ("a", NOW_S + 10, 4.0)])
    assert await known(rig, "a") == {0: 1.0, 10: 4.0, 200: 3.0}
    await restart(rig)
    assert await known(rig, "a") == {0: 1.0, 10: 4.0, 200: 3.0}


async def test_untagged_series_are_told(rig: Rig) -> None:
    rig.add([("b;x=1", NOW_S, 1.0)])
    await rig.flusher.create_rows()
    await rig.store.set_tagged(["b;x=1"], False)
    row = memory(rig).trash("b;x=1")
    await follow(rig, row)
    memory(rig).restore(row)
    done = await rig.follower.apply(np.array([row], np.int64))
    assert (done.named, done.untagged) == (1, ["b;x=1"])


async def test_a_name_that_lives_again_is_not_restored(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await rig.flusher.create_rows()
    row = memory(rig).trash("a")
    await follow(rig, row)
    rig.add([("a", NOW_S + 10, 2.0)])
    await rig.flusher.create_rows()
    assert not memory(rig).restore(row)
    assert await known(rig, "a") == {10: 2.0}
    memory(rig).rename({"a": "c.d"})
    assert memory(rig).restore(row)
    await follow(rig)
    assert await known(rig, "a") == {0: 1.0} and await known(rig, "c.d") == {10: 2.0}


async def test_what_a_removed_series_holds_is_still_written(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await rig.flusher.create_rows()
    row = memory(rig).trash("a")
    await follow(rig, row)
    rig.now_s += 1_000
    for _ in range(20):
        await rig.tick()
        rig.now_s += 100
    stored = await rig.store.read_chunks(np.array([row]), 0, 12, 0, 1 << 40)
    assert np.nansum(stored.dp) == 1.0
    assert memory(rig).last_s == {row: NOW_S}


async def test_what_was_purged_is_not_written_again(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await rig.flusher.create_rows()
    row = memory(rig).trash("a")
    memory(rig).purge(row)
    await follow(rig, row)
    await rig.flusher.flush_now()
    await restart(rig)
    await rig.flusher.flush_now()
    assert len(await rig.store.read_chunks(np.array([row]), 0, 12, 0, 1 << 40)) == 0
    assert await known(rig, "a") == {}


async def test_a_journal_of_a_later_state_of_the_store_goes_by_names(rig: Rig) -> None:
    """The database was set back to a backup that doesn't know the series yet."""
    rig.add([("a", NOW_S, 1.0)])
    await rig.flusher.create_rows()
    await rig.kill()
    store = MemoryStore()
    await store.set_journal_id(rig.journal.journal_id)
    rig.store = store
    await rig.start()
    assert await known(rig, "a") == {0: 1.0}


async def test_a_move_under_another_bundle_keeps_the_name(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await rig.flusher.create_rows()
    old = rig.registry.table.get(b"a")
    bundle = rig.registry.bundle(OTHER)
    [new] = rig.registry.replace(np.array([old], np.int32), np.array([99]), bundle, NOW_S)
    assert new != old and rig.registry.names(np.array([old, new], np.int32)) == ["a", "a"]
    assert rig.registry.table.get(b"a") == new and index(rig) == ["a"]
    assert rig.registry.tree.get("a") == new
    assert rig.registry.specs(np.array([new], np.int32)) == [OTHER]
    rig.add([("a", NOW_S + 60, 2.0)])
    assert (await rig.reader.fetch(np.array([new], np.int32), 0, NOW_S // 60, NOW_S // 60 + 2))[
        0, 1
    ] == 2.0
