"""Bytes written by the application and not sent yet, as the chunks they came in.

A chunk is kept by reference when it is immutable, so that a segment's payload is a view of what the
application wrote; only small writes and segments that cross a chunk border are copied.
"""

from __future__ import annotations

from collections import deque

_SMALL = 2048
"""Writes below this are glued to a small last chunk: a view per tiny write costs more than the copy."""


class SendBuffer:
    """First in, first out; `size` is the number of bytes held."""

    __slots__ = ("_chunks", "_skip", "size")

    def __init__(self) -> None:
        """Empty."""
        self._chunks: deque[memoryview] = deque()
        self._skip = 0
        self.size = 0

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Take over `data` (one byte an item); it is copied only if its owner could still change it."""
        n = len(data)
        if not n:
            return
        chunks = self._chunks
        if n < _SMALL and len(chunks) > 1 and len(chunks[-1]) < _SMALL:
            chunks[-1] = memoryview(b"".join((chunks[-1], data)))
        elif isinstance(data, bytes):
            chunks.append(memoryview(data))
        elif isinstance(data, memoryview) and isinstance(data.obj, bytes) and data.contiguous:
            chunks.append(data)
        else:
            chunks.append(memoryview(bytes(data)))
        self.size += n

    def take(self, limit: int) -> memoryview:
        """Remove and return at most `limit` (> 0) bytes from the front; the buffer must not be empty."""
        first = self._chunks[0]
        skip = self._skip
        end = skip + limit
        have = len(first)
        if end < have:
            self._skip = end
            self.size -= limit
            return first[skip:end]
        self._chunks.popleft()
        self._skip = 0
        piece = first[skip:] if skip else first
        if end == have or not self._chunks:
            self.size -= have - skip
            return piece
        return self._join(piece, limit)

    def take_packets(self, limit: int, mss: int) -> memoryview:
        """Remove and return at most `limit` (> `mss`) bytes, as much as is one piece of memory in whole
        packets of `mss` bytes; where the front chunk holds less than one, `mss` bytes of several chunks."""
        have = len(self._chunks[0]) - self._skip
        if have < limit and len(self._chunks) > 1:
            limit = have - have % mss or mss
        return self.take(limit)

    def _join(self, piece: memoryview, limit: int) -> memoryview:
        """Go on over chunk borders until `limit` bytes are collected or nothing is left."""
        parts = [piece]
        room = limit - len(piece)
        chunks = self._chunks
        while chunks and room:
            part = chunks[0]
            if len(part) > room:
                part = part[:room]
                self._skip = room
            else:
                chunks.popleft()
            parts.append(part)
            room -= len(part)
        whole = b"".join(parts)
        self.size -= len(whole)
        return memoryview(whole)

    def clear(self) -> None:
        """Drop everything."""
        self._chunks.clear()
        self._skip = 0
        self.size = 0
