"""A process that imports files for the one that started it.

It reads JSON lines and answers each with one: first {"dsn", "options"}, then a list of files each. It ends when its
input does, so that nothing is left when its parent is killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from tgres_py.errors import StoreUnavailable, TgresError
from tgres_py.migrate.files import Found
from tgres_py.migrate.load import Loader, Options
from tgres_py.storage.importing import ImportStore


async def serve() -> None:
    """Answers until the input ends."""
    head = json.loads(sys.stdin.readline())
    store = ImportStore(head["dsn"], command_timeout_s=head["timeout_s"])
    loader = Loader(store, Options(**head["options"]))
    try:
        for line in sys.stdin:
            answer = await _answer(loader, [Found(*one) for one in json.loads(line)])
            print(json.dumps(answer), flush=True)
    finally:
        await store.close()


async def _answer(loader: Loader, files: list[Found]) -> dict[str, Any]:
    try:
        return (await loader.load(files)).as_data()
    except TgresError as error:
        return {"error": str(error), "unavailable": isinstance(error, StoreUnavailable)}


if __name__ == "__main__":
    asyncio.run(serve())
