"""The frame of the operator verbs: declaration, HTTP behind the token, the CLI's rows; verbs of the tests' own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from http_api import admin as http_admin
from http_api.app import make_app
from http_api.guard import Access
from http_api.meters import Meters
from tests.fake_source import FakeSource
from tests.test_cli_http import Ready
from tgres_py.admin.frame import Admin, Args, Row, all_verbs, arg, note, parts, progress, verb
from tgres_py.cli.admin_client import Target, admin_command, run_verb
from tgres_py.cli.main import main
from tgres_py.cli.rows import duration, size
from tgres_py.errors import BadRequest, StoreUnavailable

TOKEN = "a-token-for-the-tests"


class CountArgs(Args):
    names: list[str] = arg([], "what to count", positional=True)
    times: int = arg(3, "how often", ge=0)
    fail: str = arg("", "how to fail: before, after or odd")


@verb("tests.count")
async def count(admin: Admin, args: CountArgs) -> AsyncIterator[Row]:
    """Counts.

    And more.
    """
    if args.fail == "before":
        raise StoreUnavailable("PostgreSQL is away")
    yield progress(0, args.times, "rows")
    yield note("a note")
    for number in range(args.times):
        yield {"number": number, "names": args.names, "age_s": 90.0, "used_bytes": 3_840}
    if args.fail == "after":
        raise BadRequest("no more")
    if args.fail == "odd":
        raise RuntimeError("a defect")


@verb("tests.live", live=True, changes=True)
async def needs_server(admin: Admin, args: Args) -> AsyncIterator[Row]:
    """Needs a server."""
    yield {"ok": True}


class Verbs:
    """Runs the verbs above on nothing; ``closed``: the endless one was ended."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def listing(self) -> list[Row]:
        return [one.describe() for one in all_verbs().values()]

    def start(self, name: str, given: Mapping[str, Any]) -> AsyncIterator[Row]:
        if name == "endless":
            return self.endless()
        verbs = all_verbs()
        if name not in verbs:
            raise BadRequest(f"no verb {name!r}")
        return verbs[name].start(Admin(None), given)  # type: ignore[arg-type]  # what is used of it is there

    async def endless(self) -> AsyncIterator[Row]:
        try:
            while True:
                yield {"x": "y" * 1_000}
        finally:
            self.closed.set()


class Api:
    """The API over a socket, in a thread of its own."""

    def __init__(self) -> None:
        self.verbs = Verbs()
        self.token = TOKEN
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.url = self.call(self._start())

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    async def _start(self) -> str:
        self.meters = Meters()
        app = make_app(
            FakeSource(),
            Ready(),
            admin=http_admin.Admin(self.verbs),
            meters=self.meters,
            access=lambda: Access(admin_token=self.token),
        )
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        host, port = self.runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def counted(self, status: int) -> None:
        """Waits until a call of a verb was counted with this status."""
        while not self.meters.requests["/admin/{verb}", status]:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        self.call(self.runner.cleanup())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    one = Api()
    yield one
    one.stop()


def rows_of(api: Api, name: str, **given: Any) -> list[Any]:
    return list(run_verb(Target(api.url, TOKEN), name, given))


def tgres(api: Api, *args: str, token: str = TOKEN) -> Result:
    command = admin_command("tests.count", nothing="nothing to count")
    return CliRunner().invoke(command, [*args, "--url", api.url, "--token", token])


def test_rows_arrive_in_order_with_progress_and_notes(api: Api) -> None:
    found = rows_of(api, "tests.count", names=["a", "b"], times=2_000)
    assert found[0] == {"progress": {"done": 0, "total": 2_000, "what": "rows"}}
    assert found[1] == {"note": "a note"}
    assert [row["number"] for row in found[2:]] == list(range(2_000))
    assert found[2]["names"] == ["a", "b"]


def test_wrong_arguments_and_verbs_are_refused_before_anything_runs(api: Api) -> None:
    for name, given, message in (
        ("tests.count", {"times": -1}, "tests.count: times: "),
        ("tests.count", {"nosuch": 1}, "tests.count: nosuch: "),
        ("tests.nosuch", {}, "no verb 'tests.nosuch'"),
        ("tests.live", {}, "tests.live needs a running server"),
    ):
        with pytest.raises(BadRequest, match=message):
            rows_of(api, name, **given)


def test_an_error_has_its_status_before_and_is_a_row_after_the_first_row(api: Api) -> None:
    with pytest.raises(Exception, match="answers 503: PostgreSQL is away"):
        rows_of(api, "tests.count", fail="before")
    assert rows_of(api, "tests.count", fail="after")[-1] == {"error": "no more", "status": 400}
    odd = rows_of(api, "tests.count", fail="odd")[-1]
    assert odd["status"] == 500 and "a defect" not in odd["error"]


