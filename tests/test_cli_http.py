"""The client verbs against the real HTTP API, over a socket, with a source in memory."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from http_api.app import make_app
from tests.fake_source import FakeSource
from tgres_py import clock
from tgres_py.cli.main import main


class Ready:
    """A server that is well and has no metrics."""

    async def ready(self) -> None:
        return None

    def metrics(self) -> bytes:
        return b""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of an API that serves a.b.c, a.b.d, a.x and a series with tags, 30 minutes of each."""
    source = FakeSource()
    now_s = clock.now_s()
    times = range(now_s - 1_800, now_s, 10)
    for factor, name in enumerate(["a.b.c", "a.b.d", "a.x", "a.b.t;host=h1"], start=1):
        source.add(name, [(t, float(factor)) for t in times])
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[web.AppRunner, str]:
        runner = web.AppRunner(make_app(source, Ready()))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        return runner, f"http://{host}:{port}"

    runner, address = asyncio.run_coroutine_threadsafe(start(), loop).result()
    yield address
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def tgres(url: str, *args: str) -> Result:
    return CliRunner().invoke(main, [*args, "--url", url])


def test_find_lists_exactly_what_the_glob_matches(url: str) -> None:
    assert tgres(url, "find", "*").output == "a.\n"
    assert tgres(url, "find", "a.*").output == "a.b.\na.x\n"
    assert tgres(url, "find", "a.b").output == "a.b.\n"
    assert tgres(url, "find", "a.b.{c,d}").output == "a.b.c\na.b.d\n"
    nodes = json.loads(tgres(url, "find", "a.*", "--json").output)
    assert nodes == [{"path": "a.b", "is_leaf": False}, {"path": "a.x", "is_leaf": True}]


def test_find_of_nothing(url: str) -> None:
    result = tgres(url, "find", "zz.*", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, [])
    assert tgres(url, "find", "a").exit_code == 0
    assert tgres(url, "find", "a.q").exit_code == 1


def test_render_of_globs_and_functions(url: str) -> None:
    result = tgres(url, "render", "sumSeries(a.b.*)", "a.x", "--from=-10min", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.output)
    assert [one["target"] for one in answer] == ["sumSeries(a.b.*)", "a.x"]
    assert {v for v, _ in answer[0]["datapoints"] if v is not None} == {3.0}
    table = tgres(url, "render", "a.b.*", "--from=-5min").output.splitlines()
    assert table[0].split() == ["time", "a.b.c", "a.b.d"]
    assert 30 <= len(table) <= 32
    plot = tgres(url, "render", "a.b.c", "--from=-5min", "--plot").output
    assert "━━ a.b.c  min 1  max 1  last 1" in plot


def test_render_keeps_to_max_points(url: str) -> None:
    result = tgres(url, "render", "a.x", "--from=-20min", "--max-points", "10", "--json")
    assert 8 <= len(json.loads(result.output)[0]["datapoints"]) <= 10


@pytest.mark.parametrize(
    "args",
    [["sum(", "--json"], ["a.x", "--from=yesteryear"], ["noSuchFunction(a.x)"]],
)
def test_refusals_are_one_line(url: str, args: list[str]) -> None:
    result = tgres(url, "render", *args)
    assert result.exit_code == 2
    assert result.stderr.startswith("tgres: ") and result.stderr.count("\n") == 1


def test_render_of_nothing(url: str) -> None:
    assert tgres(url, "render", "no.such").exit_code == 1
