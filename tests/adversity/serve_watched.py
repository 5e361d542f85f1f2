"""``tgres serve`` that writes down, in the file ``stalls`` of its directory, when its event loop was late and why.

A line of JSON for each time that a timer of 50 ms came more than ``LATE_S`` late: by how much, how long the loop's thread
ran and how long it waited for a core meanwhile, CPU time of all threads, and where the loop was (a thread
looks when it is late).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
import traceback
from importlib import import_module
from pathlib import Path

from tests.adversity.health_watch import ran_and_waited_s
from tgres_py.cli.main import main
from tgres_py.server import root

NAP_S = 0.05
LATE_S = 0.1


class Watch:
    def __init__(self) -> None:
        self.beat = time.monotonic()
        self.where = ""
        self._loop = threading.get_ident()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        looked = 0.0
        while True:
            time.sleep(NAP_S)
            if time.monotonic() - self.beat > NAP_S + LATE_S and looked != self.beat:
                looked = self.beat
                frame = sys._current_frames().get(self._loop)
                stack = traceback.extract_stack(frame)[-8:]
                self.where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in stack[::-1])

    async def run(self) -> None:
        me = os.getpid()
        with Path("stalls").open("a", buffering=1) as file:  # noqa: ASYNC230  # some microseconds
            while True:
                self.beat, self.where = time.monotonic(), ""
                (ran, waited), cpu = ran_and_waited_s(me), time.process_time()
                await asyncio.sleep(NAP_S)
                late = time.monotonic() - self.beat - NAP_S
                if late < LATE_S:
                    continue
                ran_then, waited_then = ran_and_waited_s(me)
                one = {
                    "at": time.time(),
                    "late_s": late,
                    "ran_s": ran_then - ran,
                    "waited_s": waited_then - waited,
                    "cpu_s": time.process_time() - cpu,
                    "where": self.where,
                }
                file.write(json.dumps(one) + "\n")


class WatchedServer(root.Server):
    async def start(self) -> None:
        self._tasks.spawn(Watch().run(), "watch")
        await super().start()


if __name__ == "__main__":
    # the verb takes it by this name
    vars(import_module("tgres_py.server.run"))["Server"] = WatchedServer
    sys.exit(main())
