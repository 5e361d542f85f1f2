"""What the doctor says of a running server: limits, refusals, receivers, its own parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tgres_py.admin.doctor.finding import Finding, Severity
from tgres_py.admin.frame import Live
from tgres_py.admin.limits import Limit
from tgres_py.ingest.ledger import RejectSample
from tgres_py.kernels import NATIVE
from tgres_py.model.points import Reason
from tgres_py.places import OWN_FILES

NEARLY, NEARLY_FULL = 0.8, 0.95
SAMPLE_CHARS_MAX = 80

MENDS = {
    "series_max": "raise series_max, or find what makes so many names (tgres top shows new series by prefix)",
    "cache": "see whether PostgreSQL takes chunks; raise memory_max or cache_bytes_max, or use coarser finest archives",
    "index": "raise memory_max: there are no new series when it is full; or remove series that nobody needs",
    "memory_max": "raise memory_max, or lower cache_bytes_max: near it there are no new series and no further queries",
    "late_points_max": "raise late_points_max; see why points come late, or why PostgreSQL doesn't take them",
    "journal_bytes_max": "raise journal_bytes_max, or lower checkpoint_s; see whether PostgreSQL takes chunks",
    "connections_max": "raise connections_max; see whether senders leave connections open",
    "statsd.keysMax": "raise keysMax in [statsd], or delete idle keys (deleteIdleStats)",
    "memory": "give the machine or container more memory, or lower memory_max",
    "open files": "raise the limit of open files (LimitNOFILE, ulimit -n)",
    "disk of data_dir": "free or add disk space: without it neither journal nor PostgreSQL can write",
    "inodes of data_dir": "free inodes on the file system of data_dir",
}

REASONS: dict[Reason, tuple[Severity, str]] = {
    Reason.MALFORMED: (Severity.WARNING, "mend the sender: a line is `path value timestamp`"),
    Reason.UTF8: (Severity.WARNING, "mend the sender: names are UTF-8"),
    Reason.NAME: (Severity.WARNING, "mend the sender's names: no control characters, tags as ;tag=value"),
    Reason.NAN: (Severity.INFO, "nothing, if it is collectd (first values of rates); else mend the sender"),
    Reason.LIMIT: (
        Severity.WARNING,
        "raise line_bytes_max, name_bytes_max, tags_max, frame_bytes_max or series_max, whichever it is",
    ),
    Reason.NEW_SERIES: (
        Severity.ERROR,
        "find who sends ever new names (request ids, time stamps in names); if they are meant, raise series_new_…",
    ),
    Reason.MEMORY: (
        Severity.ERROR,
        "raise memory_max or give the machine more memory; remove series that nobody needs",
    ),
    Reason.TOO_OLD: (
        Severity.WARNING,
        "points older than their series' longest archive: check the sender's clock and unit (seconds), "
        "or keep the series longer",
    ),
    Reason.FUTURE: (
        Severity.WARNING,
        "points ahead of the clock: check the sender's clock and unit (milliseconds look like the future), "
        "or raise future_s_max",
    ),
    Reason.UDP_KERNEL: (
        Severity.ERROR,
        "raise udp_buffer_bytes and net.core.rmem_max, send by TCP, or give the server a free core",
    ),
    Reason.UNMATCHED: (Severity.WARNING, "add a schema rule with pattern .* at the end"),
    Reason.OVERLOAD: (
        Severity.ERROR,
        "see whether PostgreSQL is away or slow; raise memory_max, late_points_max or journal_bytes_max",
    ),
}  # fmt: skip


def limit_findings(limits: Iterable[Limit]) -> Iterator[Finding]:
    """Limits that are nearly reached, or were."""
    for one in limits:
        if one.share < NEARLY:
            continue
        severity = Severity.ERROR if one.share >= NEARLY_FULL else Severity.WARNING
        yield Finding(
            severity,
            "limit",
            f"{one.name}: {100 * one.share:.0f} % is used ({_amount(one.used, one.unit)} of "
            f"{_amount(one.most, one.unit)})",
            MENDS[one.name],
            [one.name],
        )


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e6:,.0f} MB"
    return f"{value:,.0f} {unit}".rstrip()


def refusal_findings(
    rejected: Mapping[Reason, int],
    samples: Mapping[Reason, RejectSample],
    prefixes: Sequence[tuple[str, int]] = (),
) -> Iterator[Finding]:
    """Points refused since the start, each reason with its latest line.

    ``prefixes``: of new series that were refused, and how many points of each.
    """
    for reason, (severity, mend) in REASONS.items():
        count = rejected.get(reason, 0)
        if not count:
            continue
        what = f"{count:,} points were refused since the start: {reason.value}"
        if reason is Reason.UDP_KERNEL:
            what = f"the kernel dropped {count:,} datagrams since the start: the socket's buffer was full"
        examples = []
        if (last := samples.get(reason)) is not None:
            line = last.line.decode(errors="replace")[:SAMPLE_CHARS_MAX]
            sender = last.peer or f"({last.receiver})"
            examples = [f"{line!r} from {sender}"]
        if reason is Reason.NEW_SERIES:
            examples += [f"{prefix}: {points:,}" for prefix, points in prefixes]
        yield Finding(severity, f"refused.{reason.value}", what, mend, examples, count)


@dataclass(frozen=True, slots=True)
class State:
    """What a server's parts say of themselves. ``sockets``: UDP receiver to (bytes its buffer has, asked for)."""

    opened: bool = True
    available: bool = True
    paused: bool = False
    journal_failed: str | None = None
    native: bool = True
    refused_connections: int = 0
    open_files: tuple[int, int] | None = None  # that may be, that all connections need
    refused_queries: Mapping[str, int] | None = None
    sockets: Mapping[str, tuple[int, int]] | None = None
    statsd: tuple[int, int] | None = None  # flush interval, step that its series get, seconds


