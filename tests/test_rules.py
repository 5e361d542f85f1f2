"""Rule files and matching, against Python's re and against ConfigParser as carbon uses it."""

from __future__ import annotations

import re
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgres_py.errors import ConfigError
from tgres_py.model.name_pattern import PATTERN_CHARS_MAX, compile_test
from tgres_py.model.retention import Cf, OnDuplicate, pairs_of
from tgres_py.model.rules import (
    DEFAULT_AGGREGATION,
    LOOK_NAMES,
    AggregationRule,
    RuleSet,
    SchemaRule,
    aggregation_from_data,
    parse_aggregation,
    parse_schemas,
    read_aggregation,
    read_schemas,
    schemas_from_data,
)

SCHEMAS = r"""
# A comment
[carbon]
pattern = ^carbon\.
retentions = 60:90d

; another
[statsd]
PATTERN: ^stats\.(timers|gauges)\.
Retentions = 10s:6h,
    1m:7d
on-duplicate = sum

[100%%]
pattern = 100%%$
retentions = 1s:1h
"""

AGGREGATION = r"""
[min]
pattern = \.min$
xFilesFactor = 0.1
aggregationMethod = min

[half]
pattern = ^half\.
xFilesFactor = 0

[rest]
pattern = .*
aggregationMethod = last
"""


def text(value):
    return textwrap.dedent(value).lstrip("\n")


def test_schemas_file(tmp_path):
    path = tmp_path / "storage-schemas.conf"
    path.write_text(SCHEMAS, encoding="utf-8-sig")
    rules = read_schemas(path)
    assert rules == [
        SchemaRule("carbon", r"^carbon\.", ((60, 129600),), OnDuplicate.LAST, str(path), 4),
        SchemaRule(
            "statsd",
            r"^stats\.(timers|gauges)\.",
            ((10, 2160), (60, 10080)),
            OnDuplicate.SUM,
            str(path),
            9,
        ),
        SchemaRule("100%%", "100%$", ((1, 3600),), OnDuplicate.LAST, str(path), 15),
    ]


def test_aggregation_file(tmp_path):
    path = tmp_path / "storage-aggregation.conf"
    path.write_text(AGGREGATION)
    assert read_aggregation(path) == [
        AggregationRule("min", r"\.min$", 0.1, Cf.MIN, str(path), 3),
        AggregationRule("half", r"^half\.", 0.0, None, str(path), 8),
        AggregationRule("rest", ".*", None, Cf.LAST, str(path), 12),
    ]


def test_rules_from_settings():
    assert schemas_from_data(
        [
            {"name": "a", "pattern": "^a", "retentions": "1s:1h", "on_duplicate": "max"},
            {"pattern": "b", "retentions": "60:5"},
        ],
        "tgres.toml: schemas",
    ) == [
        SchemaRule("a", "^a", ((1, 3600),), OnDuplicate.MAX, "tgres.toml: schemas"),
        SchemaRule("2", "b", ((60, 5),), OnDuplicate.LAST, "tgres.toml: schemas"),
    ]
    assert aggregation_from_data(
        [{"name": "a", "pattern": "x$", "xFilesFactor": 0.25, "aggregationMethod": "absmax"}], "t"
    ) == [AggregationRule("a", "x$", 0.25, Cf.ABSMAX, "t")]
    with pytest.raises(ConfigError, match=r"^t: \[1\] has no retentions; add"):
        schemas_from_data([{"pattern": "x"}], "t")
    with pytest.raises(ConfigError, match=r"^t: \[a\] the pattern x\( is no regular"):
        aggregation_from_data([{"name": "a", "pattern": "x("}], "t")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("pattern = x", "f, line 1: 'pattern = x' stands before the first [name]"),
        ("[a]\nretentions = 1s:1h", "f, line 1: [a] has no pattern; add for example: pattern ="),
        ("[a]\npattern =\nretentions = 1s:1h", "f, line 1: [a] has no pattern"),
        ("\n[a]\npattern = x", "f, line 2: [a] has no retentions; add for example: retentions ="),
        ("[a]\npattern = x\nretentions = 1s", "f, line 3: [a] retentions = 1s: archive '1s' is"),
        ("[a]\npattern = x\nretentions = 2s:1h,3s:1d", "f, line 3: [a] retentions = 2s:1h,3s:1d: the step"),
        ("[a]\npattern = x(\nretentions = 1s:1h", "f, line 2: [a] the pattern x( is no regular"),
        ("[a]\nretentions = 1s:1h\npattern = a(?!b)", "f, line 3: [a] the pattern a(?!b) uses look-around"),
        ("[a]\npattern = (a)\\1\nretentions = 1s:1h", "f, line 2: [a] the pattern (a)\\1 uses a back-ref"),
        ("[a]\npattern = x\nretentions = 1s:1h\non-duplicate = avg", "f, line 4: [a] on-duplicate = avg: use last"),
        ("[a]\npattern = x\nretentions = 1s:1h\n[a]", "f, line 4: [a] is there twice; rename one"),
        ("[a]\npattern = x\npattern = y", "f, line 3: pattern is there twice in [a]"),
        ("[a]\npattern = x\nwhat is this", "f, line 3: 'what is this' is not KEY = VALUE"),
    ],
)  # fmt: skip
def test_faulty_schemas(content, message):
    with pytest.raises(ConfigError) as error:
        parse_schemas(content, "f")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("xFilesFactor = 2", "f, line 3: [a] xFilesFactor = 2: give a number from 0 to 1"),
        ("xFilesFactor = nan", "f, line 3: [a] xFilesFactor = nan: give"),
        ("xFilesFactor = half", "f, line 3: [a] xFilesFactor = half: give"),
        ("aggregationMethod = avg", "f, line 3: [a] aggregationMethod = avg: use average, sum"),
    ],
)
def test_faulty_aggregation(line, message):
    with pytest.raises(ConfigError) as error:
        parse_aggregation(f"[a]\npattern = x\n{line}", "f")
    assert str(error.value).startswith(message)


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match=r"nope\.conf can't be read: No such file"):
        read_schemas(tmp_path / "nope.conf")
    (tmp_path / "latin.conf").write_bytes(b"[a]\npattern = \xff\n")
    with pytest.raises(ConfigError, match=r"latin\.conf is not UTF-8"):
        read_aggregation(tmp_path / "latin.conf")


