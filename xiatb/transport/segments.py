"""What the scoreboard holds: transmitted segments, and their order of transmission.

A segment may be a train: several packets of `mss` bytes (the last may be shorter) that left together and
share all that is known about them.  Once the network has treated them differently it is cut.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any


class Segment:
    """Positions [start, end) sent at once, in packets of `mss` bytes, and their payload.

    A FIN takes one position without a byte.
    """

    __slots__ = (
        "after", "before", "data", "end", "fin", "lost", "mark", "mss", "resent", "resent_at", "sacked",
        "sent_at", "start",
    )  # fmt: skip

    def __init__(
        self, start: int, end: int, data: bytes | memoryview, fin: bool, now: float, mss: int = 0
    ) -> None:
        """`mss` 0: a single packet."""
        self.start = start
        self.end = end
        self.data = data
        self.fin = fin
        self.mss = mss or end - start
        self.sent_at = now
        self.resent_at = 0.0
        self.resent = 0
        self.sacked = False
        self.lost = False
        self.mark: Any = None
        self.before: Segment | None = None
        self.after: Segment | None = None

    @property
    def packets(self) -> int:
        """In how many packets it went out."""
        return -(-(self.end - self.start) // self.mss)

    def cut(self, at: int) -> Segment:
        """End this segment at position `at` within it; return the rest, with the same marks."""
        skip = at - self.start
        rest = Segment(at, self.end, memoryview(self.data)[skip:], self.fin, self.sent_at, self.mss)
        rest.resent, rest.resent_at = self.resent, self.resent_at
        rest.lost, rest.sacked, rest.mark = self.lost, self.sacked, self.mark
        self.end = at
        self.data = memoryview(self.data)[:skip]
        self.fin = False
        return rest


class TransmitOrder:
    """The segments in flight in the order in which they were sent last: a ring of them around `_ring`."""

    __slots__ = ("_ring",)

    def __init__(self) -> None:
        ring = self._ring = Segment(0, 0, b"", False, 0.0)
        ring.before = ring.after = ring

    def append(self, segment: Segment) -> None:
        """`segment` was sent just now; if it is in the order already it goes to the end."""
        if segment.after is not None:
            self.remove(segment)
        ring = self._ring
        last = ring.before
        assert last is not None
        segment.before, segment.after = last, ring
        last.after = ring.before = segment

    def prepend(self, segment: Segment) -> None:
        """`segment` was sent before all others."""
        self.insert(self._ring, segment)

    def insert(self, place: Segment, segment: Segment) -> None:
        """Put `segment` directly behind `place`, if that is in the order."""
        after = place.after
        if after is None:
            return
        segment.before, segment.after = place, after
        place.after = after.before = segment

    def remove(self, segment: Segment) -> None:
        """`segment` is not in flight any more; nothing happens if it was not in the order."""
        before, after = segment.before, segment.after
        if before is not None and after is not None:
            before.after, after.before = after, before
            segment.before = segment.after = None

    def __iter__(self) -> Iterator[Segment]:
        """From the oldest; the one given last may be removed meanwhile."""
        ring = self._ring
        segment = ring.after
        while segment is not None and segment is not ring:
            after = segment.after
            yield segment
            segment = after

    def clear(self) -> None:
        """Forget all, and leave no cycle behind."""
        for segment in self:
            segment.before = segment.after = None
        self._ring.before = self._ring.after = self._ring


class Ranges:
    """Disjoint ranges of positions, those that SACK has reported, in order."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, left: int, right: int) -> list[tuple[int, int]]:
        """Take [left, right) in; return the parts of it that were not in before."""
        starts, ends = self._starts, self._ends
        lo = bisect_left(ends, left)
        hi = bisect_right(starts, right)
        if lo < hi and starts[lo] <= left and ends[lo] >= right:
            return []
        gaps = []
        position = left
        for i in range(lo, hi):
            if position < starts[i]:
                gaps.append((position, starts[i]))
            position = max(position, ends[i])
        if position < right:
            gaps.append((position, right))
        if lo < hi:
            left = min(left, starts[lo])
            right = max(right, ends[hi - 1])
        starts[lo:hi] = [left]
        ends[lo:hi] = [right]
        return gaps

    def forget(self, below: int) -> None:
        """Drop what is below a position."""
        starts, ends = self._starts, self._ends
        while starts and ends[0] <= below:
            del starts[0], ends[0]
        if starts and starts[0] < below:
            starts[0] = below

    def clear(self) -> None:
        """Drop all."""
        self._starts.clear()
        self._ends.clear()
