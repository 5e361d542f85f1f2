"""Which retention and consolidation a new series gets: carbon's two rule files, or the same in TOML.

    storage-schemas.conf                      storage-aggregation.conf
    [name]                                    [name]
    pattern = REGEX                           pattern = REGEX
    retentions = 10s:6h,1m:7d                 xFilesFactor = 0.1            (0.5)
    on-duplicate = sum    (last; ours)        aggregationMethod = max       (average)
    expire = 90d          (never; ours)

Sections are tried in order, the first whose pattern is found in the name (as sent: with its tags,
in canonical spelling) wins. In a schemas file that has no rule for a name carbon keeps 60s:7d; so do we.
Where carbon skips a faulty section, we refuse the file: a typing error would give new series the wrong
retention for good. Source: carbon 1.1.10, ``storage.py``, ``writer.py``.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tgres_py.errors import ConfigError
from tgres_py.model.duration import parse_duration
from tgres_py.model.name_pattern import NameTest, compile_look, compile_test
from tgres_py.model.retention import (
    DEFAULT_RETENTION,
    BundleSpec,
    Cf,
    OnDuplicate,
    Pairs,
    make_bundle,
    parse_retention,
)

RULES_MAX = 10_000
LOOK_NAMES = 256  # names that are looked at together
BUILT_IN = "built-in"
XFF_DEFAULT = 0.5
EXPIRE_S_MIN = 86_400
CF_DEFAULT = Cf.AVERAGE


@dataclass(frozen=True, slots=True)
class SchemaRule:
    """Names that ``pattern`` is found in get ``retention``. ``line`` 0: not from a file.

    ``expire_s``: a series without a point for so long goes to the trash; None: never.
    """

    name: str
    pattern: str
    retention: Pairs
    on_duplicate: OnDuplicate = OnDuplicate.LAST
    source: str = BUILT_IN
    line: int = 0
    expire_s: float | None = None


@dataclass(frozen=True, slots=True)
class AggregationRule:
    """Names that ``pattern`` is found in get ``xff`` and ``cf``; None: 0.5 and average."""

    name: str
    pattern: str
    xff: float | None = None
    cf: Cf | None = None
    source: str = BUILT_IN
    line: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a name gets what it gets."""

    name: str
    schema: SchemaRule
    aggregation: AggregationRule
    spec: BundleSpec


DEFAULT_SCHEMAS = (SchemaRule("default", ".*", parse_retention(DEFAULT_RETENTION)),)

# carbon's storage-aggregation.conf.example, with two changes: it rolls up .count by max, with a remark that
# counters which start anew each interval (statsd's) want sum; we speak statsd, and so does what it recommends for
# its own suffixes. And last for .last.
DEFAULT_AGGREGATION = (
    AggregationRule("min", r"\.min$", 0.1, Cf.MIN),
    AggregationRule("max", r"\.max$", 0.1, Cf.MAX),
    AggregationRule("count", r"\.count$", 0.0, Cf.SUM),
    AggregationRule("sum", r"\.sum$", 0.0, Cf.SUM),
    AggregationRule("last", r"\.last$", 0.1, Cf.LAST),
    AggregationRule("lower", r"\.lower(_\d+)?$", 0.1, Cf.MIN),
    AggregationRule("upper", r"\.upper(_\d+)?$", 0.1, Cf.MAX),
    AggregationRule("default_average", ".*", 0.5, Cf.AVERAGE),
)

_UNMATCHED_SCHEMA = SchemaRule("default", "", parse_retention("60s:7d"))
_UNMATCHED_AGGREGATION = AggregationRule("default", "")


class RuleSet:
    """The rules of a running server, compiled. ConfigError for patterns that can't be used."""

    def __init__(
        self,
        schemas: Sequence[SchemaRule] = DEFAULT_SCHEMAS,
        aggregation: Sequence[AggregationRule] = DEFAULT_AGGREGATION,
    ) -> None:
        self.schemas = (*schemas, _UNMATCHED_SCHEMA)
        self.aggregation = (*aggregation, _UNMATCHED_AGGREGATION)
        self._schema_of = _Matcher(schemas)
        self._aggregation_of = _Matcher(aggregation)
        self._specs: dict[tuple[int, int], BundleSpec] = {}
        self._equal: dict[BundleSpec, BundleSpec] = {}

    def match_many(self, names: Sequence[str]) -> list[BundleSpec]:
        """The bundle of each name (canonical). Equal bundles are the same object."""
        schemas, schema = self._schema_of.found(names), self._schema_of.otherwise
        aggregations, aggregation = self._aggregation_of.found(names), self._aggregation_of.otherwise
        specs = [self._spec(schema, aggregation)] * len(names)
        for i in schemas.keys() | aggregations.keys():
            specs[i] = self._spec(schemas.get(i, schema), aggregations.get(i, aggregation))
        return specs

    @property
    def expires(self) -> bool:
        """Whether any rule lets series expire."""
        return any(rule.expire_s is not None for rule in self.schemas)

    def expiry_many(self, names: Sequence[str]) -> list[float | None]:
        """After how many seconds without a point each name (canonical) expires; None: never."""
        found, otherwise = self._schema_of.found(names), self._schema_of.otherwise
        return [self.schemas[found.get(i, otherwise)].expire_s for i in range(len(names))]

    def match(self, name: str) -> BundleSpec:
        return self.match_many((name,))[0]

    def explain(self, name: str) -> Explanation:
        """Which rules a name (canonical) meets, and what it gets."""
        schema = self._schema_of.found((name,)).get(0, self._schema_of.otherwise)
        aggregation = self._aggregation_of.found((name,)).get(0, self._aggregation_of.otherwise)
        return Explanation(
            name,
            self.schemas[schema],
            self.aggregation[aggregation],
            self._spec(schema, aggregation),
        )

    def _spec(self, schema_number: int, aggregation_number: int) -> BundleSpec:
        key = schema_number, aggregation_number
        spec = self._specs.get(key)
        if spec is None:
            schema = self.schemas[schema_number]
            aggregation = self.aggregation[aggregation_number]
            spec = make_bundle(
                schema.retention,
                CF_DEFAULT if aggregation.cf is None else aggregation.cf,
                XFF_DEFAULT if aggregation.xff is None else aggregation.xff,
                schema.on_duplicate,
            )
            spec = self._specs[key] = self._equal.setdefault(spec, spec)
        return spec


