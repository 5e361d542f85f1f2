"""Serves graphite-web over nothing but its cluster servers; run by an interpreter that has graphite-web.

    python graphite_front.py FOLDER HOST:PORT[?format=msgpack] …     prints "port N" when it listens

Runs apart from the tests: graphite-web wants a Django of its own time.
"""

from __future__ import annotations

import inspect
import os
import socketserver
import sys
import warnings
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

SETTINGS = """\
SECRET_KEY = "test"
STORAGE_DIR = WHISPER_DIR = CONF_DIR = LOG_DIR = STATIC_ROOT = {folder!r}
STANDARD_DIRS = [{folder!r}]
TIME_ZONE = "UTC"
CARBONLINK_HOSTS = []
CLUSTER_SERVERS = {servers!r}
LOG_ROTATION = False
USE_WORKER_POOL = False
REMOTE_RETRY_DELAY = 0.0
FIND_TIMEOUT = FETCH_TIMEOUT = 30.0
FIND_CACHE_DURATION = DEFAULT_CACHE_DURATION = 0
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {folder!r} + "/db"}}}}
"""


def configure(folder: Path, servers: list[str]) -> None:
    text = SETTINGS.format(folder=str(folder), servers=servers)
    (folder / "front_settings.py").write_text(text)
    sys.path.insert(0, str(folder))
    os.environ["GRAPHITE_SETTINGS_MODULE"] = "front_settings"
    os.environ["DJANGO_SETTINGS_MODULE"] = "graphite.settings"
    warnings.filterwarnings("ignore")
    # graphite-web 1.1.10 asks for a function that Python 3.11 has no longer
    inspect.getargspec = lambda f: inspect.getfullargspec(f)[:4]  # type: ignore[attr-defined]  # what this Django still asks for
    import django  # type: ignore[import-not-found]  # it is there for this test only

    django.setup()
    from django.core.management import call_command  # type: ignore[import-not-found]  # it is there for this test only

    call_command("migrate", run_syncdb=True, verbosity=0, interactive=False)


class Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


class Server(WSGIServer):
    def server_bind(self) -> None:
        # the base class would look up the host's name
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]
        self.setup_environ()


def main() -> None:
    configure(Path(sys.argv[1]), sys.argv[2:])
    from django.core.wsgi import get_wsgi_application  # type: ignore[import-not-found]  # it is there for this test only

    server = make_server("127.0.0.1", 0, get_wsgi_application(), Server, Handler)
    print(f"port {server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
