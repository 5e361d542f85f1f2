"""Secrets stay where they are needed: passwords of other nodes, tokens."""

from __future__ import annotations

import asyncio
import base64
import json
import logging

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from click.testing import CliRunner

from http_api.app import DefaultHttpSettings, make_app
from http_api.cluster import FAILED_HEADER, REST_S, Cluster, Peer
from tests.fake_source import FakeSource
from tests.test_http_render import FakeStatus
from tgres_py.cli.main import main

SECRET = "s3cret-of-the-other-node"


async def asked(url: str) -> tuple[str, dict[str, str], Peer]:
    """What a front with one peer answers, its headers, and the peer."""
    cluster = Cluster([url], 1.0, 1 << 20)
    app = make_app(FakeSource(), FakeStatus(), DefaultHttpSettings(), cluster)
    async with TestClient(TestServer(app)) as client:
        answer = await client.get("/render?target=a.b&explain=1&format=json")
        return await answer.text(), dict(answer.headers), cluster.peers[0]


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"no http at all\r\n\r\n",
        b"HTTP/1.1 401 no\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 302 elsewhere\r\nLocation: http://x.invalid/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad",
    ],
)
async def test_a_node_that_fails_costs_no_password(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(sent)
        writer.close()

    node = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = node.sockets[0].getsockname()[1]
    try:
        body, headers, peer = await asked(f"http://front:{SECRET}@127.0.0.1:{port}")
    finally:
        node.close()
    wanted = base64.b64encode(f"front:{SECRET}".encode())
    assert heads and all(b"Authorization: Basic " + wanted in head for head in heads)
    assert headers[FAILED_HEADER] == f"127.0.0.1:{port}"
    assert "127.0.0.1" in caplog.text
    for told in (body, str(headers), caplog.text, peer.name, str(peer.url)):
        assert SECRET not in told and wanted.decode() not in told


async def test_long_requests_carry_the_password_too() -> None:
    seen: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.method, request.headers.get("Authorization", "")))
        return web.Response(status=503)

    node = web.Application()
    node.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(node) as server:
        url = f"http://front:{SECRET}@127.0.0.1:{server.port}"
        cluster = Cluster([url], 1.0, 1 << 20)
        await cluster.start()
        for name in ("a", "a" * 3_000):
            cluster.peers[0].rests_until_s -= 2 * REST_S
            await cluster.find([name], [])
        await cluster.close()
    assert seen == [
        (method, "Basic " + base64.b64encode(f"front:{SECRET}".encode()).decode())
        for method in ("GET", "POST")
    ]


@pytest.mark.parametrize("args", [(), ("--json",)])
def test_settings_are_shown_without_secrets(args: tuple[str, ...]) -> None:
    environ = {
        "TGRES_HTTP_TOKEN": f"{SECRET}-1",
        "TGRES_ADMIN_TOKEN": f"{SECRET}-2",
        "TGRES_CLUSTER_PEERS": f"http://x:{SECRET}@h:1,http://h:2",
        "TGRES_DSN": f"postgresql://x:{SECRET}@h/d",
    }
    run = CliRunner().invoke(main, ["config", "show", *args], env=environ)
    assert run.exit_code == 0
    assert SECRET not in run.output
    assert run.output.count("***") == 4
    if args:
        assert json.loads(run.output)["cluster_peers"]["value"] == [
            "http://x:***@h:1",
            "http://h:2",
        ]
