"""The load generator: what it says it sends is what arrives, in every protocol; it stops by itself."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from receivers import carbon_line, carbon_pickle, tcp, udp
from tests.fake_sink import FakeRegistry, FakeSink
from tgres_py import clock
from tgres_py.cli.blast import Plan, Result, blast, send
from tgres_py.cli.blast_payload import LinePayload, PicklePayload, name_of, value_of
from tgres_py.cli.common import ServerUnreachable
from tgres_py.errors import BadRequest

START_S = 1_700_000_000


def plan(port: int, **changes: Any) -> Plan:
    settings: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "protocol": "line",
        "series": 1_234,
        "connections": 1,
        "rate": 0.0,
        "rounds": 3,
        "duration_s": 0.0,
        "step_s": 10,
        "start_s": START_S,
        "prefix": "p",
        "name_bytes": 0,
        "datagram_lines": 0,
    }
    return Plan(**(settings | changes))


def expected(p: Plan) -> set[tuple[bytes, int, float]]:
    return {
        (name_of(i, p.prefix, p.name_bytes).encode(), START_S + r * p.step_s, value_of(i, r))
        for i in range(p.series)
        for r in range(p.rounds)
    }


@pytest.mark.parametrize(("kind", "wire"), [(LinePayload, carbon_line.WIRE_FORMAT), (PicklePayload, carbon_pickle.wire_format())])  # fmt: skip
@pytest.mark.parametrize("count", [1, 499, 500, 501, 1_700])
def test_payload(kind: type[LinePayload | PicklePayload], wire: Any, count: int) -> None:
    names = [name_of(i, "p").encode() for i in range(90, 90 + count)]
    payload = kind(90, names)
    for round_number in (0, 1, 8_999):
        payload.render(round_number, START_S + round_number)
        registry = FakeRegistry()
        parsed = wire.parse(payload.data, 0, registry)
        assert registry.points(parsed) == [
            (name, START_S + round_number, value_of(90 + i, round_number))
            for i, name in enumerate(names)
        ]
        assert (parsed.rest, len(parsed.rejected)) == (b"", 0)


def test_names() -> None:
    assert name_of(1_234, "p") == "p.host000012.metric34"
    assert name_of(1_234, "p", 30) == "p.host000012.xxxxxxxx.metric34"
    assert {len(name_of(i, "p", 57)) for i in (0, 99, 12_345, 99_999_999)} == {57}
    assert len({name_of(i, "p", 57) for i in range(10_000)}) == 10_000


def test_values_have_two_decimals() -> None:
    values = {value_of(i, r) for i in range(9_000) for r in (0, 5)}
    assert len(values) == 9_000
    assert min(values) == 10.0 and max(values) == 99.99


async def run(p: Plan, sink: FakeSink) -> Any:
    """Runs a plan against a receiver of our own."""
    if p.protocol == "udp":
        listener: Any = await udp.start("t", p.host, 0, carbon_line.parse, sink)
    else:
        wire = carbon_pickle.wire_format() if p.protocol == "pickle" else carbon_line.WIRE_FORMAT
        listener = await tcp.start("t", p.host, 0, wire, sink)
    try:
        result = await asyncio.to_thread(send, replace(p, port=listener.address[1]))
    finally:
        listener.close()
        await listener.drain(10.0)
    return result


@pytest.mark.parametrize("changes", [
    {},
    {"connections": 3},
    {"protocol": "pickle"},
    {"protocol": "pickle", "connections": 2},
    {"protocol": "udp", "rate": 20_000.0},
    {"protocol": "udp", "rate": 20_000.0, "datagram_lines": 1, "series": 300},
    {"name_bytes": 57, "step_s": 60},
], ids=repr)  # fmt: skip
async def test_what_is_sent_arrives(changes: dict[str, Any]) -> None:
    p = plan(0, **changes)
    sink = FakeSink()
    result = await run(p, sink)
    assert result.points == p.series * p.rounds == len(sink.points)
    assert set(sink.points) == expected(p)
    assert not sink.rejected and not result.errors
    assert result.bytes > result.points * 20


async def test_rate_is_kept() -> None:
    """500 points at 1,000 a second take half a second (more on a busy machine)."""
    result = await run(plan(0, series=100, rounds=5, rate=1_000.0), FakeSink())
    assert result.points == 500
    assert result.seconds >= 0.44


async def test_duration_ends_it() -> None:
    sink = FakeSink()
    result = await run(plan(0, series=100, rounds=0, duration_s=0.2, rate=500.0), sink)
    assert 0 < result.points == len(sink.points) <= 130


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def test_nobody_listens() -> None:
    port = free_port()
    with pytest.raises(ServerUnreachable, match=f"nothing takes line at 127.0.0.1:{port}: "):
        send(plan(port, connections=2))


def test_receiver_goes_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept_and_reset() -> None:
            connection, _ = server.accept()
            connection.recv(10)
            connection.close()

        thread = threading.Thread(target=accept_and_reset)
        thread.start()
        result = send(plan(server.getsockname()[1], series=10_000, rounds=200))
        thread.join()
    assert result.errors
    assert result.points < 2_000_000


def test_command(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []

    def remember(p: Plan) -> Any:
        plans.append(p)
        return Result(points=100, bytes=5_000, seconds=0.5, errors=[])

    monkeypatch.setattr("tgres_py.cli.blast.send", remember)
    clock.replace_source(lambda: START_S + 7.5)
    try:
        text = CliRunner().invoke(blast, ["--series", "5", "--rounds", "2"])
        as_json = CliRunner().invoke(blast, ["--protocol", "pickle", "--duration", "2", "--rate", "50", "--series", "10", "--json"])  # fmt: skip
    finally:
        clock.replace_source(None)
    assert text.exit_code == as_json.exit_code == 0
    assert "200 points/s (line, 1 connection(s) to 127.0.0.1:2003" in text.output
    assert json.loads(as_json.output)["points_per_s"] == 200
    assert (plans[0].port, plans[0].rounds, plans[0].start_s) == (2003, 2, START_S - 10)
    assert (plans[1].port, plans[1].rounds, plans[1].start_s) == (2004, 0, START_S - 100)


@pytest.mark.parametrize(
    "arguments", [["--connections", "2", "--series", "1"], ["--prefix", "a b"]]
)
def test_bad_usage_is_one_sentence(arguments: list[str]) -> None:
    outcome = CliRunner().invoke(blast, arguments)
    assert isinstance(outcome.exception, BadRequest)
    assert str(outcome.exception).startswith(arguments[0])


@pytest.mark.parametrize("arguments", [["--series", "0"], ["--rate", "-1"], ["--rounds", "0"], ["--start-at", "5"]])  # fmt: skip
def test_bounds(arguments: list[str]) -> None:
    assert CliRunner().invoke(blast, arguments).exit_code == 2
