"""The command line: verbs against a stub of the HTTP API, exit codes, one-line errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import click
import pytest
from click.testing import CliRunner, Result

from tgres_py import __version__
from tgres_py.cli.main import VERBS, main
from tgres_py.config import setting_fields

ROOT = Path(__file__).parent.parent


@dataclass
class Stub:
    """A server that answers every POST with ``status`` and ``body`` and keeps what was asked."""

    url: str = ""
    status: int = 200
    body: bytes = b"[]"
    asked: list[tuple[str, dict[str, list[str]]]] = field(default_factory=list)

    def answer(self, data: Any) -> None:
        self.body = json.dumps(data).encode()


@pytest.fixture
def stub() -> Iterator[Stub]:
    state = Stub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            state.asked.append((self.path, parse_qs(form)))
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(state.body)))
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def tgres(*args: str, env: dict[str, str] | None = None) -> Result:
    clean: dict[str, str | None] = {name: None for name in os.environ if name.startswith("TGRES_")}
    result = CliRunner().invoke(main, args, env={**clean, **(env or {})})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def process(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TGRES_")}
    return subprocess.run(
        [sys.executable, "-m", "tgres_py.cli.main", *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**clean, **env},
        timeout=60,
    )


SERIES = [
    {"target": "a.b", "tags": {}, "datapoints": [[1.5, 1_700_000_000], [None, 1_700_000_060]]},
    {"target": "c", "tags": {}, "datapoints": [[10.0, 1_700_000_000], [12.25, 1_700_000_060]]},
]


def test_version() -> None:
    assert tgres("--version").output == f"tgres {__version__}\n"


def test_help_names_all_verbs_and_imports_none_of_the_heavy_modules() -> None:
    result = tgres("--help")
    assert result.exit_code == 0
    for verb in VERBS:
        assert f"  {verb} " in result.output
    code = (
        "import sys\nfrom tgres_py.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'pydantic', 'asyncpg', 'aiohttp', 'asyncio'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.splitlines()[-1] == "[]"


def test_client_verbs_do_not_import_the_server_s_modules() -> None:
    code = (
        "import sys, tgres_py.cli.render, tgres_py.cli.find\n"
        "print(sorted({'numpy', 'pydantic', 'asyncpg', 'aiohttp'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout == "[]\n"


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help(verb: str) -> None:
    result = tgres(verb, "--help")
    assert result.exit_code == 0 and "Usage:" in result.output


def commands(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """All commands that do something, by their words."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from commands(below, f"{path} {name}".strip())


def test_every_verb_with_an_answer_prints_json() -> None:
    # these run on, or their output is a file of a format of its own
    others = {"serve", "completion", "export csv", "export carbon"}
    without = {
        path
        for path, command in commands(main)
        if not any(parameter.name == "as_json" for parameter in command.params)
    }
    assert without == others


def test_serve_has_an_option_for_each_setting() -> None:
    text = tgres("serve", "--help").output
    for name in setting_fields():
        assert f"--{name.replace('_', '-')} " in text


def test_unknown_verbs_and_options_are_usage_errors() -> None:
    assert tgres("srve").exit_code == 2
    assert tgres("render").exit_code == 2
    assert tgres("find", "a", "--jsno").exit_code == 2


def test_render_asks_with_all_parameters(stub: Stub) -> None:
    stub.answer(SERIES)
    args = ["--from", "-2h", "--until", "-1h", "--max-points", "7", "--url", f"{stub.url}/"]
    tgres("render", "a.b", "scale(c, 2)", *args)
    asked = {
        "target": ["a.b", "scale(c, 2)"],
        "from": ["-2h"],
        "until": ["-1h"],
        "format": ["json"],
        "maxDataPoints": ["7"],
    }
    assert stub.asked == [("/render", asked)]


