"""The target language: trees, refusals and their positions, templates."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgres_py.errors import BadRequest, TargetSyntaxError
from tgres_py.target.parser import (
    NESTING_MAX,
    TARGET_CHARS_MAX,
    ByTag,
    Call,
    Literal,
    Node,
    Path,
    Template,
    first_path,
    parse_target,
    resolve_templates,
)


def shown(node: Node) -> str:
    """A tree as one line: paths bare, literals by repr."""
    match node:
        case Path(text):
            return f"<{text}>"
        case Literal(value):
            return repr(value)
        case ByTag(text):
            return f"tag<{text}>"
        case Call(name, args, kwargs):
            parts = [shown(arg) for arg in args] + [f"{key}={shown(arg)}" for key, arg in kwargs]
            return f"{name}({', '.join(parts)})"
        case Template(body, values):
            return f"T[{shown(body)}; {dict(values)}]"


TREES = [
    ("a", "<a>"),
    ("   a.b.c   ", "<a.b.c>"),
    ("42", "<42>"),
    ("4.2", "<4.2>"),
    ("odd.k=v", "<odd.k=v>"),
    ("disk.used;dc=a;host=b", "<disk.used;dc=a;host=b>"),
    ("a.*.[a-c]?.x{1,2}y.**", "<a.*.[a-c]?.x{1,2}y.**>"),
    ("a.{ b , c }", "<a.{b,c}>"),
    (r"odd.par\(en\)s", "<odd.par(en)s>"),
    ("größe.µs", "<größe.µs>"),
    ("f()", "f()"),
    ("f ( a )", "f(<a>)"),
    ("f(a,1)", "f(<a>, 1)"),
    ("f(a,-1.50)", "f(<a>, -1.5)"),
    ("f(a,1e2)", "f(<a>, 100.0)"),
    ("f(a,2.5e-3)", "f(<a>, 0.0025)"),
    ("f(a,.5x)", None),
    ("f(a,+2)", "f(<a>, <+2>)"),
    ("f(a,1min)", "f(<a>, <1min>)"),
    ("f(a, True ,FALSE,none,None,inf)", "f(<a>, True, False, None, None, inf)"),
    ("f(true.x,none.y)", "f(<true.x>, <none.y>)"),
    ("""f(a,'it"s',"it's")""", """f(<a>, 'it"s', "it's")"""),
    (r'f(a,"q \" x")', "f(<a>, 'q \\\\\" x')"),
    ('f(a,"")', "f(<a>, '')"),
    ('f(a,"x,(|)")', "f(<a>, 'x,(|)')"),
    ("f(a,b=1,c='x')", "f(<a>, b=1, c='x')"),
    ("f(x=1)", "f(x=1)"),
    ("f(a,k=v.w)", "f(<a>, k=<v.w>)"),
    ("f(a,k.x=1)", "f(<a>, <k.x=1>)"),
    ("f(g(a,h(b)),c)", "f(g(<a>, h(<b>)), <c>)"),
    ("a|f(2)", "f(<a>, 2)"),
    ("a | f(2) | g()", "g(f(<a>, 2))"),
    ("f(a|g(1),b)", "f(g(<a>, 1), <b>)"),
    ("f(1|g())", "f(g(<1>))"),
    ("f(\n  a,\n  b\n)", "f(<a>, <b>)"),
    ("seriesByTag(\"name=a\", 'b!=c')", "tag<seriesByTag(\"name=a\", 'b!=c')>"),
    ('f(seriesByTag("a=b"))|g()', 'g(f(tag<seriesByTag("a=b")>))'),
    ("template(a.$h,h='x')", "T[<a.$h>; {'h': 'x'}]"),
    ("f(template(g(a.$1),'x',2),3)", "f(T[g(<a.$1>); {'1': 'x', '2': 2}], 3)"),
]


@pytest.mark.parametrize(("text", "tree"), [case for case in TREES if case[1]])
def test_tree(text: str, tree: str) -> None:
    assert shown(parse_target(text)) == tree


# the position is that of the first character that doesn't fit
REFUSED = [
    ("", 0),
    ("   ", 3),
    (".a", 0),
    ("a.", 2),
    ("a..b", 2),
    ("a b", 2),
    ("a.b)", 3),
    ("a,b", 1),
    ("f(a", 3),
    ("f(a,", 4),
    ("f(a,,b)", 4),
    ("f(a b)", 4),
    ("f(a,.5x)", 4),
    ("f(a))", 4),
    ("f(k=1,a)", 6),
    ("f(k=1,k=2)", 6),
    ("'a'", 0),
    ("f(a,'x)", 4),
    ("f(a,'x'y)", 7),
    ("a|", 2),
    ("a|b", 2),
    ("|f()", 0),
    ("a|seriesByTag('a=b')", 20),
    ("a.{}", 3),
    ("a.{b", 4),
    ("a.{b,{c}}", 5),
    ("a.{b.c}", 4),
    ("seriesByTag()", 0),
    ("seriesByTag(a)", 12),
    ("template(a,b)", 11),
    ("template(a,x=none)", 17),
    ("a.b\\", 3),
]


@pytest.mark.parametrize(("text", "position"), REFUSED)
def test_refused(text: str, position: int) -> None:
    with pytest.raises(TargetSyntaxError) as caught:
        parse_target(text)
    assert caught.value.position == position
    assert str(caught.value).endswith(f"at position {position}")


def test_nesting_is_limited() -> None:
    deep = NESTING_MAX - 1
    parse_target("f(" * deep + "a" + ")" * deep)
    with pytest.raises(TargetSyntaxError, match="nested"):
        parse_target("f(" * (deep + 1) + "a" + ")" * (deep + 1))


def test_length_is_limited() -> None:
    with pytest.raises(BadRequest, match="characters"):
        parse_target("a" * 100_000)


@given(st.text(alphabet="ab.,()|{}'\"\\ =$*1-e;\n\u00e4", max_size=40))
def test_any_text_is_read_or_refused_in_its_range(text: str) -> None:
    try:
        parse_target(text)
    except TargetSyntaxError as error:
        assert 0 <= error.position <= len(text)


names = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True).filter(
    lambda name: name not in ("template", "none", "true", "false", "inf")
)
numbers = st.one_of(
    st.integers(-(10**9), 10**9),
    st.decimals(-1000, 1000, places=3).map(float),
)
leaves = st.one_of(
    st.lists(names, min_size=1, max_size=3).map(
        lambda parts: (".".join(parts), f"<{'.'.join(parts)}>")
    ),
    numbers.filter(lambda n: "e" not in repr(n)).map(lambda n: (repr(n), repr(n))),
)
calls = st.recursive(
    leaves,
    lambda inner: st.tuples(names, st.lists(inner, min_size=1, max_size=3)).map(
        lambda call: (
            f"{call[0]}({' , '.join(text for text, _ in call[1])})",
            f"{call[0]}({', '.join(tree for _, tree in call[1])})",
        )
    ),
    max_leaves=8,
)


@given(calls)
def test_written_trees_are_read_back(case: tuple[str, str]) -> None:
    text, tree = case
    assert shown(parse_target(f"f({text})")) == f"f({tree})"


@pytest.mark.parametrize(
    ("text", "overrides", "tree"),
    [
        ("template(a.$h.c,h='x')", {}, "<a.x.c>"),
        ("template(f(a.$1,b.$2),'x',2)", {}, "f(<a.x>, <b.2>)"),
        ("template(f($n),n='7')", {}, "f(7.0)"),
        ("template(f($n),n=7)", {}, "f(7)"),
        ("template(f(a,$n),n='x')", {}, "f(<a>, 'x')"),
        ("template(f(a,$n),n='1.2.3')", {}, "f(<a>, '1.2.3')"),
        ("template(a.$h,h='x')", {"h": "y"}, "<a.y>"),
        ("template($host.$h,h='x',host='y')", {}, "<y.x>"),
        ("f(a.$h)", {"h": "y"}, "f(<a.$h>)"),
        ("template(seriesByTag('a=$n'),n='x')", {}, "tag<seriesByTag('a=$n')>"),
    ],
)
def test_templates(text: str, overrides: dict[str, str], tree: str) -> None:
    assert shown(resolve_templates(parse_target(text), overrides)) == tree


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("scale(a.b,2)", "a.b"),
        ('movingAverage(sumSeries(a.b.c,d),"5min")', "a.b.c"),
        ("disk;a=b", "disk;a=b"),
        ("constantLine(5)", "constantLine(5)"),
        ("a.b (50%)", "a.b"),
        ('sum(seriesByTag("a=b"))', 'sum(seriesByTag("a=b"))'),
        ('"x"', '"x"'),
    ],
)
def test_first_path(name: str, path: str) -> None:
    assert first_path(name) == path


def test_infinity_and_big_numbers() -> None:
    node = parse_target("f(inf,1e999)")
    assert isinstance(node, Call)
    assert [arg.value for arg in node.args if isinstance(arg, Literal)] == [math.inf, math.inf]
    with pytest.raises(TargetSyntaxError, match="digits"):
        parse_target(f"f({'9' * 5000})")


@pytest.mark.parametrize("overrides", [{}, {"a": 40_000 * "x"}])
def test_a_template_is_no_longer_than_a_target(overrides: dict[str, str]) -> None:
    """Ten values that hold the next one eight times would be a gigabyte."""
    values = ",".join(f"{one}='{8 * ('$' + chr(ord(one) + 1))}'" for one in "abcdefghij")
    tree = parse_target(f"template(f(x.$a,y.$a),{values},k='z')")
    with pytest.raises(BadRequest, match=str(TARGET_CHARS_MAX)):
        resolve_templates(tree, overrides)
