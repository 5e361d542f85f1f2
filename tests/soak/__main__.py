"""``python -m tests.soak``: ten minutes of mixed load; prints what it saw every ten seconds, and at the end."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.soak.run import Soak


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--series", type=int, default=20_000, help="that get a point each second")
    options.add_argument("--every-s", type=float, default=10)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="tgres-soak-") as folder:
        # the embedded PostgreSQL drops root's rights and must still reach its files
        Path(folder).chmod(0o755)
        soak = Soak(Path(folder), given.series, lambda line: print(line, flush=True))
        try:
            soak.run(given.seconds, given.every_s)
        finally:
            soak.close()


if __name__ == "__main__":
    main()
