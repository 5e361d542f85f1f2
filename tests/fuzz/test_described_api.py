"""Schemathesis against a real server: what /openapi.json describes is what is answered.

Every operation gets requests that fit its description and requests that don't: no answer is a server error, each
has a status and a content type that are described.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings

from http_api.admin import Admin
from http_api.app import make_app
from http_api.openapi import describe
from tests.fuzz.effort import fuzz
from tests.fuzz.test_answers import make_source
from tests.test_http_render import FakeStatus
from tests.test_openapi import Verbs

schemathesis = pytest.importorskip("schemathesis", reason="pip install schemathesis")

from schemathesis import GenerationMode  # noqa: E402 - optional
from schemathesis.checks import not_a_server_error  # noqa: E402 - optional
from schemathesis.specs.openapi.checks import (  # noqa: E402 - optional
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 2


def _takes_something(told: dict[str, Any]) -> bool:
    given = [one for one in told.get("parameters", ()) if one["in"] == "query"]
    return bool(given or "requestBody" in told)


# what takes nothing can't be asked wrongly
OPERATIONS = [
    (path, method, mode)
    for path, methods in describe()["paths"].items()
    for method, told in methods.items()
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or _takes_something(told)
]


class Server:
    """The app on a free port, in a loop of its own thread."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="api")
        self._thread.start()
        assert self._ready.wait(30)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = make_app(make_source(), FakeStatus(), admin=Admin(Verbs()))
        runner = web.AppRunner(app)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def schema() -> Any:
    return schemathesis.openapi.from_dict(describe())


@pytest.fixture(scope="module")
def statuses() -> Iterator[Counter[int]]:
    """What was answered, of all operations together."""
    counts: Counter[int] = Counter()
    yield counts
    print(dict(counts))


@pytest.mark.parametrize(("path", "method", "mode"), OPERATIONS, ids=lambda value: str(value))
def test_operation(
    server: Server, schema: Any, statuses: Counter[int], path: str, method: str, mode: Any
) -> None:
    cases = schema[path][method.upper()].as_strategy(generation_mode=mode)

    def holds(case: Any) -> None:
        response = case.call(base_url=server.url, allow_redirects=False, timeout=30)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    def run(chosen: settings) -> None:
        chosen(given(cases)(holds))()

    fuzz(run, examples=EXAMPLES, share=0.1)