def state_of(live: Live) -> State:
    sockets: dict[str, tuple[int, int]] = {}
    refused = 0
    for name, listener in live.listeners.items():
        refused += int(getattr(listener, "refused", 0))
        if (has := getattr(listener, "rcvbuf_bytes", None)) is not None:
            sockets[name] = has, live.settings.udp_buffer_bytes
    meters: Any = getattr(live, "meters", None)
    return State(
        opened=live.registry.opened,
        available=live.flusher.presence.available,
        paused=live.intake.paused,
        journal_failed=_journal_trouble(live),
        native=NATIVE,
        refused_connections=refused,
        open_files=_open_files(live),
        refused_queries=Counter(meters.refused) if meters is not None else None,
        sockets=sockets,
        statsd=_statsd_steps(live),
    )


def _open_files(live: Live) -> tuple[int, int]:
    settings = live.settings
    needed = settings.connections_max + settings.http_connections_max + OWN_FILES
    return live.places.files, needed


def _journal_trouble(live: Live) -> str | None:
    if live.journal.failed is None and live.journal.incomplete:
        return "an image of what is in memory is on its way to it"
    return live.journal.failed


def _statsd_steps(live: Live) -> tuple[int, int] | None:
    if live.statsd is None:
        return None
    of = live.statsd.aggregator
    spec = live.registry.match_many([of.names.rate("doctor")])[0]
    return int(of.settings.interval_s), spec.archives[0].step_s


def state_findings(state: State) -> Iterator[Finding]:
    """Parts that don't do what they should."""
    if not state.opened:
        yield Finding(
            Severity.WARNING,
            "starting",
            "the server is starting: its series are not loaded yet, points wait in memory and journal",
            "wait; if it stays so, the log says what PostgreSQL answers",
        )
    if not state.available:
        yield Finding(
            Severity.ERROR,
            "store",
            "PostgreSQL doesn't take writes: points wait in memory and journal",
            "start PostgreSQL or mend the way to it; the log says what it answers",
        )
    if state.paused:
        yield Finding(
            Severity.ERROR,
            "paused",
            "there is no room: TCP senders wait, datagrams are refused",
            "see the findings on limits and on PostgreSQL",
        )
    if state.journal_failed is not None:
        yield Finding(
            Severity.ERROR,
            "journal",
            f"the journal can't be written ({state.journal_failed}): a crash would lose what came since",
            "free or mend the disk of data_dir",
        )
    if not state.native:
        yield Finding(
            Severity.WARNING,
            "kernels",
            "the pure Python kernels run: ingest is many times slower",
            "install a C compiler and Python's headers, then this package again; TGRES_PURE must not be set",
        )
    yield from _receiver_findings(state)
    for setting, count in (state.refused_queries or {}).items():
        yield Finding(
            Severity.INFO,
            "query_limit",
            f"{count:,} requests were refused since the start: more than {setting} allows",
            f"narrow the dashboards' queries, or raise {setting}",
            [setting],
            count,
        )


def _receiver_findings(state: State) -> Iterator[Finding]:
    if state.refused_connections:
        yield Finding(
            Severity.ERROR,
            "connections",
            f"{state.refused_connections:,} connections were closed at once since the start",
            MENDS["connections_max"],
            count=state.refused_connections,
        )
    if state.open_files is not None and state.open_files[0] < state.open_files[1]:
        may, needed = state.open_files
        yield Finding(
            Severity.WARNING,
            "open_files",
            f"{may:,} files may be open, connections_max and http_connections_max need {needed:,}: fewer connections "
            "are accepted",
            "raise the limit (LimitNOFILE, ulimit -Hn) and restart the server, or lower the settings",
        )
    for name, (has, asked) in (state.sockets or {}).items():
        if has < asked:
            yield Finding(
                Severity.WARNING,
                "udp_buffer",
                f"{name}: the kernel gave {has // 1024:,} KiB of receive buffer, {asked // 1024:,} were asked for",
                f"sysctl net.core.rmem_max={asked}, then restart the server",
                [name],
            )
    if state.statsd is not None and state.statsd[0] != state.statsd[1]:
        flush_s, step_s = state.statsd
        yield Finding(
            Severity.WARNING,
            "statsd_step",
            f"statsd flushes every {flush_s} s into slots of {step_s} s",
            f"set flushInterval to {step_s * 1_000}, or give stats.* a retention that begins with {flush_s}s",
        )
