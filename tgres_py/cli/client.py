"""Questions to a running server over HTTP, with the standard library only."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import click

from tgres_py.cli.common import ServerUnreachable
from tgres_py.errors import BadRequest

TIMEOUT_S = 90.0
ERROR_BYTES_MAX = 4_096

url_option = click.option(
    "--url",
    default="http://127.0.0.1:8080",
    show_default=True,
    envvar="TGRES_URL",
    show_envvar=True,
    help="Address of the server.",
)


def post(url: str, path: str, form: Sequence[tuple[str, str]]) -> Any:
    """POSTs a form to ``url`` + ``path`` and returns the JSON answer, or None for 404.

    A form, since targets may be longer than a URL can be. Proxies of the environment are not used;
    TGRES_TOKEN is sent as bearer token (settings http_token, admin_token).
    BadRequest: the server refused, with its line. ServerUnreachable: no answer, or none of this server.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise BadRequest(f"--url {url}: an address starts with http:// or https://")
    token = os.environ.get("TGRES_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = Request(f"{url.rstrip('/')}{path}", urlencode(form).encode(), headers)
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=TIMEOUT_S) as answer:
            body = answer.read()
    except HTTPError as error:
        return _refused(url, error)
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise ServerUnreachable(f"no server answers at {url}: {reason}") from None
    try:
        return json.loads(body)
    except ValueError:
        raise ServerUnreachable(f"{url}{path} didn't answer with JSON; is this tgres?") from None


def _refused(url: str, error: HTTPError) -> None:
    text = error.read(ERROR_BYTES_MAX).decode("utf-8", "replace").strip().split("\n")[0]
    if error.code >= 500:
        raise ServerUnreachable(f"{url} answers {error.code}: {text or error.reason}") from None
    if error.code != 404:
        raise BadRequest(f"the server refuses: {text or error.reason}") from None
