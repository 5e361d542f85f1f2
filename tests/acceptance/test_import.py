"""Import beside a running server: history appears at once, live points stay, both under load."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import whisper

from tests.acceptance.process import ROOT, Known, ServerProcess, environment, wait_for

HISTORY = 3_000


def tgres(*words: str, stdin: str | None = None, code: int = 0) -> str:
    """Runs the command; its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "tgres_py.cli.main", *words],
        input=stdin,
        capture_output=True,
        text=True,
        env=environment(),
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path_factory.mktemp("import"), "--late-grace-s=2")
    try:
        process.start()
        yield process
    finally:
        process.close()


class Sender(threading.Thread):
    """Sends ten series each second until it is told to end; knows what it sent."""

    def __init__(self, server: ServerProcess) -> None:
        super().__init__(daemon=True)
        self.sent: Known = {}
        self.stop = threading.Event()
        self._server = server

    def run(self) -> None:
        while not self.stop.wait(0.2):
            now_s = int(time.time())
            lines = ""
            for i in range(10):
                value = float(-now_s - i)
                lines += f"live.{i}.sum {value} {now_s}\n"
                self.sent.setdefault(f"live.{i}.sum", {})[now_s] = value
            with suppress(OSError):  # a test that failed has ended the server
                self._server.send(lines)


def make_files(root: Path, names: list[str], now_s: int, pairs: list[tuple[int, int]]) -> Known:
    """Files whose finest archive is full up to now; their points."""
    pick = random.Random(len(names))
    known: Known = {}
    for name in names:
        path = root / (name.replace(".", os.sep) + ".wsp")
        path.parent.mkdir(parents=True, exist_ok=True)
        whisper.create(str(path), pairs, 0.0, "sum")
        step_s = pairs[0][0]
        end_s = now_s // step_s * step_s
        points = {end_s - i * step_s: float(pick.randrange(100)) for i in range(HISTORY)}
        whisper.update_many(str(path), list(points.items()), now=now_s)
        known[name] = points
    return known


def test_whisper_files_beside_live_traffic(server: ServerProcess, tmp_path: Path) -> None:
    sender = Sender(server)
    sender.start()
    wait_for(lambda: len(sender.sent.get("live.0.sum", {})) >= 3, "live points")
    now_s = int(time.time())
    same = [(1, 7_200), (10, 8_640)]
    names = [f"live.{i}.sum" for i in range(8)] + [f"old.{i}.sum" for i in range(30)]
    known = make_files(tmp_path, names, now_s, same)
    known |= make_files(tmp_path, ["live.8.sum", "other.a"], now_s, [(2, 7_200), (20, 8_640)])
    (tmp_path / "bad.wsp").write_bytes(b"no whisper file")

    arguments = ["import", "whisper", str(tmp_path), "--data-dir", str(server.data)]
    data: dict[str, Any] = json.loads(tgres(*arguments, "--json", code=4))
    assert data["imported"] == 40 and data["converted"] == 1
    assert [one["path"] for one in data["left_out"]] == ["bad.wsp"]

    sender.stop.set()
    sender.join()
    check_points(server, known, sender.sent, now_s)
    # nothing is lost when all chunks are written, and the server has read its journal again
    server.kill()
    server.start()
    check_points(server, known, sender.sent, now_s)
    again = json.loads(tgres(*arguments, "--json", code=4))
    assert again["imported"] == 0 and again["imported_before"] == 40


