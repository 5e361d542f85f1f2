"""Prints times and memory of the tree of names: python tests/benchmarks/bench_nametree.py [series]."""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable

from tgres_py import kernels
from tgres_py.model.nametree import NameTree

KINDS = ("user", "system", "idle", "iowait", "steal")


def make_names(count: int) -> list[str]:
    """Like hosts' CPU metrics: servers.dcN.hostN.cpu.N.KIND, five kinds for each of four CPUs."""
    return [
        f"servers.dc{host % 10}.host{host}.cpu.{cpu}.{kind}"
        for host in range(-(-count // 20))
        for cpu in range(4)
        for kind in KINDS
    ][:count]


def best_ms(work: Callable[[], object], rounds: int = 5) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times) * 1_000


def measure(make: type[NameTree], count: int) -> None:
    names = make_names(count)
    lines = "".join(f"{name}\n" for name in names).encode()
    tree = make()
    start = time.process_time()
    tree.add_lines(lines, 0)
    print(f"add {count:,} names: {(time.process_time() - start) / count * 1e6:.2f} us a name")
    print(f"memory: {memory_bytes(make, lines) / count:.0f} bytes a name")

    tree = make()
    tree.add_many(make_names(100_000), 0)
    for pattern in (
        "servers.*",
        "servers.dc3.*",
        "servers.*.host17.cpu.*",
        "servers.*.host1*.cpu.*.user",
        "servers.*.host*[13]?5.cpu.*.user",
        "servers.{dc1,dc2}.host*.cpu.{0,1}.user",
        "servers.*.*.cpu.*.*",
        "**.user",
        "**",
    ):
        found, ids = len(tree.find(pattern)), len(tree.expand(pattern))
        find_ms = best_ms(lambda pattern=pattern: tree.find(pattern))  # type: ignore[misc]  # mypy infers no types of a lambda's defaults
        expand_ms = best_ms(lambda pattern=pattern: tree.expand(pattern))  # type: ignore[misc]  # mypy infers no types of a lambda's defaults
        print(
            f"{pattern:42} find {found:7,} nodes {find_ms:7.2f} ms   expand {ids:7,} ids {expand_ms:7.2f} ms"
        )


def memory_bytes(make: type[NameTree], lines: bytes) -> int:
    """What the tree says of itself where it is native, and what Python counts where it isn't."""
    if make is not NameTree:
        tree = make()
        tree.add_lines(lines, 0)
        return tree.bytes_used
    tracemalloc.start()
    tree = make()
    tree.add_lines(lines, 0)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    if kernels.NATIVE:
        print("native")
        measure(kernels.NameTree, count)
    print("pure Python")
    measure(NameTree, count)


if __name__ == "__main__":
    main()
