"""`tgres retention …` on a real server under load: a change of mind loses nothing, survives kill -9, can be undone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.load import Load, Sent
from tests.acceptance.process import Known, ServerProcess, environment, wait_for

TOKEN = "a-token-for-the-tests"
# chunks complete, are written and freed within the seconds that a test lasts
HASTE = ["--late-grace-s=2", "--flush-pace-s=0.5", "--sql-freshness-s=1", "--checkpoint-s=10"]
LONGER = "1s:3h,10s:2d,1m:30d"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path, *HASTE, f"--admin-token={TOKEN}", retentions="1s:2h,10s:1d")
    yield server
    server.close()


def tgres(server: ServerProcess, *args: str, code: int = 0, alone: bool = False) -> Any:
    """The JSON of an operator verb; ``alone``: on the data directory."""
    target = ["--data-dir", str(server.data)]
    if not alone:
        target = ["--url", f"http://127.0.0.1:{server.ports['http']}", "--token", TOKEN]
    done = subprocess.run(
        [sys.executable, "-m", "tgres_py.cli.main", "retention", *args, *target, "--json"],
        capture_output=True,
        cwd=server.folder,
        env=environment(),
        timeout=120,
    )
    assert done.returncode == code, (done.stderr.decode(), server.log)
    return json.loads(done.stdout) if done.stdout.strip() else None


def ask(server: ServerProcess, verb: str, **given: Any) -> list[dict[str, Any]]:
    """The results of a verb over HTTP."""
    rows = server.run_verb(f"retention.{verb}", TOKEN, **given)
    return [row for row in rows if not row.keys() & {"progress", "note"}]


def rules(folder: Path, retentions: str) -> str:
    path = folder / "wanted.conf"
    path.write_text(f"[load]\npattern = ^load\\.\nretentions = {retentions}\n")
    return str(path)


def assert_all_there(server: ServerProcess, sent: Known) -> None:
    times = [t for slots in sent.values() for t in slots]
    got = server.render("load.*", min(times) - 1, max(times))
    for name, slots in sent.items():
        known = got.get(name, {})
        missing = {t: v for t, v in slots.items() if known.get(t) != v}
        assert not missing, f"{name}: {len(missing)} of {len(slots)}: {list(missing.items())[:5]}"


def test_a_change_under_load_loses_nothing(server: ServerProcess) -> None:
    server.start()
    sent = Sent()
    load = Load(sent, server.ports["carbon"], int(time.time()) - 6_000, series=60, pause_s=0.02)
    wait_for(lambda: server.sum_of("tgres_points_stored_total") > 12_000, "some load")
    wanted = rules(server.folder, LONGER)

    # what would change
    [planned] = tgres(server, "plan", "--schemas", wanted)
    assert planned["series"] == 60 and planned["slots_lost"] == 0
    assert planned["gained"] == ["1s:2h now 3h", "10s:1d now 2d", "1m:30d new"]
    assert ask(server, "plan") == []

    # the change, slow enough that a kill comes into it
    tgres(server, "apply", "--schemas", wanted, "--rate", "15", "--detach")
    wait_for(lambda: ask(server, "status")[0]["moved"] >= 15, "a part has moved")
    until = time.monotonic() + 1.5  # what is received is in the journal after a second
    seen: Known = {}
    while time.monotonic() < until:
        # within reach of the finest archive before and after the change
        now = server.render("load.*", int(time.time()) - 6_500, load.next_s)
        for name, slots in seen.items():
            hidden = slots.keys() - now.get(name, {}).keys()
            assert not hidden, f"{name}: shown before, not now: {hidden}"
        seen = now
    killed = time.monotonic()
    server.kill()
    load.abandon()
    must = sent.known(before=killed - 1.5)
    server.start()
    [job] = ask(server, "status")
    assert job["state"] in ("running", "done")
    tgres(server, "resume", "1", "--rate", "0", code=0 if job["state"] == "running" else 2)
    [job] = ask(server, "status")
    assert (job["state"], job["moved"], job["waiting"]) == ("done", 60, 0)
    assert_all_there(server, must)

    # points go on under the new rules; the old archives come back with them
    load = Load(sent, server.ports["carbon"], load.next_s, series=60, pause_s=0.02)
    time.sleep(1)
    load.stop()
    lost = {id(points) for moment, points in sent.batches if killed - 1.5 <= moment < killed + 1}
    sent.batches = [batch for batch in sent.batches if id(batch[1]) not in lost]
    [undone] = tgres(server, "undo", "1")
    assert undone["state"] == "undone"
    assert_all_there(server, sent.known())
    assert ask(server, "plan") == []
    assert server.imbalance() == 0

    # the same without a server, and with one that starts meanwhile
    assert server.terminate() == 0
    [done] = tgres(server, "apply", "--schemas", wanted, alone=True)
    assert (done["state"], done["moved"]) == ("done", 60)
    server.start()
    assert_all_there(server, sent.known())
    [forgotten] = tgres(server, "forget", "2", alone=True)  # the server does it
    assert forgotten["state"] == "forgotten"
    assert_all_there(server, sent.known())
