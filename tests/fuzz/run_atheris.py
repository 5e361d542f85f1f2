"""Fuzzing guided by coverage, for hours or minutes by hand: libFuzzer on one entry, from the same seeds as the tests.

    pip install atheris
    python -m tests.fuzz.run_atheris ENTRY [SECONDS [libFuzzer options]]

ENTRY: see ``entries.ENTRIES``. Python code is instrumented, native kernels run as they are. Inputs that cover something new are
collected in a temporary directory, from which a later run may start (-corpus=DIR). What fails is printed as a line for
tests/fuzz/corpus/ENTRY.txt and ends the run.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tgres_py", "receivers", "http_api"]):
    from tests.fuzz.entries import ENTRIES
    from tests.fuzz.seeds import seeds

INPUT_BYTES_MAX = 4_096
SECONDS = 60


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] not in ENTRIES:
        raise SystemExit(f"which entry? {' '.join(ENTRIES)}")
    entry, *rest = arguments
    seconds = rest.pop(0) if rest and rest[0].isdigit() else str(SECONDS)
    given = [one.removeprefix("-corpus=") for one in rest if one.startswith("-corpus=")]
    folder = Path(given[0] if given else tempfile.mkdtemp(prefix=f"fuzz-{entry}-"))
    for seed in seeds(entry):
        (folder / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)

    def one_input(data: bytes) -> None:
        try:
            ENTRIES[entry](data)
        except BaseException:
            print(f"tests/fuzz/corpus/{entry}.txt:")
            print(data.decode("latin-1").encode("unicode_escape").decode(), flush=True)
            raise

    options = [one for one in rest if not one.startswith("-corpus=")]
    limits = [
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-artifact_prefix={folder}/",
    ]
    atheris.Setup([sys.argv[0], str(folder), *limits, *options], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
