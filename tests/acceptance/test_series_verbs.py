"""``tgres series …`` against a real server: over HTTP with its token, and on its store, which it must notice."""

from __future__ import annotations

import itertools
import json
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from tests.acceptance.process import Known, ServerProcess, wait_for
from tgres_py.cli.main import main

TOKEN = "a-token-for-the-tests"

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("--late-grace-s=1", f"--admin-token={TOKEN}", "--self-metrics-s=0")
    process = ServerProcess(tmp_path_factory.mktemp("series"), *options)
    try:
        process.start()
        yield process
    finally:
        process.close()


Tgres = Callable[..., list[dict[str, Any]]]


@pytest.fixture(params=["url", "store"])
def tgres(request: pytest.FixtureRequest, server: ServerProcess) -> Tgres:
    """Runs ``tgres series VERB …``; the rows of its JSON."""

    def run(verb: str, *words: str, code: int | None = 0, says: str = "") -> list[dict[str, Any]]:
        where = ["--url", f"http://127.0.0.1:{server.ports['http']}", "--token", TOKEN]
        if request.param == "store":
            where = ["--data-dir", str(server.data)]
        done = CliRunner().invoke(main, ["series", verb, *words, *where, "--json"])
        assert done.exit_code in ((0, 1) if code is None else (code,)), done.output
        assert says in done.stderr
        rows: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        return rows

    return run


@pytest.fixture
def prefix() -> str:
    """The beginning of names that no other test uses."""
    return f"t{next(_numbers)}"


def send(server: ServerProcess, points: dict[str, float], age_s: int = 0) -> int:
    """Sends a point of each series; the time of its slot."""
    time_s = int(time.time()) - age_s
    server.send("".join(f"{name} {value} {time_s}\n" for name, value in points.items()))
    return time_s


def found(server: ServerProcess, glob: str) -> list[str]:
    query = urllib.parse.urlencode({"query": glob, "leavesOnly": 1})
    results: list[str] = json.loads(server.get(f"/metrics/expand?{query}")[1])["results"]
    return results


def render(server: ServerProcess, target: str) -> Known:
    now_s = int(time.time())
    return server.render(target, now_s - 600, now_s + 5)


def finds(server: ServerProcess, glob: str, *names: str) -> None:
    """Waits until these are all series of the glob: a change of the store is noticed soon."""
    wait_for(lambda: found(server, glob) == list(names), f"{glob} finds {names}")


def rows_are_made(tgres: Tgres, prefix: str, count: int) -> None:
    """Waits until the store has the rows of all series of a test."""
    wait_for(
        lambda: len(tgres("ls", "--regex", f"^{prefix}[.]", code=None)) == count, "rows are made"
    )


def test_ls_show_and_stale(server: ServerProcess, tgres: Tgres, prefix: str) -> None:
    at = send(server, {f"{prefix}.a": 1, f"{prefix}.b;host=x": 2, f"{prefix}.old": 3})
    send(server, {f"{prefix}.older": 4}, age_s=3_000)
    rows_are_made(tgres, prefix, 4)
    [row] = tgres("ls", f"{prefix}.a")
    assert row["retention"] == "1s:2h,10s:1d" and row["cf"] == "average"
    assert [r["name"] for r in tgres("ls", "--tag", f"name={prefix}.b")] == [f"{prefix}.b;host=x"]
    assert [r["name"] for r in tgres("ls", f"{prefix}.*", "--regex", "old$")] == [f"{prefix}.old"]
    assert tgres("ls", f"{prefix}.nosuch", code=1, says="no series found") == []
    tgres("ls", "--regex", "(", code=2, says="regular expression")
    [shown] = tgres("show", f"{prefix}.b;host=x")
    assert shown["tags"] == {"host": "x"} and shown["on_duplicate"] == "last"
    tgres("show", code=2, says="say which series")
    if shown["last_point_at_s"] is not None:  # the store alone may not know yet
        assert abs(shown["last_point_at_s"] - at) <= 2
    tgres("stale", f"{prefix}.*", "--for", "1d", code=1, says="had points lately")
    tgres("stale", f"{prefix}.*", "--for", "soon", code=2, says="no duration")


