"""Deterministic content of the writer's memory region, disk file and of `write_file`.

Guest and host compute the same bytes from (seed, number of writes), so the host can predict a
checksum without reading anything. Content of chunk `i` in version `v`:

    stamp(seed, i, v) + pool[(i + 7 v) mod 16][16:]

where the pool is 16 chunks of SHAKE-128 output and the stamp is seed u32, index u32, version u64,
all big-endian. A lost write leaves an older version there, hence another stamp and another pool
chunk. The pool exists because producing fresh random bytes would cost a TCG guest more than the
writing itself.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

CHUNK = 64 * 1024
POOL = 16
_STRIDE = 7
_STAMP = struct.Struct(">IIQ")


class Pattern:
    """The chunk generator of one `seed` (u32)."""

    __slots__ = ("_pool", "seed")

    def __init__(self, seed: int) -> None:
        self.seed = seed & 0xFFFFFFFF
        self._pool = [
            hashlib.shake_128(b"xiatb-pattern" + struct.pack(">II", self.seed, k)).digest(CHUNK - _STAMP.size)
            for k in range(POOL)
        ]

    def stamp(self, index: int, version: int) -> bytes:
        """The first 16 bytes of chunk `index` in `version`."""
        return _STAMP.pack(self.seed, index, version)

    def body(self, index: int, version: int) -> bytes:
        """The CHUNK - 16 bytes after the stamp of chunk `index` in `version`."""
        return self._pool[(index + _STRIDE * version) % POOL]

    def chunk(self, index: int, version: int) -> bytes:
        """All CHUNK bytes of chunk `index` in `version`."""
        return self.stamp(index, version) + self.body(index, version)


def versions(chunks: int, writes: int) -> Iterator[int]:
    """For each of `chunks` chunks, how often it was rewritten after `writes` writes in round-robin order."""
    whole, rest = divmod(writes, chunks)
    for index in range(chunks):
        yield whole + (1 if index < rest else 0)


def digest_of_region(seed: int, chunks: int, writes: int) -> str:
    """SHA-256 (hex) of a region of `chunks` chunks after `writes` round-robin writes of pattern `seed`."""
    pattern = Pattern(seed)
    total = hashlib.sha256()
    for index, version in enumerate(versions(chunks, writes)):
        total.update(pattern.stamp(index, version))
        total.update(pattern.body(index, version))
    return total.hexdigest()


def file_pieces(seed: int, size: int) -> Iterator[bytes]:
    """The content of a `write_file` of `size` bytes: version-0 chunks, the last one cut."""
    pattern = Pattern(seed)
    for index in range((size + CHUNK - 1) // CHUNK):
        yield pattern.chunk(index, 0)[: size - index * CHUNK]


def digest_of_file(seed: int, size: int) -> str:
    """SHA-256 (hex) of what `write_file` with this `seed` and `size` puts on the disk."""
    total = hashlib.sha256()
    for piece in file_pieces(seed, size):
        total.update(piece)
    return total.hexdigest()