def test_a_silent_verb_sends_empty_lines(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_admin, "HEARTBEAT_S", 0.02)
    release = asyncio.Event()

    async def silent() -> AsyncIterator[Row]:
        await release.wait()
        yield {"ok": True}

    monkeypatch.setattr(Verbs, "endless", lambda self: silent())
    reader_beats: list[bytes] = []

    async def read() -> bytes:
        host, _, port = api.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"POST /admin/endless HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        reader_beats.append(await reader.readuntil(b"1\r\n\n\r\n"))
        release.set()
        row = await reader.readuntil(b"}\n")
        writer.close()
        return row

    assert api.call(read()).endswith(b'{"ok":true}\n')
    assert reader_beats


def test_a_client_that_goes_away_ends_its_verb(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    rows = run_verb(Target(api.url, TOKEN), "endless", {})
    assert next(rows)["x"]
    rows.close()  # type: ignore[attr-defined]  # it is a generator, which the annotation doesn't say

    api.call(api.verbs.closed.wait())
    api.call(api.counted(499))
    assert "Traceback" not in caplog.text, "a client that hangs up is no defect of the server"


def test_without_the_token_nothing_runs(api: Api) -> None:
    for token in ("", "wrong", TOKEN[:-1], TOKEN + "x"):
        with pytest.raises(BadRequest, match="token"):
            list(run_verb(Target(api.url, token), "tests.count", {}))
    api.token = ""
    try:
        with pytest.raises(BadRequest, match="has no operator verbs"):
            list(run_verb(Target(api.url, TOKEN), "tests.count", {}))
    finally:
        api.token = TOKEN


def test_the_list_names_each_verb_with_its_arguments() -> None:
    described = all_verbs()["tests.count"].describe()
    assert described["help"] == "Counts."
    assert [one["name"] for one in described["arguments"]] == ["names", "times", "fail"]
    for one in all_verbs().values():
        assert one.help, one.name
        assert all(field.description for field in one.args.model_fields.values()), one.name


def test_command_prints_a_table_and_json_and_has_exit_codes(api: Api) -> None:
    table = tgres(api, "a", "b", "--times", "1")
    assert table.exit_code == 0
    title = "number  names      age     used"
    assert table.stdout == f"{title}\n     0  a, b   1.5 min  3.84 kB\n"
    assert table.stderr == "a note\n"
    data = json.loads(tgres(api, "--json", "--times", "2").stdout)
    assert [row["number"] for row in data] == [0, 1]
    nothing = tgres(api, "--times", "0")
    assert (nothing.exit_code, nothing.stdout) == (1, "")
    assert nothing.stderr.endswith("tgres: nothing to count\n")
    assert json.loads(tgres(api, "--times", "0", "--json").stdout) == []
    failed = tgres(api, "--fail", "after")
    assert (failed.exit_code, failed.stderr) == (2, "a note\ntgres: no more\n")
    assert tgres(api, "--times", "x").exit_code == 2
    assert "Counts." in tgres(api, "--help").stdout


def test_help_shows_default_durations_as_people_write_them() -> None:
    stale = CliRunner().invoke(main, ["series", "stale", "--help"]).stdout
    assert "[default: 30d]" in " ".join(stale.split())
    assert "[default: 0" not in CliRunner().invoke(main, ["series", "rm", "--help"]).stdout


def test_a_server_that_is_not_there_is_exit_code_3() -> None:
    run = CliRunner().invoke(main, ["series", "ls", "--url", "http://127.0.0.1:1", "--token", "x"])
    assert run.exit_code == 3 and run.stderr.startswith("tgres: no server answers")


def test_a_data_directory_that_is_none_is_not_made(tmp_path: Any) -> None:
    run = CliRunner().invoke(main, ["series", "ls", "--data-dir", str(tmp_path / "nosuch")])
    assert run.exit_code == 2 and "no data directory" in run.stderr
    assert not (tmp_path / "nosuch").exists()


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5 s"), (90, "1.5 min"), (7_200, "2 h"), (864_000, "10 d")]
)
def test_durations(value: float, text: str) -> None:
    assert duration(value) == text


def test_sizes_and_parts() -> None:
    assert [size(n) for n in (12, 3_840, 5_100_000)] == ["12 bytes", "3.84 kB", "5.1 MB"]
    assert [(s.start, s.stop) for s in parts(5, 2)] == [(0, 2), (2, 4), (4, 5)]
