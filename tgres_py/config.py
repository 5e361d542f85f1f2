"""Settings, declared once: name, type, default, unit, help, whether a SIGHUP takes a change over.

``config_values.py`` has their kinds, ``config_sources.py`` reads them; ``config_doc.py`` makes the sample file and the
README's table from this declaration, ``cli/options.py`` the options.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator
from pydantic.fields import FieldInfo

from tgres_py.config_values import (
    Address,
    Listen,
    Names,
    Networks,
    Origins,
    Size,
    Urls,
    check_token,
)
from tgres_py.errors import ConfigError
from tgres_py.machine import memory_bytes
from tgres_py.masks import masked
from tgres_py.memory import MEMORY_MAX_LEAST, Shares, memory_max_bytes, shares
from tgres_py.model.retention import Cf, OnDuplicate, parse_retention
from tgres_py.model.rules import (
    BUILT_IN,
    DEFAULT_AGGREGATION,
    AggregationRule,
    RuleSet,
    SchemaRule,
    aggregation_from_data,
    read_aggregation,
    read_schemas,
    schemas_from_data,
)
from tgres_py.statsd.listen import LOOPBACK, MGMT_PORT, PORT, StatsdServer
from tgres_py.statsd.settings import StatsdSettings

ENV_PREFIX = "TGRES_"
# Paths; in the TOML file they start at the file's directory.
FILES = (
    "data_dir",
    "schemas",
    "aggregation",
    "admin_token_file",
    "http_token_file",
    "tls_cert",
    "tls_key",
)
SECRETS = ("admin_token", "http_token")

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
OWN_POINTS_S = 90 * 86_400  # how long the server's own points are kept, as carbon's sample rules do


def _setting(
    default: Any,
    help_text: str,
    *,
    group: str = "",
    unit: str = "",
    reloadable: bool = False,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
) -> Any:
    """One setting. ``group`` opens a new section of the documents, which lasts until the next one."""
    extra: dict[str, Any] = {"group": group, "unit": unit, "reloadable": reloadable}
    return Field(default, description=help_text, json_schema_extra=extra, ge=ge, gt=gt, le=le)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where settings were loaded from, so that they can be loaded again."""

    config_file: Path | None
    options: Mapping[str, Any]
    environ: Mapping[str, str]


