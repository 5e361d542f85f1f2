"""What the doctor says of PostgreSQL: settings, bloat, clocks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from tgres_py.admin.doctor.finding import Finding, Severity
from tgres_py.model.retention import BundleSpec, format_retention, pairs_of
from tgres_py.storage.inspect import PostgresFacts

DEAD_MIN = 100_000  # rows; below that bloat is no matter
DEAD_SHARE = (
    2.0  # of the live ones: partial chunks written anew leave as many dead rows as live ones
)
INDEX_SHARE = 1.0  # of the table's own size
INDEX_BYTES_MIN = 64 << 20
AGE_WARNING, AGE_ERROR = 1_000_000_000, 1_500_000_000  # at 2^31 it stops writing
IDLE_S = 3_600.0
SKEW_S = 2.0
CONNECTIONS_SHARE = 0.8
SHARED_BUFFERS_MIN = 64 << 20
WAL_MIN = 256 << 20
MIB = 1 << 20


def postgres_findings(facts: PostgresFacts, now_s: float, embedded: bool) -> Iterator[Finding]:
    """``now_s``: our clock at the moment of ``facts``. ``embedded``: its settings are ours, so not to
    be found fault with."""
    yield from _bloat(facts)
    yield from _moment(facts, now_s)
    if not embedded:
        yield from _settings(facts)


def _settings(facts: PostgresFacts) -> Iterator[Finding]:
    of = facts.settings
    alter = "ALTER SYSTEM SET {} = on; SELECT pg_reload_conf()"
    for name, severity, what in (
        ("fsync", Severity.ERROR, "a power cut can destroy the database"),
        ("full_page_writes", Severity.ERROR, "a power cut can leave torn pages"),
        (
            "synchronous_commit",
            Severity.WARNING,
            "its crash can lose chunks that the journal has already let go",
        ),
        ("autovacuum", Severity.ERROR, "dead rows pile up, and in the end it stops writing"),
        ("track_counts", Severity.ERROR, "without it autovacuum doesn't work"),
    ):
        if of.get(name) == "off":
            yield Finding(
                severity,
                f"postgres.{name}",
                f"PostgreSQL runs with {name} = off: {what}",
                alter.format(name),
            )
    for name, least, what in (
        ("shared_buffers", SHARED_BUFFERS_MIN, "reads of many chunks go to the disk"),
        ("max_wal_size", WAL_MIN, "each flush of many chunks makes a checkpoint"),
    ):
        if name in of and int(of[name]) < least:
            yield Finding(
                Severity.INFO,
                f"postgres.{name}",
                f"{name} is {int(of[name]) // MIB} MB: {what}",
                f"set {name} to {least // MIB} MB or more in postgresql.conf",
            )
    if not facts.lz4:
        yield Finding(
            Severity.INFO,
            "postgres.lz4",
            "chunks are compressed with pglz: flushes take more CPU than with lz4",
            "use a PostgreSQL that was built with lz4; then ALTER TABLE ts ALTER COLUMN dp "
            "SET COMPRESSION lz4 (new chunks only)",
        )


def _bloat(facts: PostgresFacts) -> Iterator[Finding]:
    for table in facts.tables:
        if table.dead >= DEAD_MIN and table.dead > DEAD_SHARE * table.live:
            yield Finding(
                Severity.WARNING,
                "postgres.bloat",
                f"table {table.name} has {table.dead:,} dead rows beside {table.live:,} live ones",
                f"VACUUM (ANALYZE) {table.name}; if they come back, look for transactions that stay "
                "open and make autovacuum more eager for this table",
            )
        if table.index_bytes > max(INDEX_BYTES_MIN, INDEX_SHARE * table.table_bytes):
            yield Finding(
                Severity.INFO,
                "postgres.index_bloat",
                f"the indexes of {table.name} take {table.index_bytes // MIB:,} MB, the table "
                f"{table.table_bytes // MIB:,} MB",
                f"REINDEX TABLE CONCURRENTLY {table.name}",
            )
        if table.age >= AGE_WARNING:
            yield Finding(
                Severity.ERROR if table.age >= AGE_ERROR else Severity.WARNING,
                "postgres.wraparound",
                f"table {table.name} was not frozen for {table.age:,} transactions; near 2,100,000,000 "
                "PostgreSQL stops writing",
                f"VACUUM (FREEZE) {table.name}",
            )


def _moment(facts: PostgresFacts, now_s: float) -> Iterator[Finding]:
    if facts.oldest_transaction_s > IDLE_S:
        yield Finding(
            Severity.WARNING,
            "postgres.transaction",
            f"a transaction is open and idle for {facts.oldest_transaction_s / 3_600:.1f} h: nothing that "
            "died since can be cleaned up",
            "end it (pg_stat_activity shows whose it is; idle_in_transaction_session_timeout prevents it)",
        )
    skew_s = facts.now_s - now_s
    if abs(skew_s) > SKEW_S:
        yield Finding(
            Severity.WARNING,
            "postgres.clock",
            f"PostgreSQL's clock is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} ours: "
            "SQL readers that compare with now() see another window",
            "synchronize both machines' clocks (chrony, systemd-timesyncd)",
        )
    most = int(facts.settings.get("max_connections", 0))
    if most and facts.connections > CONNECTIONS_SHARE * most:
        yield Finding(
            Severity.WARNING,
            "postgres.connections",
            f"{facts.connections} of PostgreSQL's {most} connections are in use; a new one of ours may be refused",
            "raise max_connections, or find out who takes them (pg_stat_activity)",
        )


def bundle_findings(bundles: Mapping[int, BundleSpec]) -> Iterator[Finding]:
    """Archives whose steps don't divide: their roll-ups mix slots."""
    for spec in bundles.values():
        steps = [archive.step_s for archive in spec.archives]
        if any(b % a for a, b in pairwise(steps)):
            text = format_retention(pairs_of(spec))
            yield Finding(
                Severity.ERROR,
                "steps",
                f"retention {text}: a step is no multiple of the finer one, so roll-ups mix slots",
                "give these series a retention whose steps divide (tgres retention plan)",
                [text],
            )