def test_rm_counts_first_then_moves_and_undo_brings_back(
    server: ServerProcess, tgres: Tgres, prefix: str
) -> None:
    names = [f"{prefix}.a", f"{prefix}.b"]
    at = send(server, dict.fromkeys(names, 5.0))
    finds(server, f"{prefix}.*", *names)
    tgres("rm", code=2, says="say which series")
    rows_are_made(tgres, prefix, 2)
    [dry] = tgres("rm", f"{prefix}.*", says="repeat with --yes")
    assert (dry["dry_run"], dry["series"], dry["names"]) == (True, 2, names)
    assert found(server, f"{prefix}.*") == names
    [done] = tgres("rm", f"{prefix}.*", "--yes", "--why", "a test", says="brings them back")
    assert (done["dry_run"], done["series"]) == (False, 2)
    finds(server, f"{prefix}.*")
    assert render(server, f"{prefix}.*") == {}
    batch = str(done["batch"])
    [listed] = [row for row in tgres("trash") if row["batch"] == done["batch"]]
    assert (listed["series"], listed["why"]) == (2, "a test")
    assert listed["purged_at_s"] - listed["removed_at_s"] == 604_800

    again = send(server, {names[0]: 7.0}, age_s=3)  # it lives again, as a series of its own
    finds(server, f"{prefix}.*", names[0])
    assert render(server, names[0]) == {names[0]: {again: 7.0}}
    wait_for(lambda: len(tgres("undo", batch)[0]["names_that_live_again"]) == 1, "its row is made")
    [dry] = tgres("undo", batch, says="live again")
    assert (dry["dry_run"], dry["series"], dry["names_that_live_again"]) == (True, 1, [names[0]])
    [done] = tgres("undo", batch, "--yes")
    assert done["series"] == 1
    finds(server, f"{prefix}.*", *names)
    wait_for(lambda: render(server, names[1]) == {names[1]: {at: 5.0}}, "the points are back")
    [done] = tgres("undo", batch, "--merge", "--yes")
    assert done["merged"] == 1
    tgres("undo", "987654", code=2, says="no batch 987654")


def test_undo_with_merge_joins_old_and_new_points(
    server: ServerProcess, tgres: Tgres, prefix: str
) -> None:
    name = f"{prefix}.a"
    old = send(server, {name: 5.0}, age_s=30)
    rows_are_made(tgres, prefix, 1)
    [done] = tgres("rm", name, "--yes")
    finds(server, name)
    new = send(server, {name: 7.0})
    finds(server, name, name)
    rows_are_made(tgres, prefix, 1)
    tgres("undo", str(done["batch"]), "--merge", "--yes")
    wait_for(lambda: render(server, name) == {name: {old: 5.0, new: 7.0}}, "both points are there")


def test_rename_moves_no_points(server: ServerProcess, tgres: Tgres, prefix: str) -> None:
    a, b, c = f"{prefix}.a.x", f"{prefix}.b.x", f"{prefix}.c"
    at = send(server, {a: 1.0, b: 2.0, c: 3.0})
    finds(server, f"{prefix}.*.x", a, b)
    rows_are_made(tgres, prefix, 3)
    [row] = tgres("rename", a, f"{prefix}.new", says="repeat with --yes")
    assert row == {"old": a, "new": f"{prefix}.new", "merged": False}
    assert found(server, a) == [a]
    tgres("rename", a, c, "--yes", code=2, says=f"names are taken (--merge joins the points): {c}")
    tgres("rename", f"{prefix}.nosuch", "x", code=1, says="no series is to be renamed")
    tgres("rename", f"^({prefix})[.](.)[.]x$", r"\3", "--regex", code=2, says="no group")
    rows = tgres("rename", f"^({prefix})[.](.)[.]x$", r"\1.x.\2;kind=t", "--regex", "--yes")
    assert [r["new"] for r in rows] == [f"{prefix}.x.a;kind=t", f"{prefix}.x.b;kind=t"]
    wait_for(lambda: found(server, f"{prefix}.*.x") == [], "the old names are gone")
    tagged = f"seriesByTag('name={prefix}.x.b')"
    wait_for(
        lambda: render(server, tagged) == {f"{prefix}.x.b;kind=t": {at: 2.0}},
        "the new one is found",
    )
    before = send(server, {f"{prefix}.x.b;kind=t": 4.0}, age_s=20)
    assert render(server, tagged) == {f"{prefix}.x.b;kind=t": {before: 4.0, at: 2.0}}


