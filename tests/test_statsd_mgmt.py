"""statsd's management port: etsy's texts to the byte, its limits, and the listener on a real socket."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from receivers import statsd_mgmt
from tgres_py.accept import TlsShare
from tgres_py.statsd.aggregate import Aggregator
from tgres_py.statsd.inspect import inspect_lists, inspect_numbers
from tgres_py.statsd.key_report import key_report
from tgres_py.statsd.mgmt import Management, Statistics
from tgres_py.statsd.settings import from_table
from tgres_py.tls import Tls

PEMS = Path(__file__).parent / "data" / "tls"
INSPECTED = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "statsd_inspect.jsonl").read_text().splitlines()
]
CONFIGS = [
    json.loads(line)
    for line in (Path(__file__).parent / "data/statsd/config.jsonl").read_text().splitlines()
]


@pytest.mark.parametrize("case", INSPECTED, ids=[str(i) for i in range(len(INSPECTED))])
def test_objects_look_as_node_shows_them(case: dict[str, Any]) -> None:
    members = dict(case["members"])
    lists = any(isinstance(value, list) for value in members.values())
    assert (inspect_lists if lists else inspect_numbers)(members) == case["text"]


def test_a_negative_zero_keeps_its_sign() -> None:
    assert inspect_numbers({"a": -0.0, "b": float("nan")}) == "{ a: -0, b: NaN }"


def management(packet: str = "", **table: Any) -> tuple[Management, Statistics]:
    aggregator = Aggregator(from_table(table), 1_000)
    if packet:
        aggregator.add(packet.encode(), 1, 1_010)
    return Management(aggregator), aggregator


def ask(of: Management, command: str, now_s: int = 1_030) -> str:
    answer = of.handle(command.encode(), now_s)
    assert answer is not None
    return answer.decode()


def test_a_delete_of_many_names_takes_no_time() -> None:
    """A packet holds 30,000 names, and the event loop does nothing else meanwhile."""
    of, _ = management("\n".join(f"k{i}:1|c" for i in range(5_000)), mgmtDelete=True)
    begin = time.process_time()
    answer = ask(of, "delcounters " + " ".join(["none"] * 12_000 + ["k7", "k7", "k1.*"]))
    assert time.process_time() - begin < 2  # each name looking at each key: half a minute
    assert answer.count("deleted: ") == 1
    assert ask(of, "delcounters " + " ".join(["k.*"] * 101)) == "ERROR\n"


def test_help_and_unknown_commands() -> None:
    of, _ = management()
    assert ask(of, "help\n") == (
        "Commands: stats, counters, timers, gauges, delcounters, deltimers, delgauges, health, "
        "config, quit\n\n"
    )
    for command in ("nosuch", "", "HELP", "stats,", "\xff"):
        assert ask(of, command) == "ERROR\n"
    assert of.handle(b"quit\r\n", 0) is None


def test_health_keeps_what_was_said_last() -> None:
    of, _ = management()
    said = [
        ask(of, c) for c in ("health", "health DOWN\n", "health", "health sideways", "health up x")
    ]
    assert said == [f"health: {word}\n" for word in ("up", "down", "down", "down", "up")]
    assert ask(management(healthStatus="down")[0], "health") == "health: down\n"


def test_stats_are_ages_and_counts() -> None:
    of, _ = management("a:1|c\nbad\nworse")
    assert ask(of, "stats") == (
        "uptime: 30\nmessages.last_msg_seen: 20\nmessages.bad_lines_seen: 2\n"
        "graphite.last_flush: 30\ngraphite.last_exception: 1030\ngraphite.flush_time: 0\n"
        "graphite.flush_length: 0\nEND\n\n"
    )


def test_what_was_aggregated_is_shown() -> None:
    of, _ = management("a.one:3|c\ng:-1.5|g\nx.t1:5|ms\nx.t1:2|ms")
    assert ask(of, "gauges") == "{ g: -1.5 }\nEND\n\n"
    assert ask(of, "timers") == "{ 'x.t1': [ 5, 2 ] }\nEND\n\n"
    counters = ask(of, "counters")
    assert "'a.one': 3" in counters and "'statsd.metrics_received': 4" in counters
    assert counters.endswith("}\nEND\n\n")


def test_nothing_is_deleted_unless_the_setting_allows_it() -> None:
    of, aggregator = management("a:1|c")
    assert ask(of, "delcounters a") == "ERROR\n"
    assert "a" in aggregator.counters()


def test_deletes_names_and_folders() -> None:
    packet = "a.one:1|c\na.two:1|c\nab:1|c\ng:1|g\nt.x:1|ms"
    of, aggregator = management(packet, mgmtDelete=True)
    assert ask(of, "delcounters a.* nope ab") == (
        "deleted: a.one\ndeleted: a.two\nmetric nope not found\ndeleted: ab\nEND\n\n"
    )
    assert all(key.startswith("statsd.") for key in aggregator.counters())
    assert ask(of, "delgauges g g") == "deleted: g\nmetric g not found\nEND\n\n"
    assert ask(of, "deltimers t.*") == "deleted: t.x\nEND\n\n"
    assert ask(of, "deltimers") == "END\n\n"
    assert (aggregator.gauges(), aggregator.timers()) == ({}, {})


@pytest.mark.parametrize("case", CONFIGS, ids=str)
def test_config_shows_what_etsys_daemon_shows(case: dict[str, Any]) -> None:
    of = Management(Aggregator(from_table(case["config"])), case["config"])
    assert ask(of, "config") == case["text"]


def test_counters_are_shown_in_the_order_in_which_they_came() -> None:
    of, aggregator = management("z:1|ms\ny:1|g\nb:1|c\na:1|c\nz:1|c\ny:1|c")
    assert list(aggregator.counters())[3:] == ["b", "a", "z", "y"]
    assert ask(of, "gauges") == "{ y: 1 }\nEND\n\n"


def test_a_report_lists_the_most_frequent_keys_first() -> None:
    counts = Counter({"a": 1, "b": 3, "c": 2})
    time = "Tue Nov 14 2023 22:13:20 GMT+0000"
    assert key_report(counts, 40, 1_700_000_000) == f"{time} count=3 key=b\n{time} count=2 key=c\n"
    assert key_report(counts, 100, 0).count("\n") == 3
    assert key_report(Counter(), 100, 0) == key_report(counts, 0, 0) == ""


# -- the listener --------------------------------------------------------------------------------


@asynccontextmanager
async def listening(of: Management) -> AsyncIterator[statsd_mgmt.MgmtListener]:
    listener = await statsd_mgmt.start("statsd_mgmt", "127.0.0.1", 0, of)
    try:
        yield listener
    finally:
        listener.close()
        await listener.drain()


async def test_commands_of_one_connection_are_answered_in_turn() -> None:
    async with listening(management("g:1|g")[0]) as listener:
        reader, writer = await asyncio.open_connection(*listener.address)
        for command, end in (("health\n", b"up\n"), ("gauges", b"END\n\n"), ("x\r\n", b"ERROR\n")):
            writer.write(command.encode())
            async with asyncio.timeout(5):
                assert (await reader.readuntil(end)).endswith(end)
        writer.write(b"quit\n")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_connections_beyond_the_limit_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statsd_mgmt, "CONNECTIONS_MAX", 1)
    async with listening(management()[0]) as listener, asyncio.timeout(5):
        _, first = await asyncio.open_connection(*listener.address)
        first.write(b"health")
        await asyncio.sleep(0.05)
        reader, second = await asyncio.open_connection(*listener.address)
        assert await reader.read() == b""
        assert listener.refused == 1
        first.close()
        second.close()


async def test_handshakes_count_among_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statsd_mgmt, "CONNECTIONS_MAX", 2)
    context = Tls(PEMS / "one.pem", PEMS / "one.key").context
    listener = await statsd_mgmt.start("mgmt", "127.0.0.1", 0, management()[0], tls=TlsShare(context))
    try:
        async with asyncio.timeout(10):
            silent = [await asyncio.open_connection(*listener.address) for _ in range(3)]
            assert await silent[0][0].read() == b""
            trust = ssl.create_default_context(cafile=str(PEMS / "one.pem"))
            reader, writer = await asyncio.open_connection(*listener.address, ssl=trust)
            assert await silent[1][0].read() == b""
            writer.write(b"health")
            assert b"up" in await reader.read(100)
        for _, stream in (*silent, (reader, writer)):
            stream.close()
    finally:
        listener.close()
        await listener.drain()


async def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statsd_mgmt, "IDLE_S", 0.05)
    async with listening(management()[0]) as listener, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(*listener.address)
        assert await reader.read() == b""
        writer.close()


async def test_the_end_does_not_wait_for_open_connections() -> None:
    async with listening(management()[0]) as listener, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(*listener.address)
        await asyncio.sleep(0.05)
        listener.close()
        await listener.drain()
        assert await reader.read() == b""
        writer.close()