def test_render_prints_a_table(stub: Stub) -> None:
    stub.answer(SERIES)
    result = tgres("render", "*", env={"TGRES_URL": stub.url})
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[0] == ["time", "a.b", "c"]
    assert [line[2:] for line in lines[1:]] == [["1.5", "10"], ["-", "12.25"]]
    assert result.exit_code == 0


def test_render_prints_json(stub: Stub) -> None:
    stub.answer(SERIES)
    assert json.loads(tgres("render", "*", "--json", "--url", stub.url).output) == SERIES


def test_render_plots(stub: Stub) -> None:
    stub.answer(SERIES)
    result = tgres("render", "*", "--plot", "--url", stub.url)
    assert "a.b  min 1.5  max 1.5  last 1.5" in result.output
    assert "c  min 10  max 12.25  last 12.25" in result.output
    assert stub.asked[0][1]["maxDataPoints"] == ["160"]


def test_nothing_found_is_exit_code_1_and_stdout_stays_data(stub: Stub) -> None:
    result = tgres("render", "x", "--json", "--url", stub.url)
    assert (result.exit_code, json.loads(result.stdout)) == (1, [])
    assert result.stderr == "tgres: no series for x\n"
    stub.answer({"results": []})
    result = tgres("find", "x.*", "--url", stub.url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "tgres: nothing matches x.*\n"


def test_refusal_of_the_server_is_one_line_and_exit_code_2(stub: Stub) -> None:
    stub.status, stub.body = 400, b"target: unexpected end at position 4\nmore\n"
    result = tgres("render", "sum(", "--url", stub.url)
    assert result.exit_code == 2
    assert result.stderr == "tgres: the server refuses: target: unexpected end at position 4\n"


@pytest.mark.parametrize(
    ("status", "body", "part"),
    [(503, b"the store is away", "the store is away"), (200, b"<html>", "is this tgres?")],
)
def test_servers_that_cannot_answer_are_exit_code_3(
    stub: Stub, status: int, body: bytes, part: str
) -> None:
    stub.status, stub.body = status, body
    result = tgres("find", "x", "--url", stub.url)
    assert result.exit_code == 3
    assert part in result.stderr and result.stderr.count("\n") == 1


def test_no_server_is_exit_code_3(stub: Stub, unused_address: str) -> None:
    result = tgres("find", "x", "--url", f"http://{unused_address}")
    assert result.exit_code == 3
    assert result.stderr.startswith(f"tgres: no server answers at http://{unused_address}: ")


@pytest.fixture
def unused_address() -> Iterator[str]:
    """An address at which connections are refused: bound, but not listening."""
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def test_urls_of_other_kinds_are_refused() -> None:
    result = tgres("find", "x", "--url", "file:///etc/passwd")
    assert result.exit_code == 2 and "http://" in result.stderr


def test_proxies_of_the_environment_are_not_used(stub: Stub) -> None:
    stub.answer(SERIES)
    env = {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    assert tgres("render", "x", "--url", stub.url, env=env).exit_code == 0


def test_config_check_names_file_line_and_mend(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text("carbn = 'off'\n")
    result = tgres("config", "check", "--config", str(file))
    assert result.exit_code == 2
    assert result.stderr == (
        f"tgres: {file}, line 1: unknown setting carbn; did you mean carbon?\n"
    )
    file.write_text("carbon = 'off'\n")
    result = tgres("config", "check", "--config", str(file), "--json")
    assert result.exit_code == 0
    assert json.loads(result.output) == {
        "ok": True,
        "settings_given": 1,
        "schema_rules": 0,
        "aggregation_rules": 0,
    }
    assert tgres("config", "check", env={"TGRES_CONFIG": str(file)}).output.startswith("ok: ")


def test_config_show_tells_values_and_origins_without_the_password() -> None:
    env = {"TGRES_DSN": "postgresql://u:geheim@h/d", "TGRES_CARBON": "off"}
    text = tgres("config", "show", env=env).output
    assert "geheim" not in text
    shown = json.loads(tgres("config", "show", "--json", env=env).output)
    assert list(shown) == list(setting_fields())
    assert shown["dsn"] == {
        "value": "postgresql://u:***@h/d",
        "origin": "environment variable TGRES_DSN",
    }
    assert shown["carbon"]["value"] == "off"
    assert shown["series_max"] == {"value": 20_000_000, "origin": "default"}


def test_config_show_can_be_used_as_a_file(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text(tgres("config", "show", env={"TGRES_XFF": "0.125"}).output)
    shown = json.loads(tgres("config", "show", "--json", "--config", str(file)).output)
    assert shown["xff"]["value"] == 0.125
    assert shown["http"]["value"] == "127.0.0.1:8080"


def test_config_sample_is_toml_or_json() -> None:
    assert tgres("config", "sample").output.startswith("# Settings of tgres.")
    names = [entry["name"] for entry in json.loads(tgres("config", "sample", "--json").output)]
    assert names == list(setting_fields())


@pytest.fixture
def rule_files(tmp_path: Path) -> list[str]:
    schemas, aggregation = tmp_path / "s.conf", tmp_path / "a.conf"
    schemas.write_text("[apps]\npattern = ^apps\\.\nretentions = 1s:1h,10s:1d\n")
    aggregation.write_text(
        "[counts]\npattern = \\.count$\nxFilesFactor = 0\naggregationMethod = sum\n"
    )
    return ["--schemas", str(schemas), "--aggregation", str(aggregation)]


def test_schema_match_explains(rule_files: list[str]) -> None:
    data = json.loads(tgres("schema", "match", "apps.x.count", "--json", *rule_files).output)
    assert len(data) == 1
    match = data[0]
    assert (match["name"], match["schema"]["rule"], match["aggregation"]["rule"]) == (
        "apps.x.count",
        "apps",
        "counts",
    )
    assert (match["cf"], match["xff"], match["on_duplicate"]) == ("sum", 0.0, "last")
    assert [(a["step_s"], a["size"]) for a in match["archives"]] == [(1, 3_600), (10, 8_640)]
    assert match["memory_bytes"] == 400 + 9 * match["archives"][0]["width"]
    text = tgres("schema", "match", "apps.x.count", *rule_files).output
    for part in ("apps.x.count", "apps", "counts", "1s:1h", "10s:1d", "sum"):
        assert part in text


def test_config_check_counts_the_rules(rule_files: list[str]) -> None:
    result = tgres("config", "check", "--json", *rule_files, env={"TGRES_XFF": "0.1"})
    counts = json.loads(result.output)
    assert (counts["schema_rules"], counts["aggregation_rules"]) == (1, 1)


def test_schema_match_sorts_tags_as_the_receivers_do() -> None:
    data = json.loads(tgres("schema", "match", "a.b;z=1;c=2", "--json").output)
    assert data[0]["name"] == "a.b;c=2;z=1"


def test_schema_match_refuses_what_is_no_name() -> None:
    result = tgres("schema", "match", "a b")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1 and "a b" in result.stderr


def test_wrong_rule_files_stop_every_verb_that_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "s.conf"
    file.write_text("[a]\npattern = ^a\nretentions = 10s:6h,15s:1d\n")
    for verb in (["config", "check"], ["schema", "match", "a"], ["serve", "--http", "off"]):
        result = tgres(*verb, "--schemas", str(file))
        assert result.exit_code == 2, verb
        assert str(file) in result.stderr and result.stderr.count("\n") == 1


def test_errors_of_the_process_are_one_line_without_a_stack() -> None:
    run = process("serve", "--http", "nonsense")
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr == (
        "tgres: option --http: http: 'nonsense' is no address; write host:port or off\n"
    )
    run = process("serve", TGRES_JORNAL_SYNC_S="1")
    assert run.returncode == 2
    assert run.stderr == (
        "tgres: environment: unknown setting TGRES_JORNAL_SYNC_S; "
        "did you mean TGRES_JOURNAL_SYNC_S?\n"
    )
