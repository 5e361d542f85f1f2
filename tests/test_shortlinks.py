"""Short links: ids and paths, and that none leads to another server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from http_api.app import make_app
from http_api.shortlinks import PATH_BYTES_MAX, decode, encode
from tests.fake_source import FakeSource
from tests.test_http_render import FakeStatus
from tgres_py.errors import BadRequest

Client = TestClient[Any, Any]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with TestClient(TestServer(make_app(FakeSource(), FakeStatus()))) as client:
        yield client


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)))
def test_an_id_is_its_path(path: str) -> None:
    id_ = encode(path.encode())
    assert id_.isalnum()
    assert decode(id_) == path.encode()


def test_ids_that_nothing_has() -> None:
    for id_ in ("", "a-b", encode(b"a\r\nSet-Cookie: x"), "z" * 3_000):
        with pytest.raises(BadRequest):
            decode(id_)


async def test_shorten_and_follow(client: Client) -> None:
    for path in ("render?target=a.b%20c&from=-1h", "render", "", "a/b"):
        answer = await client.get(f"/s/{path}")
        assert (answer.status, answer.content_type) == (200, "text/plain")
        followed = await client.get(await answer.text(), allow_redirects=False)
        assert (followed.status, followed.headers["Location"]) == (301, f"/{path}")


async def test_what_is_unique_is_left_out(client: Client) -> None:
    links = [
        await (await client.get(f"/s/render?a=1{extra}")).text() for extra in ("", "&_uniq=0.25")
    ]
    assert links[0] == links[1]


async def test_no_link_leads_elsewhere(client: Client) -> None:
    for path in (b"//evil.example/x", rb"/\evil.example"):
        followed = await client.get(f"/S/{encode(path)}", allow_redirects=False)
        assert followed.headers["Location"].startswith("/evil.example")


async def test_refusals(client: Client) -> None:
    assert (await client.get(f"/s/{'a' * (PATH_BYTES_MAX + 1)}")).status == 400
    assert (await client.get(f"/S/{encode(b'a b')}", allow_redirects=False)).status == 400