DEFAULTS = [
    ("servers.web1.cpu.user", Cf.AVERAGE, 0.5),
    ("a.min", Cf.MIN, 0.1),
    ("a.max", Cf.MAX, 0.1),
    ("a.count", Cf.SUM, 0.0),
    ("a.sum", Cf.SUM, 0.0),
    ("a.last", Cf.LAST, 0.1),
    ("stats.timers.a.lower", Cf.MIN, 0.1),
    ("stats.timers.a.upper_90", Cf.MAX, 0.1),
    ("a.upper_x", Cf.AVERAGE, 0.5),
    ("a.upper_90.b", Cf.AVERAGE, 0.5),
    ("amin", Cf.AVERAGE, 0.5),
    ("a.min.b", Cf.AVERAGE, 0.5),
    ("a.min;host=b", Cf.AVERAGE, 0.5),  # carbon looks at the whole name, tags included
    ("a;host=b.min", Cf.MIN, 0.1),
]


def test_defaults():
    rules = RuleSet()
    specs = rules.match_many([name for name, _, _ in DEFAULTS])
    assert [(spec.cf, spec.xff) for spec in specs] == [(cf, xff) for _, cf, xff in DEFAULTS]
    for (name, _, _), spec in zip(DEFAULTS, specs, strict=True):
        assert pairs_of(spec) == ((10, 2160), (60, 10080), (600, 262800))
        assert rules.match(name) is spec
        assert rules.explain(name).spec is spec
    assert specs[3] is specs[4]  # equal, though by two rules
    assert rules.match_many([]) == []


def test_first_match_wins_and_carbons_fallbacks():
    rules = RuleSet(parse_schemas(SCHEMAS, "s"), parse_aggregation(AGGREGATION, "a"))
    for name, schema, aggregation, pairs, cf, xff, duplicate in [
        ("carbon.a.min", "carbon", "min", ((60, 129600),), Cf.MIN, 0.1, "last"),
        ("stats.timers.x", "statsd", "rest", ((10, 2160), (60, 10080)), Cf.LAST, 0.5, "sum"),
        ("half.min", "default", "min", ((60, 10080),), Cf.MIN, 0.1, "last"),
        ("half.x", "default", "half", ((60, 10080),), Cf.AVERAGE, 0.0, "last"),
        ("x100%", "100%%", "rest", ((1, 3600),), Cf.LAST, 0.5, "last"),
    ]:
        found = rules.explain(name)
        assert (found.name, found.schema.name, found.aggregation.name) == (
            name,
            schema,
            aggregation,
        )
        assert pairs_of(found.spec) == pairs
        assert (found.spec.cf, found.spec.xff, found.spec.on_duplicate) == (cf, xff, duplicate)
    nothing = RuleSet([], [])
    assert pairs_of(nothing.match("a")) == ((60, 10080),)
    assert (nothing.match("a.min").cf, nothing.match("a.min").xff) == (Cf.AVERAGE, 0.5)
    assert nothing.explain("a").schema.source == "built-in"


def test_rules_after_one_that_takes_all_are_never_reached():
    rules = RuleSet(
        aggregation=[AggregationRule("all", "", 0.2), AggregationRule("min", r"\.min$", 0.3)]
    )
    assert rules.explain("a.min").aggregation.name == "all"


