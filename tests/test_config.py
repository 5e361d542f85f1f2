"""Settings: sources and their order, refusals in one sentence, masks, reload, the sample file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tgres_py.config import GIB, KIB, MIB, Settings, option_name, setting_extra, setting_fields
from tgres_py.config_doc import (
    default_for_people,
    default_text,
    sample_toml,
    setting_toml,
    settings_json,
    toml_value,
)
from tgres_py.config_sources import load, reload
from tgres_py.config_values import Address, format_size, parse_address, parse_size
from tgres_py.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def refusal(
    config_file: Path | None = None,
    options: dict[str, str] | None = None,
    environ: dict[str, str] | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(config_file, options, environ or {})
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_defaults_are_those_that_other_programs_rely_on() -> None:
    settings = load(environ={})
    assert str(settings.http) == "127.0.0.1:8080"
    assert str(settings.carbon) == "127.0.0.1:2003"
    assert str(settings.pickle) == "127.0.0.1:2004"
    assert str(settings.statsd) == "127.0.0.1:8125"
    assert str(settings.statsd_mgmt) == "127.0.0.1:8126"
    assert settings.data_dir == Path("tgres-data")
    assert settings.retention == "10s:6h,1m:7d,10m:5y"
    assert settings.dsn is None
    assert settings.origins == {}


def test_each_source_is_stronger_than_the_one_before(tmp_path: Path) -> None:
    file = write(tmp_path / "t.toml", "xff = 0.1\nseries_max = 11\ncheckpoint_s = 100\n")
    environ = {"TGRES_SERIES_MAX": "22", "TGRES_CHECKPOINT_S": "200"}
    settings = load(file, {"checkpoint_s": "300", "http": None}, environ)
    assert (settings.xff, settings.series_max, settings.checkpoint_s) == (0.1, 22, 300.0)
    assert settings.origins == {
        "xff": f"{file}, line 1",
        "series_max": "environment variable TGRES_SERIES_MAX",
        "checkpoint_s": "option --checkpoint-s",
    }


def test_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    file = write(tmp_path / "t.toml", "xff = 0.25\n")
    assert load(None, {}, {"TGRES_CONFIG": str(file)}).xff == 0.25


def test_paths_in_the_file_start_at_the_file_and_others_do_not(tmp_path: Path) -> None:
    file = write(tmp_path / "t.toml", 'data_dir = "d"\nschemas = "/etc/s.conf"\n')
    settings = load(file, {}, {"TGRES_AGGREGATION": "a.conf"})
    assert settings.data_dir == tmp_path / "d"
    assert settings.schemas == Path("/etc/s.conf")
    assert settings.aggregation == Path("a.conf")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        (":2003", Address("0.0.0.0", 2003)),
        ("[::1]:0", Address("::1", 0)),
        ("graphite.example.com:65535", Address("graphite.example.com", 65535)),
        ("off", None),
        ("OFF", None),
    ],
)
def test_addresses(text: str, expected: Address | None) -> None:
    assert parse_address(text) == expected
    assert parse_address(str(expected) if expected else "off") == expected


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512M", 512 << 20),
        ("2G", 2 << 30),
        ("1.5 GiB", 3 << 29),
        ("64kb", 64 << 10),
        ("1t", 1 << 40),
        ("1_000_000", 1_000_000),
        ("0", 0),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert int(str(parse_size(text))) == size
    assert load(None, {"journal_bytes_max": "16M"}, {}).journal_bytes_max == 16 << 20


@pytest.mark.parametrize("text", ["2X", "M", "1.5", "-1G", "2 G G", "1e9", ""])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


def test_memory_that_cannot_be_divided_is_refused() -> None:
    assert "at least" in refusal(None, {"memory_max": "100M"})
    assert "leaves too little" in refusal(None, {"memory_max": "1G", "cache_bytes_max": "900M"})
    parts = load(None, {"memory_max": "1G", "cache_bytes_max": "100M"}, {}).memory_shares()
    assert (parts.total, parts.cache) == (1 << 30, 100 << 20)


@pytest.mark.parametrize("text", ["2003", "a b:1", "h:65536", "h:", "::1:80", "h:80/x", "", "h:-1"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        parse_address(text)


def test_unknown_settings_are_refused_with_a_suggestion(tmp_path: Path) -> None:
    file = write(tmp_path / "t.toml", "\n# note\ncheckpoint = 5\n")
    assert refusal(file) == (
        f"{file}, line 3: unknown setting checkpoint; did you mean checkpoint_s?"
    )
    assert refusal(environ={"TGRES_CARBN": "off"}) == (
        "environment: unknown setting TGRES_CARBN; did you mean TGRES_CARBON?"
    )
    file = write(tmp_path / "t.toml", "[zzz]\nqqq = 1\n")
    assert "line 1: unknown setting zzz; remove it" in refusal(file)


@pytest.mark.parametrize(
    ("environ", "parts"),
    [
        ({"TGRES_XFF": "abc"}, ["TGRES_XFF", "xff", "number", "'abc'"]),
        ({"TGRES_XFF": "1.5"}, ["xff", "less than or equal to 1"]),
        ({"TGRES_XFF": "nan"}, ["xff", "finite"]),
        ({"TGRES_HTTP": "8080"}, ["TGRES_HTTP", "'8080'", "host:port or off"]),
        ({"TGRES_SERIES_MAX": "0"}, ["series_max", "greater than or equal to 1"]),
        ({"TGRES_SERIES_MAX": "1.5"}, ["series_max", "integer"]),
        ({"TGRES_LOG_LEVEL": "loud"}, ["log_level", "'debug', 'info'"]),
        ({"TGRES_ON_DUPLICATE": "all"}, ["on_duplicate", "'last'"]),
        ({"TGRES_DSN": "host=x"}, ["dsn", "postgresql://"]),
        ({"TGRES_RETENTION": "10s:6h,15s:7d"}, ["TGRES_RETENTION", "no multiple"]),
        ({"TGRES_STATSD": "8125"}, ["TGRES_STATSD", "statsd", "host:port or off"]),
    ],
)
def test_wrong_values_name_source_setting_and_reason(
    environ: dict[str, str], parts: list[str]
) -> None:
    text = refusal(environ=environ)
    for part in parts:
        assert part in text


def test_refusal_of_a_dsn_does_not_show_its_password() -> None:
    assert "geheim" not in refusal(environ={"TGRES_DSN": "pg://me:geheim@h/d"})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.toml")
    assert "not valid TOML" in refusal(write(tmp_path / "bad.toml", "a = \n"))
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    assert "UTF-8" in refusal(tmp_path / "latin.toml")


def test_variables_that_are_not_settings_are_let_alone() -> None:
    kubernetes = {
        "TGRES_PORT": "tcp://10.0.0.1:8080",
        "TGRES_PORT_8080_TCP_ADDR": "10.0.0.1",
        "TGRES_SERVICE_HOST": "10.0.0.1",
        "TGRES_SERVICE_PORT_HTTP": "8080",
        "TGRES_HTTP_SERVICE_HOST": "10.0.0.1",
        "TGRES_HTTP_PORT_80_TCP": "tcp://10.0.0.1:80",
    }
    others = {"TGRES_PURE": "1", "TGRES_URL": "http://x", "TGRES_DSN": "", "HOME": "/"}
    settings = load(environ=kubernetes | others)
    assert settings.origins == {}
    assert settings.dsn is None


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u:p@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql://u:p%40q@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://h/d?user=u&password=p&x=y", "postgresql://h/d?user=u&password=***&x=y"),
        ("postgresql://u:p/q@h/d", "postgresql://u:***@h/d"),
    ],
)
def test_the_dsn_is_shown_without_its_password(dsn: str, shown: str) -> None:
    assert load(environ={"TGRES_DSN": dsn}).dsn_masked == shown


@pytest.mark.parametrize(
    "url", ["http://u:s3cret@h:99999", "ftp://u:s3cret@h", "http://u:s3/cret@h"]
)
def test_refusals_tell_no_password(url: str) -> None:
    with pytest.raises(ConfigError, match="cluster_peers") as info:
        load(environ={"TGRES_CLUSTER_PEERS": url})
    assert "cret" not in str(info.value)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(environ={}).xff = 0.1  # type: ignore[misc]  # that it can't be done is the test


def test_reload_takes_over_what_may_change_and_names_the_rest(tmp_path: Path) -> None:
    file = write(tmp_path / "t.toml", 'xff = 0.1\nhttp = "127.0.0.1:1"\n')
    before = load(file, {}, {})
    write(file, 'xff = 0.9\nhttp = "127.0.0.1:2"\n')
    after, waiting = reload(before)
    assert (after.xff, after.http) == (0.9, before.http)
    assert waiting == ["http"]
    write(file, "xff = 7\n")
    with pytest.raises(ConfigError):
        reload(before)


def test_reload_can_be_repeated(tmp_path: Path) -> None:
    file = write(tmp_path / "t.toml", "xff = 0.1\n")
    settings = load(file, {}, {})
    for share in (0.2, 0.3):
        write(file, f"xff = {share}\n")
        settings, _ = reload(settings)
        assert settings.xff == share


def test_sample_with_every_line_switched_on_is_the_defaults(tmp_path: Path) -> None:
    lines = sample_toml().splitlines()
    text = "\n".join(line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in lines)
    assert set(tomllib.loads(text)) == set(setting_fields())
    settings = load(write(tmp_path / "t.toml", text), {}, {})
    # A relative path of a file starts at the file, so data_dir alone differs.
    assert settings.model_dump() | {"data_dir": Path("tgres-data")} == Settings().model_dump()


def test_rules_of_the_sample_are_accepted_when_switched_on(tmp_path: Path) -> None:
    lines = sample_toml().splitlines()
    start, end = lines.index("# [[schema]]"), lines.index("# [statsd]")
    text = "\n".join(line[2:] for line in lines[start:end] if not line.startswith("# -"))
    rules = load(write(tmp_path / "t.toml", text), {}, {}).rule_set()
    bundle = rules.match_many(["app.x.count"])[0]
    assert [(a.step_s, a.size) for a in bundle.archives] == [(10, 8_640), (60, 43_200)]
    assert (bundle.cf, bundle.xff) == ("sum", 0.0)


def test_the_sample_without_changes_is_valid_and_empty(tmp_path: Path) -> None:
    assert tomllib.loads(sample_toml()) == {}


def test_every_setting_is_declared_whole() -> None:
    for name, field in setting_fields().items():
        assert field.description and not field.description.endswith("."), name
        assert set(setting_extra(name)) == {"group", "unit", "reloadable"}
        for suffix, unit in (("_s", "s"), ("_bytes", "bytes"), ("_s_max", "s")):
            if name.endswith(suffix) and not name.endswith("_per_s"):
                assert setting_extra(name)["unit"] == unit, name
        if "_bytes_max" in name:
            assert setting_extra(name)["unit"] == "bytes", name


def test_declaration_as_data_names_option_and_variable() -> None:
    entry = next(e for e in settings_json() if e["name"] == "journal_sync_s")
    assert entry["option"] == option_name("journal_sync_s") == "--journal-sync-s"
    assert entry["environment"] == "TGRES_JOURNAL_SYNC_S"
    assert (entry["default"], entry["unit"], entry["type"]) == ("1", "s", "number")


@pytest.mark.parametrize(
    "value", [True, 0, 20_000_000, 0.5, 1.0, 1_800.0, 0.123_456_789, 'a "b"\\c', "é"]
)
def test_toml_values_read_back(value: object) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}")["x"] == value


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("journal_bytes_max", "8G"),
        ("udp_buffer_bytes", "32M"),
        ("line_bytes_max", "16K"),
        ("memory_max", "automatic"),
        ("render_workers", "automatic"),
        ("flush_pace_s", "automatic"),
        ("journal_sync_s", "1 s"),
        ("checkpoint_s", "1800 s (30m)"),
        ("trash_keep_s", "604800 s (1w)"),
        ("series_new_per_s", "10_000 a second"),
        ("query_points_max", "20_000_000 points"),
        ("xff", "0.5"),
        ("consolidate_by_cf", "false"),
        ("http", "127.0.0.1:8080"),
        ("tls_listeners", "http"),
        ("http_allow", ""),
        ("dsn", ""),
    ],
)
def test_help_shows_defaults_as_people_write_them(name: str, shown: str) -> None:
    assert default_for_people(name) == shown


def test_what_is_automatic_is_explained() -> None:
    automatic = [name for name in setting_fields() if default_for_people(name) == "automatic"]
    assert {"memory_max", "cache_bytes_max"} <= set(automatic)
    for name in automatic:
        assert "; 0 = " in (setting_fields()[name].description or ""), name


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (1_000, "1000"),
        (KIB, "1K"),
        (KIB + 1, "1025"),
        (1_536 * MIB, "1536M"),
        (8 * GIB, "8G"),
        (2_048 * GIB, "2T"),
    ],
)
def test_sizes_are_written_short_and_read_back(size: int, text: str) -> None:
    assert format_size(size) == text
    assert int(str(parse_size(text))) == size


def test_sizes_are_written_short_in_toml() -> None:
    assert default_text("journal_bytes_max") == '"8G"'
    assert setting_toml("memory_max", 0) == "0"
    assert setting_toml("memory_max", 3_000_000_000) == "3_000_000_000"


def test_rule_file_of_a_stronger_source_replaces_tables(tmp_path: Path) -> None:
    tables = "[[schema]]\nname = 'a'\npattern = '^a'\nretentions = '5s:1h'\n"
    conf = write(tmp_path / "s.conf", "[b]\npattern = ^a\nretentions = 7s:1h\n")
    file = write(tmp_path / "t.toml", tables)

    def step(settings: Settings) -> int:
        return settings.rule_set().match_many(["a.x"])[0].archives[0].step_s

    assert step(load(file, {}, {})) == 5
    assert step(load(file, {"schemas": str(conf)}, {})) == 7
    assert step(load(file, {}, {"TGRES_SCHEMAS": str(conf)})) == 7
    text = refusal(write(file, f"schemas = '{conf}'\n{tables}"))
    assert "schemas and [[schema]] are both given" in text


def test_on_duplicate_and_xff_are_the_defaults_of_the_rules() -> None:
    settings = load(environ={"TGRES_ON_DUPLICATE": "sum", "TGRES_XFF": "0.25"})
    bundle = settings.rule_set().match_many(["a.x"])[0]
    assert (bundle.on_duplicate, bundle.xff) == ("sum", 0.25)


def test_the_admin_token_is_a_setting_or_the_first_line_of_a_file(tmp_path: Path) -> None:
    token = "0123456789abcdef"
    assert load(environ={}).admin_secret == ""
    assert load(environ={"TGRES_ADMIN_TOKEN": token}).admin_secret == token
    file = write(tmp_path / "token", f"{token}!\nmore\n")
    assert load(environ={"TGRES_ADMIN_TOKEN_FILE": str(file)}).admin_secret == f"{token}!"
    for environ, message in (
        ({"TGRES_ADMIN_TOKEN": "short"}, "admin_token: at least 16"),
        ({"TGRES_ADMIN_TOKEN_FILE": str(write(tmp_path / "s", "short"))}, "s: at least 16"),
        ({"TGRES_ADMIN_TOKEN_FILE": str(tmp_path / "nosuch")}, "No such file"),
        ({"TGRES_ADMIN_TOKEN": token, "TGRES_ADMIN_TOKEN_FILE": str(file)}, "both given"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(environ=environ)


def test_a_reload_takes_a_new_admin_token_over(tmp_path: Path) -> None:
    file = write(tmp_path / "token", "the first of the tokens")
    settings = load(environ={"TGRES_ADMIN_TOKEN_FILE": str(file)})
    write(file, "the second of the tokens")
    assert reload(settings)[0].admin_secret == "the second of the tokens"
