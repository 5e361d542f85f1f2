"""Wrong tokens: how many an address may try, and that right ones always open."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from http_api.admin import Admin
from http_api.app import DefaultHttpSettings, make_app
from http_api.guard import Access
from http_api.listen import HttpListener
from http_api.tokens import ADDRESSES_MAX, WINDOW_S, WRONG_MAX, TokenCheck, subscriber
from tests.fake_source import FakeSource
from tests.test_admin_frame import Verbs
from tests.test_http_render import FakeStatus

READER, OPERATOR = "t0ken-of-the-readers", "t0ken-of-the-operators"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@asynccontextmanager
async def asking(tokens: TokenCheck) -> AsyncIterator[Ask]:
    app = make_app(
        FakeSource(),
        FakeStatus(),
        DefaultHttpSettings(),
        admin=Admin(Verbs()),
        access=lambda: Access(READER, OPERATOR),
        tokens=tokens,
    )
    listener = HttpListener(app)
    await listener.start("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        yield Ask(session, f"http://127.0.0.1:{listener.address[1]}")
    await listener.close()


class Ask:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def __call__(self, authorization: str | None, path: str = "/version") -> tuple[int, str]:
        """Status and Retry-After."""
        headers = {"Authorization": authorization} if authorization is not None else {}
        async with self.session.get(self.url + path, headers=headers) as answer:
            body = await answer.text()
            assert READER not in body and OPERATOR not in body
            return answer.status, answer.headers.get("Retry-After", "")


async def test_many_wrong_tokens_are_told_to_wait_and_right_ones_still_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    clock = Clock()
    tokens = TokenCheck(clock)
    async with asking(tokens) as ask:
        for number in range(WRONG_MAX):
            assert await ask(f"Bearer {READER}{number}") == (401, "")
        clock.now += 15
        for _ in range(20):
            assert await ask("Bearer wrong") == (429, str(round(WINDOW_S) - 15))
        assert await ask(basic("x:wrong")) == (429, str(round(WINDOW_S) - 15))
        assert await ask("Bearer wrong", "/admin") == (429, str(round(WINDOW_S) - 15))
        # as behind a reverse proxy: the same address
        assert await ask(f"Bearer {READER}") == (200, "")
        assert await ask(basic(f"x:{READER}")) == (200, "")
        assert await ask(f"Bearer {OPERATOR}", "/admin") == (200, "")
        assert await ask(None) == (401, ""), "a browser asks for a password after a 401 only"
        assert await ask("Bearer wrong", "/healthz") == (200, "")
        clock.now += WINDOW_S
        assert await ask("Bearer wrong") == (401, "")
    assert tokens.refused == {"missing": 1, "wrong": WRONG_MAX + 1, "limited": 22}
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        "127.0.0.1: a wrong token",
        f"127.0.0.1: more than {WRONG_MAX} wrong tokens within {WINDOW_S:g} s",
        "127.0.0.1: a wrong token",
    ]


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {OPERATOR}", 200),
        (f"bearer  {OPERATOR}", 200),
        (f"Bearer {READER}", 401),
        (basic(f"x:{READER}"), 401),
        (basic(f"x:{OPERATOR}"), 401),  # what a browser remembers opens nothing for other pages
        (f"Bearer {OPERATOR[:-1]}", 401),
        ("Bearer é\udce9", 401),
        (OPERATOR, 401),
        (None, 401),
    ],
)
@pytest.mark.parametrize("path", ["/admin", "/admin/", "/%61dmin", "/admin/tests.count"])
async def test_only_its_own_token_opens_admin(
    authorization: str | None, status: int, path: str
) -> None:
    async with asking(TokenCheck()) as ask:
        found, _ = await ask(authorization, path)
        # verbs are asked by POST
        assert found == (405 if status == 200 and path.endswith("count") else status)


@cache  # mocks take some milliseconds
def wrong_request() -> web.Request:
    return make_mocked_request("GET", "/", {"Authorization": "Bearer wrong"})


def refuse(tokens: TokenCheck, host: str) -> int:
    answer = tokens.reader(wrong_request().clone(remote=host), READER)
    assert answer is not None
    return answer.status


def test_addresses_are_counted_apart_and_those_of_one_ipv6_network_together() -> None:
    tokens = TokenCheck(Clock())
    for _ in range(WRONG_MAX):
        refuse(tokens, "192.0.2.1")
    assert refuse(tokens, "192.0.2.1") == 429
    assert refuse(tokens, "192.0.2.2") == 401
    for number in range(WRONG_MAX):
        assert refuse(tokens, f"2001:db8::{number:x}") == 401
    assert refuse(tokens, "2001:db8::ffff:1") == 429
    assert refuse(tokens, "2001:db8:0:1::1") == 401
    assert subscriber("::ffff:192.0.2.1") == "192.0.2.1"
    assert subscriber("fe80::1%eth0") == "fe80::/64"
    assert subscriber("") == ""


def test_many_addresses_take_no_more_memory() -> None:
    tokens = TokenCheck(Clock())
    for number in range(ADDRESSES_MAX + 100):
        refuse(tokens, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(tokens._tries) == ADDRESSES_MAX
