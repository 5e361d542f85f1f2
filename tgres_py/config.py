"""Settings, declared once: name, type, default, unit, help, whether a SIGHUP takes a change over.

Sources, each one stronger than the one before:

    default < TOML file (--config FILE or TGRES_CONFIG) < environment (TGRES_DATA_DIR=…) < command line (--data-dir …)

The environment's names are the settings' names in capitals after ``TGRES_``; an empty text counts as not set.
Unknown names are refused everywhere. Relative paths in the TOML file start at the file's directory.
``config_doc.py`` makes the sample file and the README's table from this declaration, ``cli/options.py`` the options.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit, urlunsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
)
from pydantic.fields import FieldInfo

from tgres_py.errors import ConfigError
from tgres_py.model.networks import parse_networks
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
from tgres_py.statsd.listen import (
    LISTEN_KEYS,
    LOOPBACK,
    MGMT_PORT,
    PORT,
    StatsdServer,
    listen_from_table,
)
from tgres_py.statsd.settings import StatsdSettings, reloaded
from tgres_py.statsd.settings import from_table as statsd_from_table

ENV_PREFIX = "TGRES_"
ENV_CONFIG = "TGRES_CONFIG"
# TGRES_CONFIG names the file, TGRES_URL and TGRES_TOKEN are the clients' --url and --token, TGRES_PURE=1 leaves the native kernels out.
_ENV_OTHERS = {ENV_CONFIG, "TGRES_URL", "TGRES_TOKEN", "TGRES_PURE"}
# Kubernetes puts the addresses of a service called "tgres" or "tgres-…" into every container's environment.
_ENV_KUBERNETES = re.compile(
    r"TGRES_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)

TOKEN_CHARS_MIN = 16
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
TLS_LISTENERS = ("http", "carbon", "pickle", "statsd")

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
OWN_POINTS_S = 90 * 86_400  # how long the server's own points are kept, as carbon's sample rules do


class Address(NamedTuple):
    """Where a listener listens; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(value: object) -> Address | None:
    """``host:port``, ``[v6]:port`` or ``:port`` (all interfaces); ``off`` is None. ValueError otherwise."""
    if value is None or isinstance(value, Address):
        return value
    text = str(value).strip()
    if text.lower() in ("off", "false"):
        return None
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]\s/]*)):(\d{1,5})", text)
    if match is None or int(match[3]) > 65_535:
        raise ValueError(f"{text!r} is no address; write host:port or off")
    return Address(match[1] or match[2] or "0.0.0.0", int(match[3]))


def parse_urls(value: object) -> tuple[str, ...]:
    """``http://a:8080, http://b:8080`` or a list of these: base addresses, without query. ValueError
    otherwise.
    """
    texts = value if isinstance(value, list | tuple) else str(value).split(",")
    urls = [str(text).strip().rstrip("/") for text in texts if str(text).strip()]
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not _has_port(parts):
            raise ValueError(f"{mask_password(url)!r} is no address; write http://host:port")
        if parts.query or parts.fragment:
            raise ValueError(f"{mask_password(url)!r}: an address without ? and # is needed")
    if len(set(urls)) != len(urls):
        raise ValueError("an address is given twice")
    return tuple(urls)


def _has_port(parts: SplitResult) -> bool:
    """Whether the port is a possible one, or none is written."""
    try:
        return parts.port != 0 and not parts.netloc.endswith(":")
    except ValueError:
        return False


def check_token(token: str) -> str:
    """The token. ValueError: one that is quickly guessed or can't stand in a header."""
    if len(token) < TOKEN_CHARS_MIN or not token.isascii() or not token.isprintable():
        raise ValueError(
            f"at least {TOKEN_CHARS_MIN} printable ASCII characters are needed, "
            "for example those of `openssl rand -hex 24`"
        )
    return token


def parse_names(value: object) -> tuple[str, ...]:
    """Names of listeners that can do TLS, separated by commas or a list. ValueError otherwise."""
    names = _texts(value)
    for name in names:
        if name not in TLS_LISTENERS:
            raise ValueError(f"{name!r} is none of {', '.join(TLS_LISTENERS)}")
    return names


def parse_origins(value: object) -> tuple[str, ...]:
    """Origins of web pages, ``https://grafana.example`` or ``*``. ValueError otherwise."""
    origins = _texts(value)
    for origin in origins:
        if not re.fullmatch(r"\*|https?://[^/\s?#@,]+", origin):
            raise ValueError(f"{origin!r} is no origin; write https://host or https://host:port")
    return origins


def _texts(value: object) -> tuple[str, ...]:
    texts = value if isinstance(value, list | tuple) else str(value).split(",")
    return tuple(str(text).strip() for text in texts if str(text).strip())


Names = Annotated[tuple[str, ...], BeforeValidator(parse_names)]
Origins = Annotated[tuple[str, ...], BeforeValidator(parse_origins)]
Networks = Annotated[tuple[str, ...], BeforeValidator(parse_networks)]
Urls = Annotated[tuple[str, ...], BeforeValidator(parse_urls)]
Listen = Annotated[Address | None, BeforeValidator(parse_address)]


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


