"""The documents say what is: settings, verbs, formulas, commands, files."""

from __future__ import annotations

import ast
import configparser
import re
import shlex
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import click
import pytest

from tests.rig import Rig
from tgres_py.cli.main import VERBS, main
from tgres_py.config import setting_fields
from tgres_py.config_doc import (
    BEGIN,
    END,
    STATSD_BEGIN,
    STATSD_END,
    sample_toml,
    settings_table,
    with_table,
)
from tgres_py.config_sources import load
from tgres_py.model.event import Event
from tgres_py.model.retention import bytes_per_series, make_bundle, parse_retention
from tgres_py.storage.postgres import PostgresStore

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_table_of_settings_is_up_to_date() -> None:
    assert with_table(README) == README, "run: python -m tgres_py.config_doc README.md"


def test_every_setting_is_in_the_table_and_in_the_sample() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", settings_table(), re.MULTILINE)
    assert rows == list(setting_fields())
    assert re.findall(r"^#(\w+) = ", sample_toml(), re.MULTILINE) == rows


def test_table_needs_its_marks() -> None:
    with pytest.raises(ValueError, match="marks"):
        with_table("no marks here")
    statsd = f"{STATSD_BEGIN}\n(stale)\n{STATSD_END}\n"
    old = f"a\n{BEGIN}\n(stale)\n{END}\nb\n{statsd}c\n"
    assert "(stale)" not in with_table(old)
    assert with_table(old).startswith("a\n") and with_table(old).endswith(f"{STATSD_END}\nc\n")
    assert f"{END}\nb\n{STATSD_BEGIN}\n|" in with_table(old)


def test_readme_names_every_verb() -> None:
    for verb in VERBS:
        assert f"`tgres {verb}" in README


def options_of(command: click.Command) -> Iterator[str]:
    """The options of a command and of all below it."""
    for parameter in command.params:
        yield from parameter.opts
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from options_of(below)


def test_settings_that_the_readme_names_exist() -> None:
    endings = r"_(?:s|bytes|max)"
    named = set(re.findall(rf"`([a-z]+(?:_[a-z]+)*{endings})`", README)) - {"step_s"}
    assert named and named <= set(setting_fields())
    options = set(re.findall(r"(?<!\w)--[a-z][a-z-]+", README))
    assert options - {"--help"} <= set(options_of(main))


