"""statsd once more, slowly: a line after the other, a number after the other, with lists and dictionaries only.

Written from the protocol's description, to hold the fast code against: etsy's order of reading, and what dialects add to it.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from typing import Any

BLANK = "\t\n\v\f\r \u00a0\ufeff"
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"


def number(text: str) -> float | None:
    text = text.strip(BLANK)
    if text == "":
        return 0.0
    if re.fullmatch(NUMBER, text, re.ASCII):
        return float(text)
    for prefix, base in (("0x", 16), ("0b", 2), ("0o", 8)):
        digits = "0123456789abcdef"[:base]
        body = text[2:].lower()
        if text[:2].lower() == prefix and body and all(c in digits for c in body):
            return float(int(body, base))
    return {"Infinity": math.inf, "+Infinity": math.inf, "-Infinity": -math.inf}.get(text)


class Model:
    """``table``: etsy's names; dialects by the switches that are in it."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.table = table
        self.counters: dict[str, float] = dict.fromkeys(
            ("statsd.bad_lines_seen", "statsd.packets_received", "statsd.metrics_received"), 0.0
        )
        self.gauges: dict[str, float] = {}
        self.timers: dict[str, list[float]] = {}
        self.weights: dict[str, float] = {}
        self.sets: dict[str, set[str]] = {}
        self.timed: list[tuple[str, int, float]] = []

    def packet(self, data: bytes) -> None:
        self.counters["statsd.packets_received"] += 1
        for line in data.split(b"\n"):
            if line:
                self.counters["statsd.metrics_received"] += 1
                self.line(line.decode(errors="replace"))

    def line(self, line: str) -> None:
        table, time = self.table, None
        if table.get("events") and line.startswith("_e{"):
            head = re.match(r"_e\{(\d+),(\d+)\}:(.*)$", line, re.S)
            good = head and len(head[3]) >= int(head[1]) + 1 + int(head[2]) and int(head[1]) > 0
            good = good and head is not None and head[3][int(head[1])] == "|"
            self.counters["statsd.bad_lines_seen"] += not good
            return
        if table.get("timestamps"):
            fields = line.split("|")
            stamps = [i for i, f in enumerate(fields) if i and re.fullmatch(r"T\d{1,11}", f, re.A)]
            if stamps:
                time = int(fields.pop(stamps[0])[1:])
                line = "|".join(fields)
        if table.get("extraFields"):
            extra = r"c:(ci-|in-).*|e:.*|card:.*"
            first, *fields = line.split("|")
            line = "|".join([first, *(f for f in fields if not re.fullmatch(extra, f, re.S))])
        head, *rest = line.split("|#")
        key, *specs = head.split(":")
        tags: list[str] = []
        if "influx" in table.get("tagStyles", ()) and "," in key and "=" in key.split(",", 1)[1]:
            key, inner = key.split(",", 1)
            tags = inner.split(",")
        if rest and rest[0]:
            tags += rest[0].split(",")
        for tag in tags:
            key += ";" + tag.replace(";", "_", 1).replace(":", "=", 1)
        key = re.sub(f"[{BLANK}]+", "_", key).replace("/", "-")
        key = "".join(c for c in key if c.isascii() and (c.isalnum() or c in "_-.;="))
        if table.get("valuePacking"):
            for i in range(len(specs) - 2, -1, -1):
                if "|" not in specs[i] and "|" in specs[i + 1]:
                    specs[i] += "|" + specs[i + 1].split("|", 1)[1]
        for spec in specs or ["1"]:
            if not self.spec(key, spec.split("|"), time):
                self.counters["statsd.bad_lines_seen"] += 1

    def spec(self, key: str, fields: list[str], time: int | None) -> bool:
        if len(fields) < 2:
            return False
        rate = 1.0
        if len(fields) > 2:
            text = fields[2]
            if (
                not text.startswith("@")
                or text[1:] == ""
                or text[1] == "-"
                or number(text[1:]) is None
            ):
                return False
            digits = re.match(r"[0-9.]*", text[1:])
            assert digits
            if (found := number(digits[0])) is None or digits[0] == "":
                return False
            rate = found
        weight = 1 / rate if rate else math.inf
        value = number(fields[0]) if fields[0] else None
        kind = fields[1].strip(BLANK)
        if fields[1] != "s" and (value is None or (fields[1] == "ms" and value < 0)):
            return False
        if kind == "s":
            self.sets.setdefault(key, set()).add(fields[0] or "0")
            return True
        assert value is not None
        if kind == "ms" or kind in self.table.get("timerTypes", ()):
            self.timers.setdefault(key, []).append(value)
            self.weights[key] = self.weights.get(key, 0.0) + weight
        elif kind == "g":
            if time is not None:
                self.timed.append((f"stats.gauges.{key}", time, value))
            elif fields[0][0] in "+-" and self.known(self.gauges.get(key)):
                self.gauges[key] += value
            else:
                self.gauges[key] = value
        elif time is not None:
            self.timed.append((f"stats.{key}", time, value * weight / 10))
            self.timed.append((f"stats_counts.{key}", time, value * weight))
        else:
            before = self.counters.get(key, 0.0)
            self.counters[key] = (0.0 if math.isnan(before) else before) + value * weight
        return True

    def known(self, value: float | None) -> bool:
        return value is not None and value != 0 and not math.isnan(value)

    def flush(self) -> dict[str, float]:
        """All names and values but statsd's times; then an interval starts. NaN is no value."""
        out: dict[str, float] = {}
        for key, value in self.counters.items():
            out |= {put("stats.", key): value / 10, put("stats_counts.", key): value}
        for key, value in self.gauges.items():
            out[put("stats.gauges.", key)] = value
        for key, members in self.sets.items():
            out[put("stats.sets.", key, ".count")] = len(members)
        for key, values in self.timers.items():
            for name, of in self.timer(sorted(values), self.weights[key]).items():
                out[put("stats.timers.", key, f".{name}")] = of
        parts = (self.counters, self.timers, self.gauges, self.sets)
        out["statsd.numStats"] = sum(map(len, parts))
        self.counters = dict.fromkeys(self.counters, 0.0)
        self.timers = {key: [] for key in self.timers}
        self.weights = dict.fromkeys(self.weights, 0.0)
        self.sets = {key: set() for key in self.sets}
        return {name: value for name, value in out.items() if not math.isnan(value)}

    def timer(self, values: list[float], weight: float) -> dict[str, float]:
        out: dict[str, float] = defaultdict(float, count=weight, count_ps=weight / 10)
        n = len(values)
        if n == 0:
            return out
        for p in self.table.get("percentThreshold", [90]):
            k = math.floor(abs(p) / 100 * n + 0.5) if n > 1 else 1
            if k == 0:
                continue
            part = values[:k] if p > 0 else values[n - k :]
            label = f"{p:g}".replace(".", "_", 1).replace("-", "top", 1)
            out |= {f"count_{label}": k, f"sum_{label}": sum(part), f"mean_{label}": sum(part) / k}
            out[f"sum_squares_{label}"] = sum(v * v for v in part)
            out[f"{'upper' if p > 0 else 'lower'}_{label}"] = part[-1] if p > 0 else part[0]
        out |= {
            "sum": sum(values),
            "mean": sum(values) / n,
            "upper": values[-1],
            "lower": values[0],
        }
        out |= {"median": statistics.median(values), "sum_squares": sum(v * v for v in values)}
        mean = sum(values) / n
        # ``** 2`` would raise where the square is beyond what a double holds
        out["std"] = math.sqrt(sum((v - mean) * (v - mean) for v in values) / n)
        return out


def put(head: str, key: str, leaf: str = "") -> str:
    path, mark, tags = key.partition(";")
    return f"{head}{path}{leaf}{mark}{tags}"
