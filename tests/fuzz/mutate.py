"""Small damages to sound inputs, as a fuzzer without coverage makes them; the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

GROWTH_MAX = 4_096
_ODD = [
    b"\x00", b"\xff", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\x7f", b"\n", b"\r\n", b" ", b"-1", b"0", b"1e999", b"nan",
    b"99999999999999999999", b"'", b'"', b"\\", b"(", b")", b"{", b"}", b"[", b"]", b",", b";", b"=", b":", b"|", b"%", b"\xc3\xa9",
    b"\xed\xa0\x80",
]  # fmt: skip


def mutations(inputs: Sequence[bytes], seed: int, count: int) -> Iterator[bytes]:
    """Each with one to four damages: bits, bytes, pieces lost, doubled, moved or put in from another input."""
    draw = random.Random(seed)
    for _ in range(count):
        data = bytearray(draw.choice(inputs))
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            _damage(data, draw, inputs)
        yield bytes(data)


def _damage(data: bytearray, draw: random.Random, inputs: Sequence[bytes]) -> None:
    at = draw.randrange(len(data) + 1)
    piece = data[at : at + draw.choice((1, 2, 4, 8, 50))]
    match draw.randrange(8):
        case 0 if at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        case 1 if at < len(data):
            data[at] = draw.randrange(256)
        case 2:
            data[at:at] = draw.choice(_ODD)
        case 3:
            data[at : at + len(piece)] = draw.choice(_ODD)
        case 4:
            del data[at : at + len(piece)]
        case 5 if len(data) < GROWTH_MAX:
            data[at:at] = piece * draw.choice((1, 2, 30))
        case 6:
            del data[at:]
        case _:
            other = draw.choice(inputs)
            start = draw.randrange(len(other) + 1)
            data[at : at + len(piece)] = other[start : start + draw.choice((1, 4, 30))]