class Settings(BaseModel):
    """All settings of the server, checked. Made by ``config_sources.load``; immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dsn: str | None = _setting(
        None,
        "PostgreSQL to store in, postgresql://user:password@host:port/database; without it an "
        "embedded PostgreSQL is started under data_dir",
        group="Storage",
    )
    data_dir: Path = _setting(
        Path("tgres-data"), "directory of the journal and of the embedded PostgreSQL"
    )
    journal_sync_s: float = _setting(
        1.0,
        "the journal is written and synced at least this often: what a crash can lose",
        unit="s",
        gt=0,
        le=60,
    )
    journal_bytes_max: Size = _setting(
        8 * GIB,
        "size of the journal at which TCP receivers stop reading and datagrams are refused",
        unit="bytes",
        ge=16 * MIB,
    )
    checkpoint_s: float = _setting(
        1_800.0,
        "an image of the rings replaces the older journal at least this often, so that recovery stays short",
        unit="s",
        ge=10,
    )
    sql_freshness_s: float = _setting(
        600.0,
        "how far SQL readers may lag behind; 0 = only whole chunks are written",
        unit="s",
        ge=0,
    )
    trash_keep_s: float = _setting(
        604_800.0,
        "how long removed series can be brought back (`tgres series undo`); their points are purged after that",
        unit="s",
        reloadable=True,
        ge=0,
    )
    flush_pace_s: float = _setting(
        0.0,
        "chunks that fill up together are written over this time; 0 = an eighth of the chunk's "
        "period, at most 600",
        unit="s",
        ge=0,
    )
    store_timeout_s: float = _setting(
        30.0, "time that one operation on PostgreSQL may take", unit="s", gt=0
    )
    store_read_timeout_s: float = _setting(
        4.0,
        "time that a query waits for PostgreSQL, a free connection included; then it is answered 503",
        unit="s",
        gt=0,
        le=600,
    )
    shutdown_s: float = _setting(
        30.0,
        "time for draining and flushing at the end; what is left then stays in the journal",
        unit="s",
        gt=0,
    )

    http: Listen = _setting(
        Address("127.0.0.1", 8080), "Graphite API, health and metrics", group="Listeners"
    )
    carbon: Listen = _setting(Address("127.0.0.1", 2003), "carbon plaintext, TCP and UDP")
    pickle: Listen = _setting(Address("127.0.0.1", 2004), "carbon pickle, TCP")
    statsd: Listen = _setting(
        Address(LOOPBACK, PORT),
        "statsd, UDP and TCP; the TOML file's table [statsd] holds its settings, by etsy's names",
    )
    statsd_mgmt: Listen = _setting(
        Address(LOOPBACK, MGMT_PORT), "statsd's management port, TCP; off where statsd is off"
    )
    admin_token: str = _setting(
        "",
        "secret of at least 16 characters that opens the operator verbs under /admin; without one "
        "there are none",
        reloadable=True,
    )
    admin_token_file: Path | None = _setting(
        None, "file whose first line is the admin token", reloadable=True
    )
    connections_max: int = _setting(5_000, "open connections of all TCP receivers together", ge=1)
    udp_buffer_bytes: Size = _setting(
        32 * MIB,
        "receive buffer asked for UDP sockets (Linux: more than net.core.rmem_max needs root)",
        unit="bytes",
        ge=64 * KIB,
    )

    http_token: str = _setting(
        "",
        "secret of at least 16 characters that every request needs, as bearer token or as the password "
        "of basic auth with any user; not asked for by /healthz and /readyz",
        group="Security",
        reloadable=True,
    )
    http_token_file: Path | None = _setting(
        None, "file whose first line is that secret", reloadable=True
    )
    tls_cert: Path | None = _setting(
        None, "certificate as PEM, with its chain; turns TLS on", reloadable=True
    )
    tls_key: Path | None = _setting(
        None, "its private key as PEM, without a password; when not in tls_cert", reloadable=True
    )
    tls_listeners: Names = _setting(
        ("http",),
        "who speaks TLS (TCP only) when there is a certificate: http, carbon, pickle, statsd, statsd_mgmt",
    )
    http_allow: Networks = _setting(
        (),
        "networks that may use HTTP, 192.0.2.0/24 separated by commas; empty = all",
        reloadable=True,
    )
    carbon_allow: Networks = _setting(
        (), "networks that may send carbon lines, over TCP and UDP; empty = all", reloadable=True
    )
    pickle_allow: Networks = _setting(
        (), "networks that may send pickle frames; empty = all", reloadable=True
    )
    statsd_allow: Networks = _setting(
        (), "networks that may use statsd and its management port; empty = all", reloadable=True
    )
    cors_origins: Origins = _setting(
        (),
        "origins of web pages that may read answers, https://host separated by commas, * = all; "
        "empty = none",
        reloadable=True,
    )

    retention: str = _setting(
        "10s:6h,1m:7d,10m:5y",
        "archives of series where there are no schema rules, or none of the [[schema]] tables "
        "matches, finest first (a schemas file without a match gives 60s:7d, as carbon does)",
        group="Retention",
        reloadable=True,
    )
    xff: float = _setting(
        0.5,
        "xFilesFactor where no aggregation rule sets one: share of known points that a roll-up needs",
        reloadable=True,
        ge=0,
        le=1,
    )
    on_duplicate: OnDuplicate = _setting(
        OnDuplicate.LAST,
        "two points in one slot of a series with that retention: last, first, sum, mean, min or max",
        reloadable=True,
    )
    schemas: Path | None = _setting(None, "carbon's storage-schemas.conf", reloadable=True)
    aggregation: Path | None = _setting(None, "carbon's storage-aggregation.conf", reloadable=True)
    late_grace_s: float = _setting(
        60.0,
        "a chunk is written this long after its end; points that come later are merged into it in PostgreSQL",
        unit="s",
        ge=0,
    )
    future_s_max: int = _setting(
        86_400, "points further ahead of the clock are refused", unit="s", ge=0
    )

    memory_max: Size = _setting(
        0,
        "memory that the server and its render workers may take (2G, 512M …); 0 = 60 % of what the cgroup "
        "or the machine has",
        group="Limits",
        unit="bytes",
        ge=0,
    )
    cache_bytes_max: Size = _setting(
        0,
        "the cache's part of it: ring, late points, records that wait for the journal; 0 = half of what is "
        "left after the process itself",
        unit="bytes",
        ge=0,
    )
    late_points_max: int = _setting(
        2_000_000, "late points that wait in memory for the store", unit="points", ge=1
    )
    series_max: int = _setting(20_000_000, "points of further series are refused", ge=1)
    series_new_burst: int = _setting(
        1_000_000, "new series that may come at once; then series_new_per_s", reloadable=True, ge=1
    )
    series_new_per_s: float = _setting(
        10_000.0,
        "new series a second once the burst is used up; points of further ones are refused; 0 = no bound",
        unit="1/s",
        reloadable=True,
        ge=0,
    )
    series_new_prefix_burst: int = _setting(
        250_000, "the same for new series of one prefix of names", reloadable=True, ge=1
    )
    series_new_prefix_per_s: float = _setting(
        2_500.0,
        "the same for new series of one prefix; 0 = no bound",
        unit="1/s",
        reloadable=True,
        ge=0,
    )
    series_new_prefix_depth: int = _setting(
        2,
        "parts of a name that are its prefix, without tags; statsd's first part stats isn't counted",
        reloadable=True,
        ge=1,
        le=20,
    )
    line_bytes_max: Size = _setting(
        16_384, "longest plaintext line", unit="bytes", ge=64, le=64 * KIB
    )
    name_bytes_max: Size = _setting(
        1_024, "longest series name, tags included", unit="bytes", ge=16, le=2_048
    )
    tags_max: int = _setting(64, "tags of one series", ge=1, le=256)
    frame_bytes_max: Size = _setting(
        MIB, "largest pickle frame", unit="bytes", ge=1 * KIB, le=256 * MIB
    )
    query_targets_max: int = _setting(100, "targets of one /render", ge=1)
    query_nesting_max: int = _setting(64, "functions in functions of a target", ge=1, le=100)
    query_series_max: int = _setting(20_000, "series that one request may read", ge=1)
    query_points_max: int = _setting(
        20_000_000, "points that one request may read", unit="points", ge=1
    )
    query_concurrent_max: int = _setting(32, "queries that are answered at a time", ge=1)
    query_queue_max: int = _setting(
        256, "queries that wait for their turn; further ones are answered 503", ge=0
    )
    render_workers: int = _setting(
        0,
        "processes that answer heavy queries, so that they don't delay ingestion; 0 = as many as there are cores, at most "
        "4 (one more draws small pictures)",
        ge=0,
        le=64,
    )
    query_timeout_s: float = _setting(60.0, "time that one request may take", unit="s", gt=0)
    response_bytes_max: Size = _setting(200 * MIB, "largest response", unit="bytes", ge=64 * KIB)
    body_bytes_max: Size = _setting(MIB, "largest body of a request", unit="bytes", ge=1 * KIB)
    http_connections_max: int = _setting(
        2_000, "open HTTP connections; further ones are closed at once", ge=1
    )
    http_read_timeout_s: float = _setting(
        15.0,
        "time that a client has to send a request's head, and again for its body",
        unit="s",
        gt=0,
    )
    http_idle_s: float = _setting(
        75.0, "an HTTP connection without a request is closed after this time", unit="s", gt=0
    )
    find_nodes_max: int = _setting(
        2_000_000, "nodes that one /metrics/find or /metrics/expand may list", ge=1
    )
    find_queries_max: int = _setting(1_000, "queries of one /metrics/expand", ge=1)
    tag_paths_max: int = _setting(
        10_000, "series that one request to /tags may tag or take out", ge=1
    )
    events_max: int = _setting(50_000, "events that one answer may list", ge=1)
    picture_pixels_max: int = _setting(
        10_000_000, "width times height of a picture", unit="pixels", ge=1, le=100_000_000
    )
    picture_series_max: int = _setting(1_000, "series or slices of a picture", ge=1)

    cluster_peers: Urls = _setting(
        (),
        "other nodes (tgres or graphite-web) whose series are answered with our own, http://host:port "
        "separated by commas, or a list in TOML; a table [cluster] with peers = [...] will do, too",
        group="Cluster",
    )
    cluster_timeout_s: float = _setting(
        6.0, "time that another node has to answer", unit="s", gt=0, le=600
    )

    self_metrics_s: int = _setting(
        60,
        "the server stores points about itself this often, as carbon does; 0 = never",
        group="Behaviour",
        unit="s",
        ge=0,
        le=86_400,
    )
    self_metrics_prefix: str = _setting(
        "carbon.agents.{host}-a",
        "first part of their names; {host} is the host's name (their retention is self_metrics_s:90d "
        "unless a schema rule says otherwise)",
    )
    consolidate_by_cf: bool = _setting(
        False,
        "maxDataPoints consolidates by each series' own function instead of Graphite's average",
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "debug, info, warning or error", reloadable=True
    )

    # The TOML file's [[schema]] and [[aggregation]] tables, as they were read.
    schema_tables: tuple[dict[str, Any], ...] = Field((), exclude=True)
    aggregation_tables: tuple[dict[str, Any], ...] = Field((), exclude=True)
    # The TOML file's [statsd] table: how statsd counts, and its list ``servers``.
    statsd_table: StatsdSettings = Field(StatsdSettings(), exclude=True)
    statsd_servers_table: tuple[StatsdServer, ...] = Field((), exclude=True)
    statsd_given_table: dict[str, Any] = Field({}, exclude=True)  # as it was written

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _sources: Sources | None = PrivateAttr(default=None)
    _admin_secret: str = PrivateAttr(default="")
    _http_secret: str = PrivateAttr(default="")

    @field_validator("dsn")
    @classmethod
    def _check_dsn(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("postgresql://", "postgres://")):
            raise ValueError("a DSN starts with postgresql://")
        return value

    @field_validator(*SECRETS)
    @classmethod
    def _check_token(cls, value: str) -> str:
        return check_token(value) if value else value

    @field_validator("retention")
    @classmethod
    def _check_retention(cls, value: str) -> str:
        try:
            parse_retention(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("memory_max")
    @classmethod
    def _check_memory(cls, value: int) -> int:
        if 0 < value < MEMORY_MAX_LEAST:
            raise ValueError(f"at least {MEMORY_MAX_LEAST} bytes are needed, or 0")
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    def loaded(
        self, origins: Mapping[str, str], admin_secret: str, http_secret: str, sources: Sources
    ) -> Settings:
        """These settings with what their loader knows besides the values."""
        self._origins = dict(origins)
        self._admin_secret, self._http_secret = admin_secret, http_secret
        self._sources = sources
        return self

    @property
    def sources(self) -> Sources | None:
        """Where they were loaded from; None when they were made otherwise."""
        return self._sources

    @property
    def origins(self) -> dict[str, str]:
        """Where each setting that isn't at its default came from: file, variable or option."""
        return dict(self._origins)

    @property
    def dsn_masked(self) -> str | None:
        """The DSN for logs and people: without its password."""
        return None if self.dsn is None else masked(self.dsn)

    @property
    def admin_secret(self) -> str:
        """The token of admin_token or admin_token_file, as it was when the settings were read."""
        return self._admin_secret

    @property
    def http_secret(self) -> str:
        """The secret of http_token or http_token_file, as it was when the settings were read."""
        return self._http_secret

    def memory_shares(self) -> Shares:
        """The memory's parts, of what the machine has now. ConfigError: cache_bytes_max leaves too little."""
        total = memory_max_bytes(self.memory_max, memory_bytes())
        encrypted = self.tls_cert is not None and bool(self.tls_listeners)
        try:
            return shares(total, self.cache_bytes_max, encrypted)
        except ValueError as error:
            raise ConfigError(f"cache_bytes_max: {error}; lower it, or raise memory_max") from None

    def rule_set(self) -> RuleSet:
        """The retention rules, read from files or tables now; ConfigError with file, line and mend."""
        return _rule_set(self)

    @property
    def statsd_servers(self) -> tuple[StatsdServer, ...]:
        """statsd's listeners: those of the table's ``servers``, else UDP and TCP at ``statsd``."""
        if self.statsd_servers_table or self.statsd is None:
            return self.statsd_servers_table
        host, port = self.statsd
        return StatsdServer("udp", host, port), StatsdServer("tcp", host, port)


