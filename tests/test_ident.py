"""Canonical names: vectors in data/model/names.txt, limits, properties."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tgres_py.model.ident import NAME_BYTES_MAX, TAGS_MAX, NameRefused, canonical, parse_tags
from tgres_py.model.points import Reason

VECTORS = [
    tuple(
        part.encode("latin-1", "backslashreplace").decode("unicode_escape")
        for part in line.split(" => ")
    )
    for line in (Path(__file__).parent / "data/model/names.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize(("name", "expected"), VECTORS, ids=range(len(VECTORS)))
def test_vectors(name, expected):
    if expected.startswith("! "):
        with pytest.raises(NameRefused) as refused:
            canonical(name)
        assert expected[2:] in str(refused.value)
        assert refused.value.reason is Reason.NAME
        assert str(refused.value).isprintable()
    else:
        assert canonical(name) == expected


def test_an_empty_name_is_refused():
    with pytest.raises(NameRefused, match="empty name"):
        canonical("")


def test_limits_count_bytes():
    assert canonical("a" * NAME_BYTES_MAX)
    assert canonical("ü" * 5, name_bytes_max=10)
    for name, limit in (("a" * (NAME_BYTES_MAX + 1), NAME_BYTES_MAX), ("ü" * 5, 9)):
        with pytest.raises(NameRefused, match="bytes long") as refused:
            canonical(name, name_bytes_max=limit)
        assert refused.value.reason is Reason.LIMIT
        assert len(str(refused.value)) < 200


def test_limit_of_tags():
    def tagged(count):
        return "a" + "".join(f";t{i:03}=1" for i in range(count))

    assert canonical(tagged(TAGS_MAX)) == tagged(TAGS_MAX)
    with pytest.raises(NameRefused, match="65 tags") as refused:
        canonical(tagged(TAGS_MAX + 1))
    assert refused.value.reason is Reason.LIMIT


def test_parse_tags():
    assert parse_tags("a.b") == {"name": "a.b"}
    assert parse_tags("a.b;x=1;y==2") == {"name": "a.b", "x": "1", "y": "=2"}


@given(
    st.text(alphabet=st.sampled_from('ab.~;=!^{}",\\ \n1üЖ'), max_size=30) | st.text(max_size=30)
)
@example(".~")
@example("~.~a.~")
def test_canonical_is_final(name):
    try:
        first = canonical(name)
    except NameRefused as refused:
        assert refused.reason is Reason.NAME
        return
    assert canonical(first) == first
    assert not any(character.isspace() for character in first)
    path = parse_tags(first)["name"]
    assert path and all(path.split("."))


@given(
    st.dictionaries(
        st.text("abc-_", min_size=1), st.text("abc=.", min_size=1), min_size=1, max_size=5
    ),
    st.randoms(),
)
def test_order_of_tags_does_not_count(tags, random):
    tags.pop("name", None)
    segments = [f";{tag}={value}" for tag, value in tags.items()]
    sorted_name = canonical("m" + "".join(segments))
    random.shuffle(segments)
    assert canonical("m" + "".join(segments)) == sorted_name
    assert parse_tags(sorted_name) == {"name": "m", **tags}