class _Matcher:
    """Which rule each name meets first; ``otherwise``: the number of the rule of all other names."""

    def __init__(self, rules: Sequence[SchemaRule] | Sequence[AggregationRule]) -> None:
        tests = [_compiled(rule) for rule in rules]
        # Rules after one that takes all are never reached.
        end = next((i for i, test in enumerate(tests) if test.takes_all), len(tests))
        self._tests = [(number, test.matches) for number, test in enumerate(tests[:end])]
        self.otherwise = end
        self._may_match = compile_look(tests[:end])
        self._prefixes = tuple(test.prefix for test in tests[:end] if test.prefix)
        self._suffixes = tuple(test.suffix for test in tests[:end] if test.suffix)
        self._inside = [test.inside for test in tests[:end] if test.inside]
        self._look_at_all = end > len(self._prefixes) + len(self._suffixes) + len(self._inside)

    def found(self, names: Sequence[str]) -> dict[int, int]:
        """The numbers of the rules, by the names' places; names that aren't in it meet ``otherwise``."""
        found: dict[int, int] = {}
        for first in range(0, len(names), LOOK_NAMES):
            part = names[first : first + LOOK_NAMES]
            if not self._may_match(part):
                continue
            for i in self._candidates(part):
                name = part[i]
                for number, matches in self._tests:
                    if matches(name):
                        found[first + i] = number
                        break
        return found

    def _candidates(self, names: Sequence[str]) -> Iterable[int]:
        """Places of the names that may meet a rule: a look at each for the texts that rules need."""
        if self._look_at_all:
            return range(len(names))
        found: set[int] = set()
        if prefixes := self._prefixes:
            found.update([i for i, name in enumerate(names) if name.startswith(prefixes)])
        if suffixes := self._suffixes:
            found.update([i for i, name in enumerate(names) if name.endswith(suffixes)])
        for text in self._inside:
            found.update([i for i, name in enumerate(names) if text in name])
        return found


def read_schemas(path: str | Path) -> list[SchemaRule]:
    """The rules of a storage-schemas.conf. ConfigError names file, line and mend."""
    return parse_schemas(_read(path), str(path))


def read_aggregation(path: str | Path) -> list[AggregationRule]:
    """The rules of a storage-aggregation.conf. ConfigError names file, line and mend."""
    return parse_aggregation(_read(path), str(path))


def parse_schemas(text: str, source: str) -> list[SchemaRule]:
    """As read_schemas; ``source`` is what errors call the text."""
    return [_schema(section) for section in _sections(text, source)]


def parse_aggregation(text: str, source: str) -> list[AggregationRule]:
    """As read_aggregation; ``source`` is what errors call the text."""
    return [_aggregation(section) for section in _sections(text, source)]


def schemas_from_data(items: Iterable[Mapping[str, object]], source: str) -> list[SchemaRule]:
    """Rules from the settings' tables: ``name`` and the keys of the file. ConfigError names the table."""
    return [_schema(section) for section in _tables(items, source)]


def aggregation_from_data(
    items: Iterable[Mapping[str, object]], source: str
) -> list[AggregationRule]:
    """Rules from the settings' tables: ``name`` and the keys of the file. ConfigError names the table."""
    return [_aggregation(section) for section in _tables(items, source)]


@dataclass(frozen=True, slots=True)
class _Section:
    """One section as read: keys in lower case without - and _, and the line of each."""

    name: str
    values: Mapping[str, str]
    source: str
    lines: Mapping[str, int]  # "" is the line of the header

    def where(self, key: str = "") -> str:
        line = self.lines.get(key, self.lines.get("", 0))
        at = f"{self.source}, line {line}" if line else self.source
        return f"{at}: [{self.name}]"

    def need(self, key: str, example: str) -> str:
        value = self.values.get(key, "")
        if not value:
            raise ConfigError(f"{self.where()} has no {key}; add for example: {key} = {example}")
        return value


