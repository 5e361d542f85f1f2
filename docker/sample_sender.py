"""Sends made-up metrics of three web servers, so that the dashboards have something to show.

    python sample_sender.py HOST

Plaintext lines to port 2003 every ten seconds, statsd datagrams to port 8125 in between; until it is ended. Needs
nothing but Python.
"""

from __future__ import annotations

import math
import random
import socket
import sys
import time
from collections.abc import Iterator

STEP_S = 10
SERVERS = ("web1", "web2", "web3")
DAY_S = 86_400


def plaintext(now_s: int) -> Iterator[str]:
    """One round of lines: a day's wave for each server, its noise, and an outage of web3 each hour."""
    wave = 1 + 0.5 * math.sin(2 * math.pi * now_s / DAY_S)
    for number, server in enumerate(SERVERS):
        if server == "web3" and now_s % 3_600 < 120:
            continue
        load = wave * (1 + number / 4) * random.uniform(0.9, 1.1)
        for name, value in (
            ("cpu.user", 20 * load),
            ("cpu.system", 5 * load),
            ("memory.used", 2e9 + 5e8 * wave),
            ("requests", 100 * load),
            ("errors", random.expovariate(1 / (0.2 * load))),
        ):
            yield f"sample.{server}.{name} {value:.3f} {now_s}\n"


def statsd() -> bytes:
    """One datagram: a counter, a timer and a gauge."""
    ms = random.lognormvariate(3, 0.5)
    return f"sample.logins:1|c\nsample.response:{ms:.1f}|ms\nsample.queue:{random.randint(0, 20)}|g".encode()


def main(host: str) -> None:
    """Ends with an error when the server can't be reached; whoever started it starts it again."""
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.connect((host, 8125))
    with socket.create_connection((host, 2003), timeout=60) as lines:
        while True:
            now_s = int(time.time()) // STEP_S * STEP_S
            lines.sendall("".join(plaintext(now_s)).encode())
            while time.time() < now_s + STEP_S:
                datagrams.send(statsd())
                time.sleep(random.uniform(0.05, 0.3))


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["127.0.0.1"])
