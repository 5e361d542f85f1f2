"""Report of the most frequent keys (etsy's keyFlush): one line for each, ``TIME count=N key=K``, most frequent first."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime


def key_report(counts: Counter[str], percent: float, now_s: int) -> str:
    """Lines of the first ``percent`` of all keys, rounded up; empty when nothing came."""
    time = datetime.fromtimestamp(now_s, UTC).strftime("%a %b %d %Y %H:%M:%S GMT+0000")
    shown = counts.most_common(math.ceil(len(counts) * max(0.0, percent) / 100))
    return "".join(f"{time} count={count} key={key}\n" for key, count in shown)