def test_a_bad_pattern_given_in_code_is_refused_too():
    with pytest.raises(
        ConfigError, match=r"^built-in: \[x\] the pattern \(\?<=a\)b uses look-around"
    ):
        RuleSet(aggregation=[AggregationRule("x", "(?<=a)b")])
    with pytest.raises(ConfigError, match="longer than"):
        compile_test("a" * (PATTERN_CHARS_MAX + 1))


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("a(?=b)", "look-around"),
        ("(?<!a)b", "look-around"),
        ("(?P<x>a)(?P=x)", "a back-reference"),
        ("(a)?(?(1)b|c)", "a conditional group"),
        ("(?>a)b", "an atomic group"),
        ("a++b", "an atomic group"),
        ("a(?#why)", "a comment"),
        (r"a\Z", "write $"),
        ("(?x)a b", "a flag"),
        ("a{,3}", "write {0,n}"),
    ],
)
def test_syntax_of_python_only_is_named(pattern, name):
    with pytest.raises(ConfigError) as error:
        compile_test(pattern)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("pattern", "shape"),
    [
        (r"\.min$", {"suffix": ".min"}),
        (r"^carbon\.", {"prefix": "carbon."}),
        (r"^a\..*", {"prefix": "a."}),
        (r"\.cpu\.", {"inside": ".cpu."}),
        (".*", {"takes_all": True}),
        ("^.*$", {"takes_all": True}),
        ("^", {"takes_all": True}),
        ("", {"takes_all": True}),
        (r"\.upper(_\d+)?$", {"inside": ".upper"}),
        (r"^stats\.\w+", {"prefix": "stats."}),
        ("ab*c", {"inside": "a"}),
        ("^a?b", {}),
        ("abc|d", {}),
        ("(?i)abc", {}),
        (r"\d", {}),
        ("^a$", {"prefix": "a"}),
    ],
)
def test_shapes(pattern, shape):
    test = compile_test(pattern)
    found = {
        key: getattr(test, key)
        for key in ("prefix", "suffix", "inside", "takes_all")
        if getattr(test, key)
    }
    assert found == shape


fragments = st.sampled_from(
    ["a", "b", r"\.", ".", ".*", "^", "$", "b?", "a*", "a+", "a{2}", "|", "(a|b)", "[ab]", r"\d", "1", "(?:b)?", r"\-"]
)  # fmt: skip
regexes = st.lists(fragments, max_size=5).map("".join)
names = st.lists(st.text("ab.1-", min_size=1, max_size=6), max_size=15)


def compiles(pattern):
    try:
        re.compile(pattern)
        compile_test(pattern)
    except (re.error, ConfigError):
        return False
    return True


@given(st.lists(regexes.filter(compiles), max_size=5), names)
@settings(max_examples=400, deadline=None)
def test_equals_carbons_search(patterns, names):
    rules = [AggregationRule(str(i), pattern) for i, pattern in enumerate(patterns)]
    matched = RuleSet(aggregation=rules)
    for name in names:
        expected = next((rule.name for rule in rules if re.search(rule.pattern, name)), "default")
        assert matched.explain(name).aggregation.name == expected
    numbered = [SchemaRule(rule.name, rule.pattern, ((1, int(rule.name) + 1),)) for rule in rules]
    specs = RuleSet(numbered).match_many(names)
    for name, spec in zip(names, specs, strict=True):
        number = next((i for i, p in enumerate(patterns) if re.search(p, name)), None)
        assert pairs_of(spec) == (((60, 10080),) if number is None else ((1, number + 1),))


@pytest.mark.parametrize("pattern", [r"^odd\.", r"\.odd$", r"odd", r"odd[0-9]*$", r"[o]dd", "^a|odd"])
def test_many_names_get_what_each_gets(pattern):
    """Names are looked at some hundreds at a time; one that a rule is for must not be missed among them."""
    rules = RuleSet([SchemaRule("odd", pattern, ((1, 60),))])
    names = [f"host{i}.cpu" for i in range(2 * LOOK_NAMES + 10)]
    for i in (0, LOOK_NAMES - 1, 2 * LOOK_NAMES, len(names) - 1):
        names[i] = "odd.x.odd"
    specs = rules.match_many(names)
    assert specs == [rules.match(name) for name in names]
    assert [i for i, spec in enumerate(specs) if pairs_of(spec) == ((1, 60),)] == [
        0, LOOK_NAMES - 1, 2 * LOOK_NAMES, len(names) - 1,
    ]  # fmt: skip


def test_default_rules_are_those_of_the_documentation():
    assert [(r.name, r.pattern, r.xff, r.cf and r.cf.value) for r in DEFAULT_AGGREGATION] == [
        ("min", r"\.min$", 0.1, "min"),
        ("max", r"\.max$", 0.1, "max"),
        ("count", r"\.count$", 0.0, "sum"),
        ("sum", r"\.sum$", 0.0, "sum"),
        ("last", r"\.last$", 0.1, "last"),
        ("lower", r"\.lower(_\d+)?$", 0.1, "min"),
        ("upper", r"\.upper(_\d+)?$", 0.1, "max"),
        ("default_average", ".*", 0.5, "average"),
    ]
