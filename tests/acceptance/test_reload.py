"""SIGHUP of a real server: tokens, certificate, allow-lists, origins, retention rules and log level change, open
connections live on; sources that are broken change nothing.
"""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.process import ServerProcess, wait_for

PEMS = Path(__file__).parent.parent / "data" / "tls"
OLD, NEW = "the-first-token-of-two", "the-second-token-of-two"
OLD_ADMIN, NEW_ADMIN = "the-first-admin-token", "the-second-admin-token"
CONFIG = """
http_token_file = "token"
admin_token_file = "admin"
tls_cert = "cert.pem"
tls_key = "cert.key"
tls_listeners = ["carbon"]
"""
DONE = "reloaded: "


class Reloading(ServerProcess):
    """A server whose sources are files that the tests change."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "--config", str(folder / "tgres.toml"))
        self.write(CONFIG, OLD, OLD_ADMIN, "one")

    def write(self, config: str, token: str, admin: str, certificate: str) -> None:
        for name, text in (("tgres.toml", config), ("token", token), ("admin", admin)):
            (self.folder / name).write_text(text)
        for kind in ("pem", "key"):
            shutil.copy(PEMS / f"{certificate}.{kind}", self.folder / f"cert.{kind}")

    def reload(self, says: str = DONE) -> str:
        """Sends SIGHUP; the lines that were logged until ``says`` was."""
        assert self.process is not None
        before = len(self.log)
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: says in self.log[before:], says)
        return self.log[before:]

    def open_http(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.ports["http"], timeout=30)

    def open_carbon(self, trusting: str) -> ssl.SSLSocket:
        """OSError when it isn't to be had, or has another certificate."""
        context = ssl.create_default_context(cafile=str(PEMS / f"{trusting}.pem"))
        plain = socket.create_connection(("127.0.0.1", self.ports["carbon"]), timeout=30)
        return context.wrap_socket(plain, server_hostname="127.0.0.1")


def ask(
    connection: http.client.HTTPConnection, path: str, token: str, **headers: str
) -> tuple[int, bytes, str | None]:
    """Status, body and the origin that may read it."""
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}", **headers})
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers["Access-Control-Allow-Origin"]


def known(server: Reloading, name: str, token: str) -> bool:
    status, body, _ = ask(server.open_http(), f"/metrics/find?query={name}", token)
    return status == 200 and bool(json.loads(body))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Reloading]:
    server = Reloading(tmp_path)
    server.start()
    yield server
    server.close()


def test_a_reload_changes_all_that_it_promises_and_open_connections_live_on(
    server: Reloading,
) -> None:
    page = {"Origin": "https://grafana.example"}
    kept, sender = server.open_http(), server.open_carbon("one")
    assert ask(kept, "/version", OLD, **page)[0::2] == (200, None)
    assert ask(kept, "/admin", OLD_ADMIN)[0] == 200
    sender.sendall(f"before 1 {int(time.time())}\n".encode())
    wait_for(lambda: known(server, "before", OLD), "the first point")

    doors = 'cors_origins = "https://grafana.example"\ncarbon_allow = ["192.0.2.0/24"]\n'
    server.write(f'{doors}log_level = "debug"\n{CONFIG}', NEW, NEW_ADMIN, "two")
    (server.folder / "schemas.conf").write_text("[all]\npattern = .*\nretentions = 5s:3h\n")
    server.reload()

    assert ask(kept, "/version", OLD)[0] == 401
    assert ask(kept, "/version", NEW, **page)[0::2] == (200, "https://grafana.example")
    assert ask(kept, "/admin", OLD_ADMIN)[0] == 401
    assert ask(kept, "/admin", NEW)[0] == 401
    assert ask(kept, "/admin", NEW_ADMIN)[0] == 200
    with pytest.raises(OSError):
        server.open_carbon("two")
    sender.sendall(f"after 1 {int(time.time())}\n".encode())
    wait_for(lambda: known(server, "after", NEW), "a point over the connection from before")
    steps = [
        json.loads(ask(kept, f"/info?target={name}&format=json", NEW)[1])["retentions"][0][
            "secondsPerPoint"
        ]
        for name in ("before", "after")
    ]
    assert steps == [1, 5]

    server.write(f'log_level = "debug"\n{CONFIG}', NEW, NEW_ADMIN, "two")
    server.reload()
    with pytest.raises(ssl.SSLCertVerificationError):
        server.open_carbon("one")
    server.open_carbon("two").close()
    wait_for(lambda: " DEBUG " in server.log, "the new level of the log")
    for secret in (OLD, NEW, OLD_ADMIN, NEW_ADMIN):
        assert secret not in server.log


BROKEN = [
    # the file, the token's file, the certificate, what is said
    ("log_level = [", NEW, "two", "not valid TOML"),
    (f'nosuch = "x"\n{CONFIG}', NEW, "two", "unknown setting nosuch"),
    (f'http_allow = "everybody"\n{CONFIG}', NEW, "two", "is no network"),
    (CONFIG, "short", "two", "at least 16"),
    (CONFIG, "", "two", "at least 16"),
]


def test_broken_sources_change_nothing_and_are_told_in_one_line(server: Reloading) -> None:
    for config, token, certificate, says in BROKEN:
        server.write(config, token, NEW_ADMIN, certificate)
        said = server.reload("going on as before")
        assert says in said and said.count("\n") == 1, said
    server.write(CONFIG, NEW, NEW_ADMIN, "two")
    (server.folder / "token").unlink()
    assert "No such file" in server.reload("going on as before")
    (server.folder / "token").write_text(NEW)
    (server.folder / "schemas.conf").write_text("[all]\npattern = (\nretentions = 5s:3h\n")
    assert "schemas.conf" in server.reload("going on as before")
    assert ask(server.open_http(), "/version", OLD)[0] == 200
    assert ask(server.open_http(), "/version", NEW)[0] == 401
    server.open_carbon("one").close()

    # a certificate that doesn't fit its key holds nothing else up
    (server.folder / "schemas.conf").write_text("[all]\npattern = .*\nretentions = 5s:3h\n")
    shutil.copy(PEMS / "one.key", server.folder / "cert.key")
    said = server.reload()
    assert "going on with the old certificate" in said and said.count("\n") == 2, said
    assert ask(server.open_http(), "/version", NEW)[0] == 200
    server.open_carbon("one").close()
    # nor do certificates without which the server was not started
    server.write(CONFIG.replace("tls_", "#tls_"), NEW, NEW_ADMIN, "two")
    assert "TLS goes on" in server.reload()
    server.open_carbon("one").close()