def _schema(section: _Section) -> SchemaRule:
    pattern = section.need("pattern", r"^servers\.")
    text = section.need("retentions", DEFAULT_RETENTION)
    try:
        retention = parse_retention(text)
    except ConfigError as error:
        raise ConfigError(f"{section.where('retentions')} retentions = {text}: {error}") from error
    word = section.values.get("onduplicate", OnDuplicate.LAST.value).lower()
    if word not in list(OnDuplicate):
        raise ConfigError(
            f"{section.where('onduplicate')} on-duplicate = {word}: use {', '.join(OnDuplicate)}"
        )
    expire_s: float | None = None
    if expire := section.values.get("expire"):
        try:
            expire_s = parse_duration(expire)
        except ValueError as error:
            raise ConfigError(f"{section.where('expire')} expire: {error}") from None
        if expire_s < EXPIRE_S_MIN:
            raise ConfigError(
                f"{section.where('expire')} expire = {expire}: at least {EXPIRE_S_MIN} s, since "
                "series that are sent rarely would go and come"
            )
    rule = SchemaRule(
        section.name,
        pattern,
        retention,
        OnDuplicate(word),
        section.source,
        section.lines.get("pattern", 0),
        expire_s,
    )
    _compiled(rule)
    return rule


def _aggregation(section: _Section) -> AggregationRule:
    pattern = section.need("pattern", r"\.max$")
    xff: float | None = None
    if text := section.values.get("xfilesfactor"):
        try:
            xff = float(text)
        except ValueError:
            xff = -1.0
        if not 0 <= xff <= 1:
            raise ConfigError(
                f"{section.where('xfilesfactor')} xFilesFactor = {text}: give a number from 0 to 1"
            )
    cf: Cf | None = None
    if word := section.values.get("aggregationmethod"):
        if word not in list(Cf):
            raise ConfigError(
                f"{section.where('aggregationmethod')} aggregationMethod = {word}: use {', '.join(Cf)}"
            )
        cf = Cf(word)
    rule = AggregationRule(
        section.name, pattern, xff, cf, section.source, section.lines.get("pattern", 0)
    )
    _compiled(rule)
    return rule


def _compiled(rule: SchemaRule | AggregationRule) -> NameTest:
    try:
        return compile_test(rule.pattern)
    except ConfigError as error:
        at = f"{rule.source}, line {rule.line}" if rule.line else rule.source
        raise ConfigError(f"{at}: [{rule.name}] {error}") from error


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason}") from error


def _key(key: str) -> str:
    return key.lower().replace("-", "").replace("_", "")


def _sections(text: str, source: str) -> list[_Section]:
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    parser.optionxform = _key  # type: ignore[assignment,method-assign]  # a method is put in another's place
    try:
        parser.read_string(text, source)
    except configparser.MissingSectionHeaderError as error:
        raise ConfigError(
            f"{source}, line {error.lineno}: {error.line.strip()!r} stands before the first [name]"
        ) from error
    except configparser.DuplicateSectionError as error:
        raise ConfigError(
            f"{source}, line {error.lineno}: [{error.section}] is there twice; rename one"
        ) from error
    except configparser.DuplicateOptionError as error:
        raise ConfigError(
            f"{source}, line {error.lineno}: {error.option} is there twice in [{error.section}]"
        ) from error
    except configparser.ParsingError as error:
        line, content = error.errors[0]
        raise ConfigError(f"{source}, line {line}: {content} is not KEY = VALUE") from error
    names = parser.sections()
    if len(names) > RULES_MAX:
        raise ConfigError(f"{source} has {len(names)} rules; at most {RULES_MAX} work")
    lines = _lines(text)
    return [
        # carbon reads %% as % (ConfigParser's interpolation) and refuses a single %.
        _Section(
            name,
            {key: value.replace("%%", "%") for key, value in parser.items(name)},
            source,
            lines.get(name, {}),
        )
        for name in names
    ]


def _lines(text: str) -> dict[str, dict[str, int]]:
    """Line numbers of sections and their keys; configparser doesn't keep them. Lines are what it takes
    for them.
    """
    found: dict[str, dict[str, int]] = {}
    current: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if header := re.match(r"\[(.+)\]", line.strip()):
            current = found.setdefault(header[1], {"": number})
        elif key := re.match(r"\s*([^#;=:\s][^=:]*?)\s*[=:]", line):
            current.setdefault(_key(key[1]), number)
    return found


def _tables(items: Iterable[Mapping[str, object]], source: str) -> list[_Section]:
    sections = []
    for number, item in enumerate(items, 1):
        name = str(item.get("name", number))
        values = {_key(str(key)): str(value) for key, value in item.items() if key != "name"}
        sections.append(_Section(name, values, source, {}))
    if len(sections) > RULES_MAX:
        raise ConfigError(f"{source} has {len(sections)} rules; at most {RULES_MAX} work")
    return sections