def test_every_setting_is_used() -> None:
    """A setting that nothing reads would be a promise that isn't kept."""
    read: set[str] = set()
    for package in ("tgres_py", "http_api", "receivers"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name not in ("config_doc.py", "options.py"):
                tree = ast.parse(path.read_text(encoding="utf-8"))
                read |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert set(setting_fields()) - read == set()


def test_readme_s_numbers_of_memory_and_disk_are_the_code_s() -> None:
    spec = make_bundle(parse_retention("10s:6h,1m:7d,10m:5y"))
    table = README[README.index("| archive | slots |") : README.index("`cache_bytes_max` bounds")]
    for archive, row in zip(spec.archives, table.splitlines()[2:5], strict=True):
        disk = archive.chunks * (140 + 8 * archive.width)
        numbers = [int(n.replace(",", "")) for n in re.findall(r"(?<=\| )[\d,]+(?= |\b)", row)]
        assert numbers[-4:] == [archive.size, archive.width, archive.chunks, disk]
    size = bytes_per_series(spec)
    assert f"so {size.memory:,} bytes of memory" in table
    assert f"at most {size.disk / 1e6:.1f} MB of disk" in table


def blocks(page: str, *languages: str) -> list[str]:
    """The page's fenced blocks in these languages."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


async def fill(database: str, folder: Path) -> None:
    """The series that the documents' queries name, two hours of them, with a gap, and a deployment."""
    now_s = int(time.time()) // 600 * 600
    silent = range(now_s - 1_800, now_s - 1_500, 10)
    store = PostgresStore(database)
    await store.open()
    rig = Rig(store, folder, make_bundle(parse_retention("10s:6h,1m:7d,10m:5y")), now_s=now_s)
    await rig.start()
    times = [t for t in range(now_s - 7_200, now_s, 10) if t not in silent]
    for number, name in enumerate(
        ("servers.web1.load", "servers.web1.requests", "servers.web2.load", "cpu.load;dc=a")
    ):
        rig.add((name, t, number + (t // 10) % 17) for t in times)
    await rig.stop()
    await store.add_event(Event("release 7", now_s - 3_600, ("deploy", "web")))
    await store.close()


@pytest.mark.parametrize("page", ["README.md", "docs/SQL.md"])
async def test_queries_of_the_documents_find_something(
    page: str, database: str, tmp_path: Path
) -> None:
    await fill(database, tmp_path)
    statements = [
        re.sub(r"^--.*\n", "", statement, flags=re.MULTILINE).strip()
        for block in blocks(page, "sql")
        for statement in block.split(";\n")
    ]
    assert len(statements) >= 2
    connection = await asyncpg.connect(database)
    try:
        for statement in filter(None, statements):
            rows = await connection.fetch(statement)
            if statement.startswith("SELECT"):
                assert rows and any(v is not None for row in rows for v in row.values()), statement
    finally:
        if page == "docs/SQL.md":  # an account belongs to all databases of the tests' server
            await connection.execute("DROP OWNED BY analyst; DROP ROLE analyst")
        await connection.close()


def test_ci_finds_the_readme_s_commands() -> None:
    for mark in ("start-command", "test-command"):
        assert re.search(rf"<!-- {mark} -->\n```sh\n[^\n]+\n```\n", README)


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tgres_py/ARCHITECTURE.md"]
)
def test_files_that_documents_name_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in re.findall(r"`((?:tgres_py|receivers|http_api|tests)/[\w./]*[\w/])`", text):
        assert (ROOT / name).exists(), name


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md"))),
]


def shell_blocks(page: str) -> str:
    """All shell of a page; what stands for a list of things (``…``) is left out."""
    return "\n".join(blocks(page, "sh", "bash"))


@pytest.mark.parametrize("page", PAGES)
def test_shell_in_documents_is_shell(page: str) -> None:
    run = subprocess.run(["bash", "-n"], input=shell_blocks(page), capture_output=True, text=True, check=False)  # fmt: skip
    assert run.returncode == 0, run.stderr


def tgres_commands(page: str) -> list[list[str]]:
    """The words after each ``tgres`` that is a command, up to a pipe, && or redirection."""
    found: list[list[str]] = []
    for line in shell_blocks(page).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        command: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set("|&;<>"):
                command.append(word)
                continue
            if command and (command[0] == "tgres" or command[0].endswith("/bin/tgres")):
                found.append(command[1:])
            command = []
    return found


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_documents_exist(page: str) -> None:
    for words in tgres_commands(page):
        context = click.Context(main, info_name="tgres")
        command: click.Command = main
        rest = list(words)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            found = command.get_command(context, rest[0])
            assert found is not None, words
            command, rest = found, rest[1:]
        known = {o for p in command.get_params(context) for o in (*p.opts, *p.secondary_opts)}
        given = {w.partition("=")[0] for w in rest if re.match(r"-{1,2}[a-z]", w)}
        assert given <= known | {"--version"}, (words, given - known)


@pytest.mark.parametrize("page", PAGES)
def test_files_in_documents_can_be_read(page: str) -> None:
    for text in blocks(page, "toml"):
        tomllib.loads(text)
    for text in blocks(page, "ini"):
        configparser.ConfigParser(interpolation=None).read_string(text)
    for text in blocks(page, "python"):
        compile(text, page, "exec")


@pytest.mark.parametrize("page", PAGES)
def test_settings_files_in_documents_are_taken(page: str, tmp_path: Path) -> None:
    """Those that are for tgres: they say so, or begin with one of its tables."""
    for text in blocks(page, "toml"):
        if text.startswith(("# tgres.toml", "[statsd]", "[[schema]]")):
            file = tmp_path / "tgres.toml"
            file.write_text(text)
            load(file, {}, {})


@pytest.mark.parametrize("page", PAGES)
def test_links_between_documents_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), target
        headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
        assert not anchor or anchor in anchors, target


@pytest.mark.parametrize(
    "page", ["docs/OPERATIONS.md", "docs/MIGRATION.md", "docs/CLIENTS.md", "docs/SQL.md"]
)
def test_settings_and_metrics_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    metrics = (ROOT / "docs" / "METRICS.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tgres_[a-z_]+)", text)) - {"tgres_flush", "tgres_py"}
    assert all(f"`{name}`" in metrics for name in named), named
    settings = set(
        re.findall(r"`([a-z]+(?:_[a-z]+)*_(?:s|max|dir|peers|token|file|mgmt))`", text)
    ) - {"step_s"}
    assert settings <= set(setting_fields())
