"""The receiving side of a stream: bytes put into order exactly once, and what SACK reports of the rest.

Positions are absolute (unwrapped) sequence offsets.  Memory is bounded by the window that the caller
enforces and by a cap on the number of pieces, so that a flood of tiny segments cannot cost more than
a legitimate sender's.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque

_SMALL = 256
_GLUE = 4096
_RECENT = 8


class ReceiveBuffer:
    """In-order bytes waiting for the application and out-of-order pieces waiting for a gap to close.

    `next` is the first position not yet received in order, `size` the in-order bytes not yet read,
    `held` the bytes stored out of order.
    """

    __slots__ = (
        "_chunks",
        "_ends",
        "_max_pieces",
        "_pieces",
        "_recent",
        "_skip",
        "_starts",
        "held",
        "next",
        "size",
    )

    def __init__(self, first: int, capacity: int) -> None:
        """`first`: position of the first byte to come; `capacity`: the largest window, for the piece cap."""
        self.next = first
        self.size = 0
        self.held = 0
        self._chunks: deque[bytes | bytearray] = deque()
        self._skip = 0
        self._pieces: dict[int, bytes] = {}
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._recent: deque[int] = deque(maxlen=_RECENT)
        self._max_pieces = max(4096, capacity // 256)

    @property
    def has_gap(self) -> bool:
        """Whether bytes are stored out of order."""
        return bool(self._starts)

    def append(self, data: bytes) -> None:
        """Take bytes that start exactly at `next`; nothing may be stored out of order."""
        n = len(data)
        self.next += n
        self.size += n
        if n < _SMALL and self._chunks and len(self._chunks[-1]) < _GLUE:
            last = self._chunks[-1]
            if isinstance(last, bytearray):
                last += data
            else:
                glued = bytearray(last)
                glued += data
                self._chunks[-1] = glued
        else:
            self._chunks.append(data)

    def insert(self, start: int, data: bytes) -> tuple[int, int] | None:
        """Take bytes at position `start`, which may lie before, at or after `next`.

        Returns the range that had been received before (for a DSACK, RFC 2883), or None when all
        of it was new.  A piece beyond the piece cap is dropped, as if lost.
        """
        end = start + len(data)
        duplicate: tuple[int, int] | None = None
        if start < self.next:
            duplicate = (start, min(end, self.next))
            if end <= self.next:
                return duplicate
            data = data[self.next - start :]
            start = self.next
        if start == self.next and not self._starts:
            self.append(data)
            return duplicate
        found = self._store(start, end, data)
        if self._starts and self._starts[0] == self.next:
            self._drain()
        return duplicate or found

    def _store(self, start: int, end: int, data: bytes) -> tuple[int, int] | None:
        """Keep the parts of [start, end) not held yet; merge the ranges; return a part held before."""
        starts, ends = self._starts, self._ends
        lo = bisect_left(ends, start)
        hi = bisect_right(starts, end)
        if len(self._pieces) >= self._max_pieces and start != self.next:
            return None
        duplicate: tuple[int, int] | None = None
        position = start
        for i in range(lo, hi):
            if position < starts[i]:
                self._keep(position, data[position - start : starts[i] - start])
            overlap = (max(start, starts[i]), min(end, ends[i]))
            if overlap[0] < overlap[1]:
                duplicate = duplicate or overlap
            position = max(position, ends[i])
        if position < end:
            self._keep(position, data[position - start :] if position > start else data)
        if lo < hi:
            start = min(start, starts[lo])
            end = max(end, ends[hi - 1])
        recent = self._recent
        if not recent or recent[-1] != start:
            # A range has one place in it: a batch that fills one range must not push out the others, whose
            # only report may then be lost.
            for merged in (*starts[lo:hi], start):
                if merged in recent:
                    recent.remove(merged)
            recent.append(start)
        starts[lo:hi] = [start]
        ends[lo:hi] = [end]
        return duplicate

    def _keep(self, position: int, piece: bytes) -> None:
        self._pieces[position] = piece
        self.held += len(piece)

    def _drain(self) -> None:
        """The first range now starts at `next`: move its pieces to the in-order queue."""
        end = self._ends.pop(0)
        self._starts.pop(0)
        pieces = self._pieces
        while self.next < end:
            piece = pieces.pop(self.next)
            self.held -= len(piece)
            self.append(piece)

    def sack_blocks(self, limit: int) -> list[tuple[int, int]]:
        """At most `limit` ranges held out of order, the most recently changed first (RFC 2018 section 4)."""
        starts, ends = self._starts, self._ends
        blocks: list[tuple[int, int]] = []
        if not starts:
            return blocks
        for position in reversed(self._recent):
            i = bisect_right(starts, position) - 1
            if i < 0 or position >= ends[i]:
                continue
            block = (starts[i], ends[i])
            if block not in blocks:
                blocks.append(block)
                if len(blocks) == limit:
                    break
        return blocks

    def read(self, limit: int) -> bytes:
        """Remove and return at most `limit` in-order bytes."""
        chunks = self._chunks
        if limit >= self.size and not self._skip:
            data = bytes(chunks[0]) if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            self.size = 0
            return data
        room = min(limit, self.size)
        self.size -= room
        parts: list[bytes | bytearray] = []
        while room:
            part = self._take(room)
            parts.append(part)
            room -= len(part)
        return b"".join(parts)

    def _take(self, room: int) -> bytes | bytearray:
        """Cut at most `room` bytes off the first chunk without moving the rest of it."""
        first = self._chunks[0]
        skip = self._skip
        if len(first) - skip > room:
            self._skip = skip + room
            return first[skip : self._skip]
        self._chunks.popleft()
        self._skip = 0
        return first[skip:] if skip else first

    def read_into(self, target: memoryview) -> int:
        """Fill `target` with in-order bytes as far as they go; return how many."""
        room = min(len(target), self.size)
        self.size -= room
        done = 0
        while done < room:
            part = self._take(room - done)
            end = done + len(part)
            target[done:end] = part
            done = end
        return done

    def discard(self) -> None:
        """Drop everything stored; `next` stays."""
        self._chunks.clear()
        self._skip = 0
        self._pieces.clear()
        self._starts.clear()
        self._ends.clear()
        self.size = 0
        self.held = 0
