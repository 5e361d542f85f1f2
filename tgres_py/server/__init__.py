"""The server: all parts of the others put together, started, run and stopped."""

from tgres_py.server.root import Server
from tgres_py.server.run import run
from tgres_py.server.source import ServerSource

__all__ = ["Server", "ServerSource", "run"]
