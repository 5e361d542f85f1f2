"""What the doctor finds: one finding is one thing to know or to mend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tgres_py.admin.frame import Row

EXAMPLES_MAX = 5


class Severity(StrEnum):
    """``error``: data is lost or will be; ``warning``: it is not what somebody wants; ``info``: good to know."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


ORDER = {severity: number for number, severity in enumerate(Severity)}


@dataclass(frozen=True, slots=True)
class Finding:
    """``check`` names the kind for scripts; ``what`` and ``mend`` are sentences; ``count`` of what
    ``examples`` shows some of."""

    severity: Severity
    check: str
    what: str
    mend: str
    examples: Sequence[str] = ()
    count: int = 1

    def row(self) -> Row:
        shown = list(self.examples[:EXAMPLES_MAX])
        return {
            "severity": self.severity.value,
            "check": self.check,
            "what": self.what,
            "mend": self.mend,
            "count": self.count,
            "examples": shown,
        }


def series_text(count: int) -> str:
    return "1 series" if count == 1 else f"{count:,} series"