def setting_fields() -> dict[str, FieldInfo]:
    """The declared settings, in order of declaration, without those that are tables of the file."""
    tables = ("_tables", "_table")
    return {n: f for n, f in Settings.model_fields.items() if not n.endswith(tables)}


def setting_extra(name: str) -> dict[str, Any]:
    """``group``, ``unit``, ``reloadable`` of a setting."""
    extra = Settings.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return dict(extra)


def is_reloadable(name: str) -> bool:
    return bool(setting_extra(name)["reloadable"])


def env_name(name: str) -> str:
    return ENV_PREFIX + name.upper()


def option_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def _own_points_rule(settings: Settings) -> list[SchemaRule]:
    """The built-in rule for the server's own points: with another step than theirs, nothing would be
    rolled up.
    """
    step_s = settings.self_metrics_s
    if not step_s:
        return []
    pattern = ".+".join(map(re.escape, settings.self_metrics_prefix.strip(".").split("{host}")))
    return [SchemaRule("own points", rf"^{pattern}\.", ((step_s, OWN_POINTS_S // step_s),))]


def _rule_set(settings: Settings) -> RuleSet:
    origins = settings.origins
    default = SchemaRule(
        "default",
        ".*",
        parse_retention(settings.retention),
        settings.on_duplicate,
        origins.get("retention", BUILT_IN),
    )
    if settings.schemas is not None:
        schemas = read_schemas(settings.schemas)
    else:
        source = origins.get("schema_tables", "")
        schemas = [
            *schemas_from_data(settings.schema_tables, source),
            *_own_points_rule(settings),
            default,
        ]
    aggregation: list[AggregationRule] = []
    if settings.aggregation is not None:
        aggregation = read_aggregation(settings.aggregation)
    elif settings.aggregation_tables:
        source = origins.get("aggregation_tables", "")
        aggregation = aggregation_from_data(settings.aggregation_tables, source)
    else:
        aggregation = [rule for rule in DEFAULT_AGGREGATION if rule.pattern != ".*"]
    aggregation.append(
        AggregationRule("default", ".*", None, Cf.AVERAGE, origins.get("xff", BUILT_IN))
    )
    return RuleSet(
        schemas, [replace(r, xff=settings.xff) if r.xff is None else r for r in aggregation]
    )