def test_merge_fills_what_the_other_lacks(server: ServerProcess, tgres: Tgres, prefix: str) -> None:
    a, b = f"{prefix}.a", f"{prefix}.b"
    first = send(server, {a: 1.0}, age_s=50)
    both = send(server, {a: 2.0, b: 20.0}, age_s=40)
    last = send(server, {a: 3.0})
    rows_are_made(tgres, prefix, 2)
    tgres("merge", a, "--into", f"{prefix}.nosuch", "--yes", code=2, says="no such series")
    [dry] = tgres("merge", a, "--into", b)
    assert (dry["dry_run"], dry["series"]) == (True, 1)
    [done] = tgres("merge", a, "--into", b, "--yes")
    assert (done["series"], done["names"]) == (1, [a])
    finds(server, f"{prefix}.*", b)
    assert render(server, b) == {b: {first: 1.0, both: 20.0, last: 3.0}}


def test_purge_removes_for_good(server: ServerProcess, tgres: Tgres, prefix: str) -> None:
    name = f"{prefix}.a"
    send(server, {name: 1.0})
    rows_are_made(tgres, prefix, 1)
    [done] = tgres("rm", name, "--yes")
    batch = str(done["batch"])
    [dry] = tgres("purge", batch)
    assert (dry["dry_run"], dry["series"]) == (True, 1)
    tgres("purge", batch, "--older-than", "1d", code=1, says="nothing is due")
    [done] = tgres("purge", batch, "--yes")
    assert (done["dry_run"], done["series"]) == (False, 1)
    tgres("undo", batch, code=2, says="no batch")
    tgres("purge", batch, code=1)


def test_changes_outlive_a_kill(server: ServerProcess) -> None:
    """Names that went and changed stay so when the journal is replayed."""

    def tgres(verb: str, *words: str) -> None:
        where = ["--url", f"http://127.0.0.1:{server.ports['http']}", "--token", TOKEN]
        done = CliRunner().invoke(main, ["series", verb, *words, *where, "--yes"])
        assert done.exit_code == 0, done.output

    names = ["kill.gone", "kill.old", "kill.stays", "kill.twice"]
    at = send(server, dict.fromkeys(names, 1.0), age_s=2)
    finds(server, "kill.*", *names)
    tgres("rm", "kill.gone", "kill.twice")
    tgres("rename", "kill.old", "kill.new")
    again = send(server, {"kill.twice": 9.0})
    assert render(server, "kill.twice") == {"kill.twice": {again: 9.0}}
    time.sleep(1.1)  # the journal's interval
    server.kill()
    server.start()
    assert render(server, "kill.*") == {
        "kill.new": {at: 1.0},
        "kill.stays": {at: 1.0},
        "kill.twice": {again: 9.0},
    }


def test_the_store_of_a_server_that_is_down(server: ServerProcess) -> None:
    """The embedded PostgreSQL runs for the time of the verb; the next start knows what was done."""
    at = send(server, {"down.a": 1.0, "down.b": 2.0})
    finds(server, "down.*", "down.a", "down.b")
    time.sleep(1.1)  # the journal's interval
    server.kill()

    def tgres(*words: str) -> str:
        done = CliRunner().invoke(main, ["series", *words, "--data-dir", str(server.data)])
        assert done.exit_code == 0, done.output
        return done.stdout

    wait_for(lambda: server.postgres_pid == 0, "the killed server's PostgreSQL has ended")
    assert "down.b" in tgres("ls", "down.*")
    assert server.postgres_pid == 0
    tgres("rm", "down.a", "--yes")
    tgres("rename", "down.b", "down.c", "--yes")
    server.start()
    assert render(server, "down.*") == {"down.c": {at: 2.0}}
