"""TLS of the listeners: one certificate for all, read again on SIGHUP."""

from __future__ import annotations

import ssl
from pathlib import Path

from tgres_py.errors import ConfigError

HANDSHAKE_S = 10.0  # a connection that isn't encrypted by then is closed


class Tls:
    """``context`` is what listeners are given; new connections see a certificate that was reloaded."""

    def __init__(self, cert: Path, key: Path | None) -> None:
        """``cert``: PEM, with the chain; ``key``: PEM, None when it stands in the same file. ConfigError."""
        self.context = _context(cert, key)

    def reload(self, cert: Path, key: Path | None) -> None:
        """ConfigError: the files can't be used; the old certificate stays."""
        _context(cert, key)  # a pair that doesn't fit would spoil the context in use
        self.context.load_cert_chain(cert, key, _no_password)


def _context(cert: Path, key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    # A sender that reads nothing would hang up with the tickets unread, which makes of its farewell a reset, and what is
    # still on its way is lost.
    context.num_tickets = 0
    try:
        context.load_cert_chain(cert, key, _no_password)
    except ssl.SSLError as error:
        reason = error.reason or "not a certificate and its key as PEM"
        raise ConfigError(f"tls_cert {cert}, tls_key {key or cert}: {reason}") from None
    except OSError as error:
        raise ConfigError(f"tls_cert {cert}, tls_key {key or cert}: {error.strerror}") from None
    return context


def _no_password() -> str:
    """A key with a password would make the start wait for a terminal."""
    return ""
