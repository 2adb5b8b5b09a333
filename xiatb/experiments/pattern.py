"""Deterministic, unrepeating byte streams whose any part can be checked without keeping the rest.

Byte stream number `seed` is the concatenation of SHA-256(seed as u64 BE | block number as u64 BE);
a lost, repeated, moved or altered byte therefore shows up at its exact offset.
"""

from __future__ import annotations

import hashlib
import struct

_BLOCK = 32
_COUNTER = struct.Struct(">QQ")


def pattern(seed: int, offset: int, length: int) -> bytes:
    """Bytes `offset` to `offset + length` of stream `seed`."""
    if length <= 0:
        return b""
    first = offset // _BLOCK
    last = (offset + length - 1) // _BLOCK
    blocks = b"".join(hashlib.sha256(_COUNTER.pack(seed, n)).digest() for n in range(first, last + 1))
    start = offset - first * _BLOCK
    return blocks[start : start + length]


class PatternChecker:
    """Checks that bytes arrive exactly once and in order as stream `seed`."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.received = 0
        self.first_bad: int | None = None

    def feed(self, data: bytes) -> bool:
        """Check the next `data`; False from the first wrong byte on, whose offset `first_bad` keeps."""
        want = pattern(self.seed, self.received, len(data))
        if self.first_bad is None and data != want:
            place = next(i for i, (a, b) in enumerate(zip(data, want, strict=True)) if a != b)
            self.first_bad = self.received + place
        self.received += len(data)
        return self.first_bad is None
