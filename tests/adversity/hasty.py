"""``tgres`` with a checkpoint every half second: the setting's least is ten, and a test kills in the middle of them."""

from __future__ import annotations

import sys
from dataclasses import replace

from tgres_py.cli.main import main
from tgres_py.ingest.flusher import Flusher
from tgres_py.server import root

CHECKPOINT_S = 0.5


class HastyFlusher(Flusher):
    def _checkpoint_due(self) -> bool:
        self.pace = replace(self.pace, checkpoint_s=CHECKPOINT_S)
        return super()._checkpoint_due()


if __name__ == "__main__":
    root.Flusher = HastyFlusher  # type: ignore[misc]  # the composition root takes it by this name
    sys.exit(main())
