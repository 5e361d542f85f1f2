"""A PostgreSQL of our own: started under a data directory, ended with us, restarted when it dies.

- It listens on a Unix socket in its data directory, mode 0700, and on no port; trust by file mode.
- ``<data_dir>.lock`` is flocked while we live, so a second server says so at once. ``<data_dir>.log`` is
  PostgreSQL's own log.
- A shell blocked on a pipe that only we hold ends it when we die, kill -9 included: a fast shutdown,
  and after ``WATCHDOG_GRACE_S`` an immediate one, which the next start recovers from.
- It runs in a session of its own: Ctrl-C in a terminal must reach us first, so that we can flush.
- A data directory is made beside its place and renamed, so a killed first start leaves nothing half made.
- As root it runs under another account. Where that account can't walk to the data directory (0700
  parents: root's home, most temporary directories) it gets the directory as an open descriptor and
  knows it as /proc/self/fd/N (Linux).
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import quote

from tgres_py import clock
from tgres_py.errors import ConfigError
from tgres_py.storage.pg_binaries import (
    Account,
    RunAs,
    account_for_root,
    choose_bindir,
    reachable_bindir,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

ROLE = "tgres"
START_TIMEOUT_S = 120.0  # crash recovery of a large WAL included
ORPHAN_TIMEOUT_S = 15.0  # how long a killed server's PostgreSQL may take to end
# Signals of a shutdown and the share of its time that each is given: fast, immediate, kill.
STOP_SIGNALS = ((signal.SIGINT, 0.7), (signal.SIGQUIT, 0.2), (signal.SIGKILL, 0.1))
STOP_TIMEOUT_S = 28.0
ABORT_TIMEOUT_S = 5.0
WATCHDOG_GRACE_S = 1
POLL_S = 0.02
RESTART_BACKOFF_S = (0.2, 10.0)
SOCKET_PATH_BYTES_MAX = (
    85  # sun_path has 104 bytes on macOS, 108 on Linux; the file's name takes 17
)

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "max_connections": "40",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "synchronous_commit": "on",
    # pglz, all that the wheel has, costs 7 times the CPU of the writes themselves
    "wal_compression": "off",
    "autovacuum": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
}


class EmbeddedPostgres:
    """One PostgreSQL under ``data_dir``. ``settings`` override SETTINGS (names of postgresql.conf)."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        self._data = data_dir.absolute()
        self._settings = {**SETTINGS, **(settings or {})}
        self._lock: IO[bytes] | None = None
        self._launcher: _Launcher | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster while it runs."""
        process = self._launcher.process if self._launcher is not None else None
        return process.pid if process is not None else None

    async def start(self) -> str:
        """Starts it, after making the data directory if need be; returns the DSN.

        ConfigError when it can't start, in one sentence.
        """
        self._data.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock_file(self._data)
        try:
            self._launcher = _Launcher(self._data, self._settings)
            await _in_thread(self._launcher.prepare)
            await _wait_for_orphan(self._data)
            await self._launch(self._launcher)
        except BaseException:
            self._release()
            raise
        self._keeper = asyncio.create_task(
            self._keep_running(self._launcher), name="embedded-postgres"
        )
        return self._launcher.dsn

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Fast shutdown: open transactions are rolled back, what was committed is checkpointed."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        if self._launcher is not None and self._launcher.process is not None:
            await _end(self._launcher.process, timeout_s)
        self._release()

    def _release(self) -> None:
        if self._launcher is not None:
            self._launcher.close()
            self._launcher = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def _launch(self, launcher: _Launcher) -> None:
        """Starts the postmaster and returns when it takes connections."""
        try:
            process = await _in_thread(launcher.start)
            deadline_s = clock.monotonic() + START_TIMEOUT_S
            while not _is_ready(self._data, process.pid):
                if process.poll() is not None:
                    raise ConfigError(
                        f"PostgreSQL did not start ({launcher.last_log_line()}); see {launcher.log}"
                    )
                if clock.monotonic() > deadline_s:
                    raise ConfigError(
                        f"PostgreSQL was not ready after {START_TIMEOUT_S:g} s; see {launcher.log}"
                    )
                await asyncio.sleep(POLL_S)
        except BaseException:
            await _in_thread(launcher.abort)
            raise

    async def _keep_running(self, launcher: _Launcher) -> None:
        """Restarts PostgreSQL whenever it ends by itself (kill -9, out of memory)."""
        delay_s = RESTART_BACKOFF_S[0]
        while True:
            await asyncio.sleep(POLL_S * 10)
            if launcher.process is not None:
                code = launcher.process.poll()
                if code is None:
                    continue
                log.warning("PostgreSQL ended with code %s; starting it again", code)
            await asyncio.sleep(delay_s)
            try:
                await self._launch(launcher)
                delay_s = RESTART_BACKOFF_S[0]
            except (ConfigError, OSError) as error:
                # its backends may still hold the shared memory for a moment
                delay_s = min(2 * delay_s, RESTART_BACKOFF_S[1])
                log.warning("%s; next try in %.1f s", error, delay_s)


def running_dsn(data_dir: Path) -> str | None:
    """The DSN of the PostgreSQL that another process runs on ``data_dir``; None when none does."""
    data = data_dir.absolute()
    lines = _pid_file(data)
    if len(lines) < 8 or lines[7].strip() != "ready":
        return None
    if not lines[0].isdigit() or not _is_postmaster(int(lines[0]), data):
        return None
    # where another account was given the directory as a descriptor, the descriptor is no path for us
    socket_dir = str(data) if lines[4].startswith("/proc/self/fd/") else lines[4]
    return f"postgresql://{ROLE}@/postgres?host={quote(socket_dir)}&port={lines[3]}"


class _Launcher:
    """What is the same at every start of one data directory: programs, account, paths. Blocks."""

    def __init__(self, data: Path, settings: Mapping[str, str]) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.log = data.with_name(f"{data.name}.log")
        self._data = data
        self._settings = settings
        self._account: Account | None = None
        self._bindir = Path()
        self._watchdog: tuple[subprocess.Popen[bytes], int] | None = None
        self._own_socket_dir: Path | None = None

    def prepare(self) -> None:
        """Finds programs and account, makes the data directory. ConfigError."""
        data = self._data
        self._account = account_for_root()
        self._bindir = reachable_bindir(
            choose_bindir(data), self._account, data.with_name(f"{data.name}.bin")
        )
        if not (data / "PG_VERSION").exists():
            self._init()
        _give(data, self._account)
        # asyncpg takes a comma for the start of a second host
        if len(os.fsencode(data)) > SOCKET_PATH_BYTES_MAX or "," in str(data):
            self._own_socket_dir = Path(tempfile.mkdtemp(prefix="tgres-"))
            _give(self._own_socket_dir, self._account)

    @property
    def dsn(self) -> str:
        host = quote(str(self._own_socket_dir or self._data))
        return f"postgresql://{ROLE}@/postgres?host={host}&port={self._settings['port']}"

    def start(self) -> subprocess.Popen[bytes]:
        """Starts the postmaster and its watchdog; it is not ready yet."""
        self._unwatch()
        self.process = self._popen()
        self._watch(self.process.pid)
        return self.process

    def abort(self) -> None:
        """Ends what ``start`` started, ready or not."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(ABORT_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        self._unwatch()

    def _popen(self) -> subprocess.Popen[bytes]:
        with _open_private(self.log) as out, _Handle(self._data, self._account) as data:
            socket_dir = self._own_socket_dir or data.path
            options = {**self._settings, "unix_socket_directories": _quoted(str(socket_dir))}
            return subprocess.Popen(
                [
                    self._bindir / "postgres",
                    "-D",
                    data.path,
                    *(f"--{name}={value}" for name, value in options.items()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=_environment(data.path),
                pass_fds=data.fds,
                start_new_session=True,
                **self._run_as,
            )

    @property
    def _run_as(self) -> RunAs:
        return self._account.run_as if self._account is not None else RunAs()

    def _init(self) -> None:
        """Makes the data directory beside its place, then moves it there."""
        data = self._data
        if data.exists() and (not data.is_dir() or any(data.iterdir())):
            raise ConfigError(
                f"{data} is not empty and not a data directory of PostgreSQL: choose another --data-dir"
            )
        making = data.with_name(f"{data.name}.init")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        _give(making, self._account)
        command = ["-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions"]
        with _Handle(making, self._account) as handle:
            answer = subprocess.run(
                [self._bindir / "initdb", "-D", handle.path, *command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                cwd="/",
                env=_environment(handle.path),
                pass_fds=handle.fds,
                **self._run_as,
            )
        if answer.returncode:
            lines = answer.stderr.strip().splitlines() or ["no reason given"]
            raise ConfigError(f"initdb can't make {data}: {lines[0]}")
        making.rename(data)

    def _watch(self, pid: int) -> None:
        """Starts the shell that ends process ``pid`` when we are gone."""
        script = f"read x; kill -INT {pid}; sleep {WATCHDOG_GRACE_S}; kill -QUIT {pid}"
        read_end, write_end = os.pipe()
        try:
            shell = subprocess.Popen(
                ["/bin/sh", "-c", script],
                stdin=read_end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
                **self._run_as,
            )
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        self._watchdog = shell, write_end

    def _unwatch(self) -> None:
        """Ends the shell first, so that it never signals a process that got the number anew."""
        if self._watchdog is not None:
            shell, write_end = self._watchdog
            shell.kill()
            shell.wait()
            os.close(write_end)
            self._watchdog = None

    def close(self) -> None:
        self._unwatch()
        if self._own_socket_dir is not None:
            shutil.rmtree(self._own_socket_dir, ignore_errors=True)

    def last_log_line(self) -> str:
        lines = self.log.read_text("utf-8", "replace").strip().splitlines()
        fatal = [line for line in lines[-20:] if "FATAL" in line]
        return (fatal or lines or ["no message"])[-1]


class _Handle:
    """A directory as ``account`` can name it: by its path, or by a descriptor of ours."""

    def __init__(self, directory: Path, account: Account | None) -> None:
        self.path = str(directory)
        self.fds: tuple[int, ...] = ()
        if account is None or _reaches(directory, account):
            return
        if not sys.platform.startswith("linux"):
            raise ConfigError(
                f"the account '{account.name}' can't reach {directory}: choose a --data-dir that it can"
            )
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self.path = f"/proc/self/fd/{descriptor}"
        self.fds = (descriptor,)

    def __enter__(self) -> _Handle:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self.fds:
            os.close(descriptor)


def _reaches(directory: Path, account: Account) -> bool:
    answer = subprocess.run(
        ["/bin/sh", "-c", 'cd "$1" && test -w .', "sh", directory],
        cwd="/",
        stderr=subprocess.DEVNULL,
        **account.run_as,
    )
    return answer.returncode == 0


def _give(directory: Path, account: Account | None) -> None:
    """Makes ``account`` the owner of ``directory``, and of what is in it when another one was."""
    if account is None or directory.stat().st_uid == account.uid:
        return
    for folder, _, files in os.walk(directory):
        os.chown(folder, account.uid, account.gid)
        for file in files:
            os.chown(os.path.join(folder, file), account.uid, account.gid, follow_symlinks=False)


def _environment(home: str) -> dict[str, str]:
    """Ours without PG… variables. HOME: libpq inside the server reads ~/.postgresql."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "HOME": home, "LC_ALL": "C"}


def _quoted(directory: str) -> str:
    """A path as an element of a list setting: blanks and commas are literal inside double quotes."""
    return '"' + directory.replace('"', '""') + '"'


def _open_private(path: Path) -> IO[bytes]:
    """A file to append to; a new one is ours alone, whatever the umask is."""
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))


def _lock_file(data: Path) -> IO[bytes]:
    lock = _open_private(data.with_name(f"{data.name}.lock"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise ConfigError(
            f"{data} is in use by another tgres: stop it, or choose another --data-dir"
        ) from error
    return lock


def _pid_file(data: Path) -> list[str]:
    """The lines of postmaster.pid; none when it is not there."""
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return []


async def _in_thread(function: Callable[[], T]) -> T:
    """Like asyncio.to_thread, but cancelled only after the thread has ended: nothing may overlap it."""
    task = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _is_ready(data: Path, pid: int) -> bool:
    lines = _pid_file(data)
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


async def _wait_for_orphan(data: Path) -> None:
    """Waits for the PostgreSQL of a killed server, which its watchdog is ending, and removes a stale
    postmaster.pid (after a restart of a container its number may be another program's)."""
    deadline_s = clock.monotonic() + ORPHAN_TIMEOUT_S
    while lines := _pid_file(data):
        pid = int(lines[0]) if lines[0].isdigit() else 0
        if not _is_postmaster(pid, data):
            (data / "postmaster.pid").unlink(missing_ok=True)
            return
        if clock.monotonic() > deadline_s:
            raise ConfigError(
                f"{data} is in use by PostgreSQL process {pid}, which this tgres did not start: stop it"
            )
        await asyncio.sleep(POLL_S * 5)


def _is_postmaster(pid: int, data: Path) -> bool:
    """Whether process ``pid`` is the PostgreSQL of ``data``: a postmaster works in its data directory."""
    if pid <= 0:
        return False
    if sys.platform.startswith("linux"):
        try:
            return Path(f"/proc/{pid}/cwd").samefile(data)
        except OSError:
            return False
    command = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True
    )
    return "postgres" in command.stdout


async def _end(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Fast shutdown; an immediate one, then a kill when that takes too long (a stopped process)."""
    for number, share in STOP_SIGNALS:
        process.send_signal(number)
        deadline_s = clock.monotonic() + timeout_s * share
        while clock.monotonic() < deadline_s:
            if process.poll() is not None:
                return
            await asyncio.sleep(POLL_S)
