"""The index of tags against a slow plain model, and its rules one by one."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgres_py.errors import BadRequest
from tgres_py.model.ident import canonical, parse_tags
from tgres_py.model.tagindex import TagIndex, parse_expression

NAMES = [
    "disk.used;dc=eu;host=web1",
    "disk.used;dc=us;host=web2",
    "disk.used;dc=us",
    "disk.free;host=db1;rack=a",
    "plain.name",
    "cpu;host=web10",
]


def counted(index: TagIndex, tag: str) -> dict[str, int]:
    texts, counts = index.value_counts(tag)
    return dict(zip(texts, counts.tolist(), strict=True))


def index_of(names: list[str]) -> TagIndex:
    index = TagIndex()
    index.add_lines("".join(f"{name}\n" for name in names).encode(), 0)
    return index


def found(index: TagIndex, *expressions: str) -> list[int]:
    return index.find(expressions).tolist()


@pytest.mark.parametrize(
    ("expressions", "ids"),
    [
        (["name=disk.used"], [0, 1, 2]),
        (["name=disk.used", "host!=web1"], [1, 2]),
        (["name=disk.used", "host="], [2]),
        (["name=disk.used", "host!="], [0, 1]),
        (["host=~web1"], [0, 5]),
        (["host=~^web1$"], [0]),
        (["host=~(web1|db1)$"], [0, 3]),
        (["host=~(web1|db1)"], [0, 3, 5]),
        (["host=~(web1.*|x)"], [0, 5]),
        (["host=~web2|1$"], [1]),
        (["host=~^web2|1$"], [0, 1, 3]),
        (["name=~.+", "host!=~web"], [2, 3]),
        (["name=~.+", "rack=~.*"], [0, 1, 2, 3, 5]),
        (["rack!=~^$"], [3]),
        (["name=~disk", "nosuch=~x?"], [0, 1, 2, 3]),
        (["nosuch=x"], []),
        (["name=plain.name"], []),
        (["dc=EU"], []),
        (["dc=e=u"], []),
    ],
    ids=lambda value: " & ".join(map(str, value)),
)
def test_expressions(expressions: list[str], ids: list[int]) -> None:
    assert found(index_of(NAMES), *expressions) == ids


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rubbish", "Invalid tagspec rubbish"),
        ("", "Invalid tagspec"),
        ("=x", "Invalid tagspec"),
        ("a!b=c", "Invalid tagspec"),
        ("a=b;c", "Invalid tagspec"),
        ("a=~(", "regular expression '\\('"),
        (r"a=~(x)\1", "regular expression"),
        ("a=~" + "x" * 20_000, "characters of a tag expression"),
    ],
)
def test_bad_expressions(text: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        parse_expression(text)


@pytest.mark.parametrize(
    ("text", "empty"),
    [
        ("a=", True),
        ("a=b", False),
        ("a!=", False),
        ("a!=b", True),
        ("a=~", True),
        ("a=~.*", True),
        ("a=~.+", False),
        ("a=~b|", True),
        ("a!=~.*", False),
        ("a!=~b", True),
    ],
)
def test_what_matches_the_empty_value(text: str, empty: bool) -> None:
    assert parse_expression(text).matches_empty is empty


@pytest.mark.parametrize("texts", [["a!=b"], ["host!=~web"], ["a=", "b=~.*"], []])
def test_a_query_needs_a_value(texts: list[str]) -> None:
    with pytest.raises(BadRequest, match="At least one tagspec"):
        index_of(NAMES).find(texts)


def test_listings() -> None:
    index = index_of(NAMES)
    assert [tag for _, tag in index.tags()] == ["dc", "host", "name", "rack"]
    assert [tag for _, tag in index.tags("h|na")] == ["host", "name"]
    assert counted(index, "dc") == {"eu": 1, "us": 2}
    assert index.value_count("host") == 4
    assert counted(index, "nosuch") == {} and index.value_count("nosuch") == 0
    assert index.tag_number("nosuch") == 0
    assert index.tags_of(index.find(["dc=us"])) == ["dc", "host", "name"]
    assert index.values_of("host", index.find(["name=disk.used"])) == ["web1", "web2"]
    assert len(index) == 5


def test_what_is_taken_out_is_gone_and_can_come_back() -> None:
    index = index_of(NAMES)
    index.discard(np.array([3, 4, -1, 99], np.int32))
    assert found(index, "name=~.+") == [0, 1, 2, 5]
    assert index.tag_number("rack") == 0 and "rack" not in [tag for _, tag in index.tags()]
    index.add(["plain.name", "disk.free;host=db1;rack=a"], np.array([4, 3], np.int32))
    assert found(index, "name=~.+") == [0, 1, 2, 3, 4, 5]
    assert found(index, "name=plain.name") == [4]
    index.add_lines(b"late;rack=b\n", 6)
    assert found(index, "rack=~.") == [3, 6]
    index.add(["cpu;host=web10"], np.array([5], np.int32))
    assert len(index) == 7


def test_results_stay_as_they_were() -> None:
    index = index_of(NAMES)
    before = index.find(["name=~.+"])
    index.add_lines(b"x;a=b\n" * 1_000, 6)
    index.discard(before)
    assert before.tolist() == [0, 1, 2, 3, 5]
    assert len(index) == 1_000
    assert index.bytes_used > 8_000


values = st.sampled_from(["a", "b", "ab", "c.d", "ü", "1"])
tags = st.dictionaries(st.sampled_from(["t", "u", "v", "tt"]), values, max_size=4)
series = st.builds(
    lambda path, tags: canonical(path + "".join(f";{t}={v}" for t, v in tags.items())),
    st.sampled_from(["a", "a.b", "c"]),
    tags,
)
regexes = st.sampled_from(["", "a", "^a", "a|b", "(a|b)$", ".*", ".+", "b$", "^a|b", "[^a]", "a?"])
expressions = st.builds(
    lambda tag, operator, value: tag + operator + value,
    st.sampled_from(["t", "u", "name", "nosuch"]),
    st.sampled_from(["=", "!="]),
    st.sampled_from(["", "a", "b", "c.d", "zz"]),
) | st.builds(
    lambda tag, operator, value: tag + operator + value,
    st.sampled_from(["t", "u", "name", "nosuch"]),
    st.sampled_from(["=~", "!=~"]),
    regexes,
)


def fulfils(name: str, text: str) -> bool | None:
    """The rule, slowly: does a name fulfil an expression, or would no tag do (None)?"""
    match = re.fullmatch(r"([^;!=]+)(!?=~?)([^;]*)", text)
    assert match
    tag, operator, value = match.groups()
    have = parse_tags(name).get(tag, "")
    if not operator.endswith("~"):
        return (have == value) == (operator == "=")
    anchored = value if value.startswith("^") else f"^({value})"
    positive = operator == "=~"
    if (re.match(anchored, "") is not None) == positive:  # graphite-web filters with match
        return (re.match(anchored, have) is not None) == positive
    return bool(have) and (re.search(anchored, have) is not None) == positive


@given(
    st.lists(series, max_size=12, unique=True),
    st.lists(expressions, min_size=1, max_size=3),
    st.sets(st.integers(0, 11)),
)
@settings(max_examples=400, deadline=None)
def test_equals_the_slow_model(names: list[str], texts: list[str], gone: set[int]) -> None:
    index = index_of(names)
    index.discard(np.array(sorted(gone), np.int32))
    if all(parse_expression(text).matches_empty for text in texts):
        with pytest.raises(BadRequest):
            index.find(texts)
        return
    wanted = [
        id_
        for id_, name in enumerate(names)
        if ";" in name and id_ not in gone and all(fulfils(name, text) for text in texts)
    ]
    assert index.find(texts).tolist() == wanted
    listed = {value: n for value, n in counted(index, "t").items() if n}
    kept = [parse_tags(n) for i, n in enumerate(names) if ";" in n and i not in gone]
    assert listed == {
        v: sum(t.get("t") == v for t in kept) for v in {t["t"] for t in kept if "t" in t}
    }