def check_points(server: ServerProcess, known: Known, sent: Known, now_s: int) -> None:
    from_s, until_s = now_s - HISTORY + 10, now_s + 60
    found = {
        name: points
        for target in ("live.*.sum", "old.*.sum")
        for name, points in server.render(target, from_s, until_s).items()
    }
    live = {
        name: {t: v for t, v in points.items() if t <= until_s} for name, points in sent.items()
    }
    for name in (*(f"live.{i}.sum" for i in range(8)), "old.0.sum", "old.29.sum"):
        expected = {t: v for t, v in known[name].items() if t > from_s} | live.get(name, {})
        assert found[name] == expected, name
    # under archives of its own: each value of two seconds stands at its time
    expected = {t: v for t, v in known["live.8.sum"].items() if t > from_s} | live["live.8.sum"]
    assert found["live.8.sum"] == expected
    assert found["live.9.sum"] == live["live.9.sum"]
    coarse = server.render("old.3.sum", now_s - 10_000, now_s)["old.3.sum"]
    inner = range((now_s - HISTORY) // 10 * 10 + 10, now_s // 10 * 10 - 10, 10)
    assert {t: coarse[t] for t in inner} == {
        t: sum(known["old.3.sum"][t + i] for i in range(10)) for t in inner
    }
    merged = known["live.3.sum"] | live["live.3.sum"]
    coarse = server.render("live.3.sum", now_s - 10_000, now_s)["live.3.sum"]
    assert {t: coarse[t] for t in inner} == {
        t: sum(merged[t + i] for i in range(10)) for t in inner
    }


def test_compared_with_another_server(server: ServerProcess, tmp_path: Path) -> None:
    """This server stands for the old graphite-web: its series without the prefix."""
    now_s = int(time.time())
    make_files(tmp_path, ["cmp.a", "cmp.b"], now_s, [(1, 7_200), (10, 8_640)])
    url = f"http://127.0.0.1:{server.ports['http']}"
    words = ["import", "whisper", str(tmp_path), "--data-dir", str(server.data), "--json"]
    against = ["--verify-against", url, "--url", url]
    same = json.loads(tgres(*words, "--verify", *against))
    assert same["verified"]["missing"] == same["compared"]["missing"] == 0
    assert same["compared"]["series"] == 2 and same["compared"]["points"] > 5_000
    server.send("".join(f"cmp.a 1e9 {now_s - age}\n" for age in (400, 401)))
    server.send(f"cmp.b 1 {now_s - HISTORY - 100}\n")
    moved = json.loads(tgres(*words, "--prefix", "copy", *against, code=4))
    assert moved["compared"]["different"] >= 2 and moved["compared"]["missing"] >= 1
    assert any(text.startswith("copy.cmp.a at ") for text in moved["compared"]["examples"])


def test_text_in_and_out_beside_a_server(server: ServerProcess, tmp_path: Path) -> None:
    now_s = int(time.time())
    server.send(f"text.a 1 {now_s - 5}\ntext.a 2 {now_s - 4}\n")
    target = ["--data-dir", str(server.data), "--schemas", str(server.folder / "schemas.conf")]
    rows = (
        f"path,time,value\ntext.a,{now_s - 5},9\ntext.a,{now_s - 6},3\ntext.b,{now_s - 50_000},4\n"
    )
    done = json.loads(tgres("import", "csv", "-", *target, "--json", stdin=rows))
    assert done["points"] == 3 and done["series"] == 2 and done["refused"] == {}
    line = f"text.c;host=a 5 {now_s - 7}\nnonsense\n"
    tgres("import", "carbon", "-", *target, stdin=line, code=4)
    wait_for(lambda: server.render("text.b", now_s - 60_000, now_s) != {}, "text.b")
    assert server.render("text.a", now_s - 60, now_s)["text.a"] == {
        now_s - 6: 3.0,
        now_s - 5: 1.0,
        now_s - 4: 2.0,
    }
    far = now_s - 50_000
    assert server.render("text.b", now_s - 60_000, now_s)["text.b"] == {far // 10 * 10: 4.0}

    out = tgres("export", "csv", "text.*", "--data-dir", str(server.data), "--from", "1h")
    assert out == (
        f"path,time,value\ntext.a,{now_s - 6},3.0\ntext.a,{now_s - 5},1.0\ntext.a,{now_s - 4},2.0\n"
    )
    lines = tgres("export", "carbon", "--tag", "host=a", "--data-dir", str(server.data))
    assert lines == f"text.c;host=a 5.0 {now_s - 7}\n"
    words = ["export", "whisper", str(tmp_path), "text.*", "--data-dir", str(server.data), "--json"]
    assert json.loads(tgres(*words))["files"] == 2
    fetched = whisper.fetch(str(tmp_path / "text" / "a.wsp"), now_s - 7, now_s - 4, now_s)
    assert fetched is not None and fetched[1] == [3.0, 1.0, 2.0]
    tgres("export", "csv", "no.such", "--data-dir", str(server.data), code=1)
    tgres("export", "csv", "--data-dir", str(server.data), code=2)
    tgres("import", "whisper", str(tmp_path), "--dsn", "postgresql://nobody@127.0.0.1:1/x", code=3)
