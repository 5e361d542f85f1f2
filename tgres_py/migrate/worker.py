"""A process that imports files for the one that started it.

It reads JSON lines and answers each with one: first {"dsn", "timeout_s", "options",
"rules"}, then a list of files each. ``rules``: arguments of ``config.load``, or null. It ends when its
input does, so that nothing is left when its parent is killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from tgres_py.errors import StoreUnavailable, TgresError
from tgres_py.migrate.files import Found
from tgres_py.migrate.load import Loader, MatchMany, Options
from tgres_py.migrate.verify import Verifier
from tgres_py.storage.importing import ImportStore


async def serve() -> None:
    """Answers until the input ends."""
    head = json.loads(sys.stdin.readline())
    store = ImportStore(head["dsn"], command_timeout_s=head["timeout_s"])
    options = Options(**head["options"])
    worker: Loader | Verifier
    if options.verify:
        worker = Verifier(store, options)
    else:
        worker = Loader(store, options, _rules(head["rules"]))
    try:
        for line in sys.stdin:
            answer = await _answer(worker, [Found(*one) for one in json.loads(line)])
            print(json.dumps(answer), flush=True)
    finally:
        await store.close()


def _rules(arguments: list[Any] | None) -> MatchMany | None:
    if arguments is None:
        return None
    from tgres_py.config_sources import load  # half of the time that a worker takes to start

    return load(*arguments).rule_set().match_many


async def _answer(worker: Loader | Verifier, files: list[Found]) -> dict[str, Any]:
    try:
        return (await worker.load(files)).as_data()
    except TgresError as error:
        return {"error": str(error), "unavailable": isinstance(error, StoreUnavailable)}


if __name__ == "__main__":
    asyncio.run(serve())
