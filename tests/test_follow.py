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

from tests.rig import Rig
from tgres_py import clock
from tgres_py.model.retention import Archive, BundleSpec, Cf
from tgres_py.storage.memory import MemoryStore

NOW_S = 1_700_000_000 // 720 * 720
SPEC = BundleSpec((Archive(10, 720, 12), Archive(60, 240, 6)), Cf.AVERAGE, 0.0)
OTHER = BundleSpec((Archive(60, 720, 12),), Cf.MAX, 0.0)
NAMES = ("a", "a.b", "b;x=1", "c.d")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    one = Rig(MemoryStore(), tmp_path / "journal", SPEC, now_s=NOW_S)
    await one.start()
    yield one
    one.journal.close()
    clock.replace_source(None)


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
    st.tuples(st.just("purge"), st.booleans()),
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


@given(st.lists(_step, max_size=30))
@settings(max_examples=60, deadline=None)
def test_names_and_points_equal_plain_dicts(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            asyncio.run(run_steps(steps, Path(folder)))
        finally:
            clock.replace_source(None)
