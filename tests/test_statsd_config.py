"""statsd's settings: the TOML table by etsy's names, and config.js carried over."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tgres_py.cli.main import main
from tgres_py.config import Settings
from tgres_py.config_doc import sample_toml
from tgres_py.config_sources import load, reload
from tgres_py.config_values import Address
from tgres_py.errors import ConfigError
from tgres_py.statsd.doc import rows
from tgres_py.statsd.import_config import import_config
from tgres_py.statsd.js import number_text
from tgres_py.statsd.js_literal import Expression, read_object
from tgres_py.statsd.listen import StatsdServer
from tgres_py.statsd.settings import HistogramRule, KeyFlush, StatsdSettings, from_table


def loaded(tmp_path: Path, text: str, **environ: str) -> Settings:
    file = tmp_path / "t.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, {}, environ)


# -- the table -----------------------------------------------------------------------------------


def test_the_defaults_are_etsys() -> None:
    settings = StatsdSettings()
    assert (settings.flushInterval, settings.percentThreshold) == (10_000, (90.0,))
    assert settings.interval_s == 10.0
    assert settings.prefixStats == "statsd" and settings.graphite.globalPrefix == "stats"
    assert not (settings.valuePacking or settings.timerTypes or settings.events)
    assert from_table({}) == settings


def test_a_table_gives_settings_and_addresses(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        """
        [statsd]
        port = 18125
        mgmt_address = "::1"
        flushInterval = 2000
        percentThreshold = [50, 99.9, -10]
        deleteIdleStats = true
        deleteGauges = false
        histogram = [{ metric = "render", bins = [0.01, 10, "inf"] }, { metric = "" }]
        [statsd.graphite]
        legacyNamespace = false
        globalSuffix = "host"
        [statsd.keyFlush]
        interval = 500
        """,
    )
    table = settings.statsd_table
    assert settings.statsd == Address("127.0.0.1", 18_125)
    assert settings.statsd_mgmt == Address("::1", 8126)
    assert table.percentThreshold == (50.0, 99.9, -10.0)
    assert (table.deletes_counters, table.deletes_gauges) == (True, False)
    assert table.histogram == (
        HistogramRule("render", (0.01, 10.0, math.inf)),
        HistogramRule("", ()),
    )
    assert not table.graphite.legacyNamespace and table.graphite.globalSuffix == "host"
    assert table.graphite.prefixSet == "sets"
    assert table.keyFlush == KeyFlush(500)


def test_a_list_of_servers_replaces_the_address_and_gives_way_to_an_option(tmp_path: Path) -> None:
    text = """
        [statsd]
        servers = [
          { server = "./servers/udp", address = "10.0.0.1", port = 1 },
          { server = "./servers/tcp", address_ipv6 = true },
          { server = "./servers/tcp", socket = "/run/s", socket_mod = "0660" },
        ]
        """
    assert loaded(tmp_path, text).statsd_servers == (
        StatsdServer("udp", "10.0.0.1", 1),
        StatsdServer("tcp", "::1", 8125),
        StatsdServer("tcp", socket="/run/s", mode="0660"),
    )
    assert loaded(tmp_path, text, TGRES_STATSD="h:5").statsd_servers == (
        StatsdServer("udp", "h", 5),
        StatsdServer("tcp", "h", 5),
    )
    assert loaded(tmp_path, text, TGRES_STATSD="off").statsd_servers == ()


def test_the_dialect_switches_on_what_came_after_etsy_and_single_settings_are_stronger() -> None:
    settings = from_table({"dialect": "dogstatsd", "events": False})
    assert settings.valuePacking and settings.timestamps and settings.timerTypes == ("h", "d")
    assert not settings.events


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("percentTreshold = 5", "unknown setting percentTreshold; did you mean percentThreshold?"),
        ("flushInterval = 1500", "flushInterval: whole seconds, in ms"),
        ("flushInterval = true", "flushInterval: a number is wanted; it is True"),
        ("flush_counts = 1", "flush_counts: true or false is wanted"),
        ("deleteSets = 'no'", "deleteSets: true or false"),
        ("prefixStats = 7", "prefixStats: a text is wanted"),
        ("percentThreshold = ['a']", "percentThreshold: a number is wanted"),
        ("percentThreshold = nan", "percentThreshold: a number is wanted"),
        ("graphite = { prefix = 'x' }", "statsd.graphite: unknown setting prefix"),
        ("graphite = 1", "graphite: a table is wanted"),
        ("histogram = [{ bins = [1] }]", "histogram: an entry has no metric"),
        ("histogram = [{ metric = '', bins = ['x'] }]", "bins: a number is wanted"),
        ("tagStyles = ['dog']", "tagStyles: dog is none of influx, librato, signalfx"),
        ("dialect = 'brubeck'", "dialect: etsy or dogstatsd is wanted"),
        ("healthStatus = 'ok'", "healthStatus: up or down is wanted"),
        ("port = 70000", "port: a port from 0 to 65535 is wanted"),
        ("servers = [{ server = './servers/sctp' }]", "statsd.servers: server: ./servers/udp or"),
        ("socket_mod = '0999'", "socket_mod: an octal file mode"),
        ("keysMax = 0", "keysMax: at least 1"),
    ],
)
def test_what_is_wrong_is_refused_in_one_sentence(tmp_path: Path, line: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, f"[statsd]\n{line}\n")
    assert text in str(caught.value)
    assert str(tmp_path) in str(caught.value) or "statsd." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_that_javascript_bends_are_bent_alike() -> None:
    assert from_table({"percentThreshold": 0}).percentThreshold == (90.0,)
    assert from_table({"percentThreshold": []}).percentThreshold == ()
    assert [from_table({"gaugesMaxTTL": n}).gaugesMaxTTL for n in (3, 1, 0, -5, 2.5)] == [
        3,
        1,
        1,
        1,
        1,
    ]


def test_of_a_changed_table_most_is_taken_over_and_the_rest_is_named(tmp_path: Path) -> None:
    before = loaded(tmp_path, "[statsd]\nflushInterval = 1000\n")
    (tmp_path / "t.toml").write_text(
        "xff = 0.7\n[statsd]\nflushInterval = 2000\npercentThreshold = 50\nhealthStatus = 'down'\n"
        "keyFlush = { interval = 5, percent = 7 }\nservers = [{ server = './servers/tcp' }]\n"
    )
    after, waiting = reload(before)
    assert waiting == [
        f"[statsd] {n}" for n in ("flushInterval", "keyFlush.interval", "healthStatus", "servers")
    ]
    assert (after.statsd_table.flushInterval, after.xff) == (1000, 0.7)
    assert after.statsd_table.percentThreshold == (50.0,)
    assert after.statsd_table.keyFlush == KeyFlush(0, 7)
    assert after.statsd_servers == before.statsd_servers


# -- JavaScript's literals -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0x1F", 31), ("1e3", 1000), (".5", 0.5), ("5.", 5), ("-7", -7), ("0660", 432),
        ("Infinity", math.inf), ("true", True), ("null", None), ("undefined", None),
        ("'it\\'s'", "it's"), ('"a\\n\\u00e9\\x41"', "a\né" + "A"), ("`t`", "t"),
        ('"\\ud83d\\ude00"', "\U0001f600"), ("'a\\\nb'", "ab"),
        ("[1, 'b', [], {},]", [1, "b", [], {}]),
        ("{a: {'b c': [1,],},}", {"a": {"b c": [1]}}),
        ("require('os').hostname().split('.')[0]", Expression("require('os').hostname().split('.')[0]", 1)),
        ("10 * 1000", Expression("10 * 1000", 1)),
        ("'a' + ',' + f({x: 1, y: [2]})", Expression("'a' + ',' + f({x: 1, y: [2]})", 1)),
        ("`a${b},c`", Expression("`a${b},c`", 1)),
        ("process.env.PORT || 8125", Expression("process.env.PORT || 8125", 1)),
    ],
)  # fmt: skip
def test_values(text: str, value: Any) -> None:
    assert read_object(f"{{k: {text}}}") == {"k": value}
    assert read_object(f"{{k: {text}\n, z: 1}}") == {"k": value, "z": 1}


def test_comments_and_what_may_stand_around_the_object() -> None:
    text = "// a { \n/* b: 1 } */ module.exports = { // c\n a /* : */ : 1 // , \n, /* } */ b: '//x' };\n"
    assert read_object(text) == {"a": 1, "b": "//x"}
    assert read_object("\ufeff{}") == {}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "line 1: an object"),
        ("[1]", "line 1: an object"),
        ("{\n a: 1,\n : 2}", "line 3: a name is wanted"),
        ("{a: }", "a value is wanted"),
        ("{a 1}", "a colon is wanted behind a"),
        ("{a: 'x", "without its closing quote"),
        ("{a: 'x\n'}", "without its closing quote"),
        ("{a: f(1}", "has no end"),
        ("{a: 1", "has no end"),
        ("{} {}", "nothing is wanted behind"),
        ("{a: " * 50, "more than 32 levels"),
        ("{/* a: 1}", "a name is wanted"),
    ],
)
def test_no_literal_object(text: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_object(text)
    assert error in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (10.0, "10"), (99.9, "99.9"), (1e21, "1e+21"), (1e20, "100000000000000000000"),
        (1e-6, "0.000001"), (1e-7, "1e-7"), (1.5e-7, "1.5e-7"), (-0.0, "0"), (-2.5, "-2.5"),
        (5e-324, "5e-324"), (1.7976931348623157e308, "1.7976931348623157e+308"),
        (12345678901234567890.0, "12345678901234567000"), (math.inf, "Infinity"), (math.nan, "NaN"),
    ],
)  # fmt: skip
def test_numbers_as_javascript_writes_them(value: float, text: str) -> None:
    assert number_text(value) == text


# -- import --------------------------------------------------------------------------------------

CONFIG = """\
/* our daemon */
{
  graphitePort: 2003
, graphiteHost: "graphite.example.com"
, port: 18125
, backends: [ "./backends/graphite", "./backends/console" ]
, flushInterval: "5000"
, percentThreshold: [90, 99.9]
, deleteGauges: 1
, gaugesMaxTTL: 4
, mgmt_port: 18126
, keyFlush: { interval: 1000, log: undefined }
, histogram: [ { metric: 'render', bins: [ 0.01, 'inf' ] } ]
, graphite: {
    legacyNamespace: false,
    globalSuffix: require('os').hostname().split('.')[0],
    prefixx: "y",
  },
  flushPeriod: 10 * 1000,
  automaticConfigReload: true, nonsense: 1,
}
"""


def test_a_config_js_is_carried_over_and_the_rest_is_listed(tmp_path: Path) -> None:
    imported = import_config(CONFIG)
    assert dict(imported.left) == {
        "graphitePort": "the numbers go into this server's own store",
        "graphiteHost": "the numbers go into this server's own store",
        "backends": "the numbers go into this server's own store",
        "graphite.globalSuffix": "line 16: require('os').hostname().split('.')[0] is no literal value",
        "graphite.prefixx": "unknown setting prefixx; did you mean prefixSet?",
        "flushPeriod": "line 19: 10 * 1000 is no literal value",
        "nonsense": "not a setting of statsd 0.9",
    }
    settings = loaded(tmp_path, imported.toml("config.js"))
    assert settings.statsd == Address("0.0.0.0", 18_125)
    assert settings.statsd_mgmt == Address("127.0.0.1", 18_126)
    table = settings.statsd_table
    assert table == StatsdSettings(
        flushInterval=5000,
        percentThreshold=(90.0, 99.9),
        deleteGauges=True,
        gaugesMaxTTL=4,
        keyFlush=KeyFlush(1000),
        histogram=(HistogramRule("render", (0.01, math.inf)),),
        graphite=table.graphite,
    )
    assert not table.graphite.legacyNamespace and table.graphite.globalSuffix is None


def test_servers_of_a_config_js_listen_where_they_did(tmp_path: Path) -> None:
    text = "{servers: [{server: './servers/udp', port: 1}, {server: './servers/tcp', address_ipv6: true}]}"
    settings = loaded(tmp_path, import_config(text).toml("c"))
    assert settings.statsd_servers == (
        StatsdServer("udp", "0.0.0.0", 1),
        StatsdServer("tcp", "::", 8125),
    )


def test_a_value_that_is_refused_is_listed_and_the_others_stay() -> None:
    imported = import_config("{flushInterval: 250, prefixStats: 'a\\u007f\"', percentThreshold: 0}")
    assert [left.key for left in imported.left] == ["flushInterval"]
    table = tomllib.loads(imported.toml("x\ny"))["statsd"]
    assert table == {
        "prefixStats": 'a\x7f"',
        "percentThreshold": 0,
        "address": "0.0.0.0",
        "port": 8125,
    }


def test_the_command_prints_toml_that_is_accepted(tmp_path: Path) -> None:
    source = tmp_path / "config.js"
    source.write_text(CONFIG, encoding="utf-8")
    result = CliRunner().invoke(main, ["config", "import-statsd", str(source)])
    assert result.exit_code == 0, result.output
    assert loaded(tmp_path, result.output).statsd_table.gaugesMaxTTL == 4
    assert "#   nonsense: not a setting" in result.output
    answer = json.loads(
        CliRunner().invoke(main, ["config", "import-statsd", "--json", str(source)]).output
    )
    assert answer["statsd"]["gaugesMaxTTL"] == 4
    reasons = {one["setting"]: one["reason"] for one in answer["not_carried_over"]}
    assert reasons["nonsense"].startswith("not a setting")
    source.write_text("{a: 'x}", encoding="utf-8")
    result = CliRunner().invoke(main, ["config", "import-statsd", str(source)])
    assert result.exit_code != 0


# -- documents -----------------------------------------------------------------------------------


def test_the_sample_s_table_is_the_defaults_when_it_is_switched_on(tmp_path: Path) -> None:
    lines = sample_toml().splitlines()
    start = lines.index("# [statsd]")
    text = "\n".join(line.removeprefix("# ") for line in lines[start:])
    assert set(tomllib.loads(text)["statsd"]) == {f.name for f in fields(StatsdSettings)}
    table = loaded(tmp_path, text).statsd_table
    deletes = {f"delete{kind}": None for kind in ("Counters", "Timers", "Sets", "Gauges")}
    assert replace(table, **deletes) == StatsdSettings()  # type: ignore[arg-type]  # the values fit the fields, one by one


def test_every_setting_says_what_it_is() -> None:
    for row in rows():
        assert row.help and not row.help.endswith("."), row.name


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("{server: './servers/tcp', port: 9}", (StatsdServer("tcp", "0.0.0.0", 9),)),
        ("{server: './servers/udp', address: '::1'}", (StatsdServer("udp", "::1", 8125),)),
        (
            "{server: './servers/tcp', socket: '/run/s', socket_mod: '0660'}",
            (StatsdServer("tcp", socket="/run/s", mode="0660"),),
        ),
    ],
)
def test_a_single_server_is_carried_over_as_the_only_one(
    tmp_path: Path, text: str, servers: tuple[StatsdServer, ...]
) -> None:
    imported = import_config(text)
    assert not imported.left
    assert loaded(tmp_path, imported.toml("config.js")).statsd_servers == servers
