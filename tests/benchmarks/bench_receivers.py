"""Time per point of the receivers, without sockets and through loopback. Printed, never asserted.

python -m tests.benchmarks.bench_receivers
"""

from __future__ import annotations

import asyncio
import json
import pickle
import struct
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from receivers import carbon_line, carbon_pickle, tcp, udp
from tgres_py.cli.blast_payload import LinePayload, PicklePayload, name_of
from tgres_py.kernels import NATIVE, NameTable
from tgres_py.model.points import Ids, Parsed, Reason

POINTS = 5_000
NAME_BYTES = 57


class Dictionary:
    """The plainest registry."""

    def __init__(self) -> None:
        self.ids: dict[bytes, int] = {}

    def resolve(self, names: Sequence[bytes]) -> tuple[Ids, dict[int, Reason]]:
        ids = self.ids
        return np.array([ids.setdefault(name, len(ids)) for name in names], np.int32), {}


class Scanner(Dictionary):
    def __init__(self) -> None:
        super().__init__()
        self.table = NameTable()

    def scan(self, data: Any, now_s: int) -> Any:
        return self.table.parse(data, now_s)

    def scan_names(self, data: Any, starts: Any, sizes: Any) -> Any:
        return self.table.look_up(data, starts, sizes)


class Counting:
    """A sink that only counts."""

    paused = False

    def __init__(self) -> None:
        self.registry = Scanner()
        self.points = 0

    def accept(self, receiver: str, parsed: Parsed, peer: str) -> None:
        self.points += len(parsed.block)

    def on_room(self, callback: Callable[[], None]) -> None: ...


def best_us(work: Callable[[], Any]) -> float:
    """CPU time per point of the best of 20 runs."""
    best = float("inf")
    for _ in range(20):
        before = time.process_time()
        work()
        best = min(best, time.process_time() - before)
    return best / POINTS * 1e6


def in_memory() -> None:
    names = [name_of(i, "servers", NAME_BYTES).encode() for i in range(POINTS)]
    lines, frames = LinePayload(0, names), PicklePayload(0, names)
    for payload in (lines, frames):
        payload.render(0, 1_700_000_000)
    for label, registry in (("split", Dictionary()), ("scan", Scanner())):
        us = best_us(lambda r=registry: carbon_line.parse(lines.data, 0, r))  # type: ignore[misc]  # mypy infers no types of a lambda's defaults
        print(f"carbon_line.parse, {label:31} {us:8.3f} us/point")
    for label, registry in (("read in Python", Dictionary()), ("kernel", Scanner())):
        pickles(label, frames.data, names, registry)


def pickles(label: str, blast: bytes, names: list[bytes], registry: Dictionary) -> None:
    us = best_us(lambda: carbon_pickle.parse(blast, 0, registry))
    print(f"carbon_pickle.parse, {label}, {'tgres blast':16} {us:8.3f} us/point")
    shapes = {
        "floats": [(name.decode(), (1.7e9 + i, i * 1.5)) for i, name in enumerate(names)],
        "ints": [(name.decode(), (1_700_000_000, i * i * i)) for i, name in enumerate(names)],
        "texts": [
            (name.decode(), (1_700_000_000, f"{i * 1.37:f}")) for i, name in enumerate(names)
        ],
    }
    for shape, points in shapes.items():
        for protocol in range(6):
            body = pickle.dumps(points, protocol)
            frame = struct.pack(">I", len(body)) + body
            us = best_us(lambda f=frame: carbon_pickle.parse(f, 0, registry))  # type: ignore[misc]  # mypy infers no types of a lambda's defaults
            print(f"carbon_pickle.parse, {label}, {shape}, protocol {protocol} {us:8.3f} us/point")


async def over_loopback() -> None:
    for protocol, rate in (("line", 0.0), ("pickle", 0.0), ("udp", 200_000.0)):
        sink = Counting()
        wire = carbon_pickle.wire_format() if protocol == "pickle" else carbon_line.WIRE_FORMAT
        listener: Any = (
            await udp.start("bench", "127.0.0.1", 0, carbon_line.parse, sink)
            if protocol == "udp"
            else await tcp.start("bench", "127.0.0.1", 0, wire, sink)
        )
        arguments = (
            f"blast --json --port {listener.address[1]} --protocol {protocol} --series 100000 "
            f"--rounds 10 --rate {rate} --name-bytes {NAME_BYTES}"
            + (" --datagram-lines 1" if protocol == "udp" else "")
        )
        before = time.process_time()
        sender = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tgres_py.cli.main", *arguments.split(), stdout=PIPE
        )
        result = json.loads((await sender.communicate())[0])
        listener.close()
        await listener.drain(10.0)
        cpu = time.process_time() - before
        print(
            f"{protocol}: {result['points_per_s']:,} points/s sent, "
            f"{sink.points / result['points']:.1%} kept, "
            f"{cpu / result['points'] * 1e6:.3f} CPU-us/point (receiver alone)"
        )


if __name__ == "__main__":
    print("native kernels" if NATIVE else "pure kernels")
    in_memory()
    asyncio.run(over_loopback())
