"""Path patterns: vectors in data/model/globs.txt, a slow model, limits, linear time."""

from __future__ import annotations

import fnmatch
import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.model import glob
from tgres_py.model.glob import compile_element, has_magic, split_pattern

LINES = [
    line
    for line in (Path(__file__).parent / "data/model/globs.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("# ")
]


@pytest.mark.parametrize("line", LINES)
def test_vectors(line):
    pattern, names = line.split(" => ")
    yes, _, no = f" {names} ".partition(" | ")
    matcher = compile_element(pattern)
    assert matcher.filter(yes.split() + no.split()) == yes.split()
    assert all(map(matcher.matches, yes.split()))
    assert not any(map(matcher.matches, no.split()))
    if matcher.literals is not None:
        assert set(yes.split()) <= set(matcher.literals)
        assert not set(no.split()) & set(matcher.literals)


def expand(pattern):
    """Braces as graphite expands them: the innermost, last one first."""
    found = re.search(r"\{[^{}]*\}", pattern)
    if not found:
        return {pattern}
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return {v for word in found[0][1:-1].split(",") for v in expand(head + word + tail)}


# Brackets stay outside braces: a set that a brace cuts in pieces means different things to different readers.
piece = st.sampled_from(
    ["a", "b", "ü", "*", "?", "[ab]", "[!a]", "[b-z]", "[", "]", "-", "!", ",", "}"]
)
brace = st.recursive(
    st.lists(st.sampled_from(["a", "b", "ab", "", "*", "?", "ü*"]), min_size=1, max_size=3).map(
        lambda words: "{" + ",".join(words) + "}"
    ),
    lambda inner: st.lists(inner | st.sampled_from(["a", "*b"]), min_size=1, max_size=3).map(
        lambda words: "{" + ",".join(words) + "}"
    ),
    max_leaves=4,
)
# Few braces, for the slow model writes out all variants.
patterns = (
    st.lists(piece | brace, min_size=1, max_size=6)
    .map("".join)
    .filter(lambda pattern: pattern.count("{") <= 4)
)
names = st.lists(st.text("abcü[]-!,{}", min_size=1, max_size=6), max_size=12)


@given(patterns, names)
@settings(max_examples=300, deadline=None)
@example("{*,a}*", [])
@example("*?", ["a", "b", "ab"])
@example("[{a}[ab]", ["[", "a", "b"])
def test_equals_fnmatch_of_each_variant(pattern, names):
    variants = expand(pattern)
    expected = [n for n in names if any(fnmatch.fnmatchcase(n, v) for v in variants)]
    matcher = compile_element(pattern)
    if matcher.literals is not None:
        assert sorted(set(expected)) == sorted(set(names) & set(matcher.literals))
        assert len(set(matcher.literals)) == len(matcher.literals)
    assert matcher.filter(names) == expected


def test_split():
    assert split_pattern("a.*.{b,c}") == ["a", "*", "{b,c}"]
    assert split_pattern(r"a\.b\*") == ["a", "b*"]
    assert split_pattern("a..b") == ["a", "", "b"]


def test_has_magic():
    assert not has_magic("servers.web-1.cpu}]")
    for pattern in ("a*", "a?", "[a", "{a"):
        assert has_magic(pattern)


def test_limits():
    with pytest.raises(LimitExceeded, match="PATTERN_CHARS_MAX"):
        split_pattern("a" * (glob.PATTERN_CHARS_MAX + 1))
    with pytest.raises(LimitExceeded, match="ELEMENTS_MAX"):
        split_pattern("a." * glob.ELEMENTS_MAX)
    deep = glob.BRACE_DEPTH_MAX
    assert compile_element("{" * deep + "a" + "}" * deep).literals == ("a",)
    with pytest.raises(LimitExceeded, match="BRACE_DEPTH_MAX"):
        compile_element("{" * (deep + 1) + "a" + "}" * (deep + 1))


def test_many_variants_are_not_listed():
    pattern = "{a,b}" * 60
    matcher = compile_element(pattern)
    assert matcher.literals is None
    assert matcher.filter(["ab" * 30, "ab" * 29, "ac" * 30]) == ["ab" * 30]
    listed = compile_element("{" + ",".join(f"host{i}" for i in range(1000)) + "}")
    assert listed.literals is not None and len(listed.literals) == 1000


def test_what_re2_refuses_is_a_bad_request(monkeypatch):
    monkeypatch.setattr(glob, "_RE2_MEMORY_BYTES", 4_096)
    with pytest.raises(BadRequest, match="can't be compiled"):
        compile_element("[a-z]*" * 2_000)


def test_hostile_patterns_take_linear_time():
    start = time.process_time()
    matcher = compile_element("*a" * 1_000 + "b")
    assert matcher.filter(["a" * 1_000] * 20) == []
    compile_element("{" * 4_000 + "a" * 4_000)
    assert time.process_time() - start < 20  # backtracking would take longer than the universe