class Settings(BaseModel):
    """All settings of the server, checked. Made by ``load``; immutable."""

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
    journal_bytes_max: int = _setting(
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
    udp_buffer_bytes: int = _setting(
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
        "who speaks TLS (TCP only) when there is a certificate: http, carbon, pickle, statsd",
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

    ring_bytes_max: int = _setting(
        0,
        "memory for the ring cache; 0 = half of what the cgroup or the machine has",
        group="Limits",
        unit="bytes",
        ge=0,
    )
    late_points_max: int = _setting(
        2_000_000, "late points that wait in memory for the store", unit="points", ge=1
    )
    series_max: int = _setting(20_000_000, "points of further series are refused", ge=1)
    line_bytes_max: int = _setting(
        16_384, "longest plaintext line", unit="bytes", ge=64, le=64 * KIB
    )
    name_bytes_max: int = _setting(
        1_024, "longest series name, tags included", unit="bytes", ge=16, le=2_048
    )
    frame_bytes_max: int = _setting(
        MIB, "largest pickle frame", unit="bytes", ge=1 * KIB, le=256 * MIB
    )
    query_targets_max: int = _setting(100, "targets of one /render", ge=1)
    query_series_max: int = _setting(20_000, "series that one request may read", ge=1)
    query_points_max: int = _setting(
        20_000_000, "points that one request may read", unit="points", ge=1
    )
    query_concurrent_max: int = _setting(32, "queries that are answered at a time", ge=1)
    query_queue_max: int = _setting(
        256, "queries that wait for their turn; further ones are answered 503", ge=0
    )
    query_timeout_s: float = _setting(60.0, "time that one request may take", unit="s", gt=0)
    response_bytes_max: int = _setting(200 * MIB, "largest response", unit="bytes", ge=64 * KIB)
    body_bytes_max: int = _setting(MIB, "largest body of a request", unit="bytes", ge=1 * KIB)
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

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def origins(self) -> dict[str, str]:
        """Where each setting that isn't at its default came from: file, variable or option."""
        return dict(self._origins)

    @property
    def dsn_masked(self) -> str | None:
        """The DSN for logs and people: without its password."""
        return None if self.dsn is None else mask_dsn(self.dsn)

    @property
    def admin_secret(self) -> str:
        """The token of admin_token or admin_token_file, as it was when the settings were read."""
        return self._admin_secret

    @property
    def http_secret(self) -> str:
        """The secret of http_token or http_token_file, as it was when the settings were read."""
        return self._http_secret

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

    def reload(self) -> tuple[Settings, list[str]]:
        """Reads the same sources again, for SIGHUP: what may change while running is taken over.

        Returns the new settings and the names of settings that changed but need a restart.
        ConfigError when the sources are wrong now; the caller keeps the old settings then.
        """
        if self._sources is None:
            return self, []
        fresh = load(self._sources.config_file, self._sources.options, self._sources.environ)
        changed = {n for n in setting_fields() if getattr(fresh, n) != getattr(self, n)}
        waiting = sorted(n for n in changed if not is_reloadable(n))
        kept: dict[str, Any] = {n: getattr(self, n) for n in (*waiting, "statsd_servers_table")}
        kept["statsd_table"], waiting_statsd = reloaded(self.statsd_table, fresh.statsd_table)
        if fresh.statsd_servers_table != self.statsd_servers_table:
            waiting_statsd.append("servers")
        waiting += [f"[statsd] {name}" for name in waiting_statsd]
        return fresh.model_copy(update=kept), waiting


@dataclass(frozen=True, slots=True)
class Sources:
    """Where settings were loaded from, so that they can be loaded again."""

    config_file: Path | None
    options: Mapping[str, Any]
    environ: Mapping[str, str]


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


def mask_dsn(dsn: str) -> str:
    """The DSN with its password replaced by ``***``."""
    parts = urlsplit(dsn)
    netloc = parts.netloc
    if "@" in netloc:
        user, _, host = netloc.rpartition("@")
        name, colon, _ = user.partition(":")
        netloc = f"{name}{':***' if colon else ''}@{host}"
    query = re.sub(r"(^|&)((?:ssl)?password)=[^&]*", r"\1\2=***", parts.query)
    return urlunsplit(parts._replace(netloc=netloc, query=query))


def mask_password(url: str) -> str:
    """A URL with its password replaced by ``***``."""
    return re.sub(r"(//[^/@:]*:)[^/@]*@", r"\1***@", url)


def load(
    config_file: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Reads all sources and checks them. ConfigError: one sentence with source, setting and mend.

    ``options``: values of the command line by setting name; None means not given.
    ``environ``: os.environ unless given.
    """
    environ = dict(os.environ if environ is None else environ)
    named = config_file or environ.get(ENV_CONFIG)
    path = Path(named) if named else None
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin_values in (_from_file(path), _from_environ(environ), _from_options(options or {})):
        for name, (value, origin) in origin_values.items():
            values[name] = value
            origins[name] = origin
    _choose_rules(values, origins)
    if origins.get("statsd", "").startswith(("environment", "option")):
        values.pop("statsd_servers_table", None)
    settings = _validate(values, origins)
    settings._origins.update({n: o for n, o in origins.items() if n in values})
    settings._admin_secret = _secret("admin_token", settings.admin_token, settings.admin_token_file)
    settings._http_secret = _secret("http_token", settings.http_token, settings.http_token_file)
    if settings.tls_key is not None and settings.tls_cert is None:
        raise ConfigError("tls_key is given without tls_cert; give both")
    settings._sources = Sources(path, dict(options or {}), environ)
    return settings


Found = dict[str, tuple[Any, str]]


def _from_file(path: Path | None) -> Found:
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; check --config") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    found: Found = {}
    for key, value in _flat(data).items():
        if value == "":
            continue  # as in the environment: empty is not set
        origin = f"{path}{_line_of(text, key)}"
        name = key
        if key == "statsd" and isinstance(value, dict):
            found |= {n: (v, origin) for n, v in _from_statsd(value, origin).items()}
            continue
        if key in ("schema", "aggregation") and isinstance(value, list):
            name = f"{key}_tables"
            value = tuple(value)
        elif key not in setting_fields():
            raise ConfigError(f"{origin}: unknown setting {key}{_suggest(key, setting_fields())}")
        elif key in FILES:
            value = path.parent / str(value)
        found[name] = (value, origin)
    return found


def _from_statsd(table: dict[str, Any], origin: str) -> dict[str, Any]:
    """The table ``[statsd]``: its addresses become the listeners' settings, the rest goes to statsd."""
    where = f"{origin}: statsd"
    listen = listen_from_table(table, where)
    rest = {k: v for k, v in table.items() if k not in LISTEN_KEYS}
    values: dict[str, Any] = {
        "statsd_table": statsd_from_table(rest, where),
        "statsd_given_table": table,
    }
    if listen.servers:
        values["statsd_servers_table"] = listen.servers
    if listen.address:
        values["statsd"] = Address(*listen.address)
    if listen.mgmt:
        values["statsd_mgmt"] = Address(*listen.mgmt)
    return values


def _flat(data: Mapping[str, Any]) -> dict[str, Any]:
    """The table [cluster] with ``peers`` is the setting ``cluster_peers``, and so on."""
    out: dict[str, Any] = {}
    for key, value in data.items():
        if key == "cluster" and isinstance(value, dict):
            out.update({f"cluster_{name}": one for name, one in value.items()})
        else:
            out[key] = value
    return out


def _line_of(text: str, key: str) -> str:
    """``, line 7``: where a top-level key stands; empty when it is written in an unusual form."""
    pattern = re.compile(rf"\s*(\[\[?\s*)?[\"']?{re.escape(key)}[\"']?\s*[=\]]")
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.match(line):
            return f", line {number}"
    return ""


def _from_environ(environ: Mapping[str, str]) -> Found:
    known = {env_name(name): name for name in setting_fields()}
    found: Found = {}
    for variable, value in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable in _ENV_OTHERS:
            continue
        if variable not in known:
            if _ENV_KUBERNETES.fullmatch(variable):
                continue
            raise ConfigError(f"environment: unknown setting {variable}{_suggest(variable, known)}")
        if value.strip():
            found[known[variable]] = (value.strip(), f"environment variable {variable}")
    return found


def _from_options(options: Mapping[str, Any]) -> Found:
    return {n: (v, f"option {option_name(n)}") for n, v in options.items() if v is not None}


def _suggest(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return "; remove it, or see `tgres config sample`"


def _choose_rules(values: dict[str, Any], origins: dict[str, str]) -> None:
    """A rule file of a stronger source replaces the TOML file's tables; both in one file is an error."""
    for key, tables in (("schemas", "schema_tables"), ("aggregation", "aggregation_tables")):
        if key not in values or tables not in values:
            continue
        if not origins[key].startswith(("environment", "option")):
            table = tables.removesuffix("_tables")
            raise ConfigError(
                f"{origins[key]}: {key} and [[{table}]] are both given; keep one of them"
            )
        del values[tables], origins[tables]


def _secret(name: str, given: str, file: Path | None) -> str:
    """The token of a setting or of its file; empty when there is none. ConfigError."""
    if file is None:
        return given
    if given:
        raise ConfigError(f"{name} and {name}_file are both given; keep one of them")
    try:
        return check_token(file.read_text(encoding="utf-8").partition("\n")[0].strip())
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{name}_file {file}: {reason}") from None


def _validate(values: dict[str, Any], origins: Mapping[str, str]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        reason = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        if first["type"] != "value_error":
            shown = mask_dsn(str(first["input"])) if name == "dsn" else repr(first["input"])
            shown = "what is given" if name in SECRETS else shown
            reason = f"{reason[:1].lower()}{reason[1:]}, not {shown}"
        raise ConfigError(f"{origins.get(name, 'settings')}: {name}: {reason}") from None


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
