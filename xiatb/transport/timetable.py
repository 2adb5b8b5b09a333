"""When the streams of an endpoint want to be called next."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from xiatb.transport.connection import INFINITY
from xiatb.transport.stream import Stream


class Timetable:
    """A time for each stream, in seconds of the endpoint's clock; never later than the stream's own.

    A stream whose deadline moved back, as it does with each acknowledgement, stays where it is and is
    looked at too early once, which is cheaper than moving it each time.
    """

    __slots__ = ("_counter", "_heap", "_queued")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Stream]] = []
        self._queued: dict[Stream, float] = {}
        self._counter = 0

    def add(self, stream: Stream, due: float) -> None:
        """Call for the stream at `due`, unless that is planned for as early."""
        at = self._queued.get(stream)
        if at is None or due < at:
            self._queued[stream] = due
            self._counter += 1
            heapq.heappush(self._heap, (due, self._counter, stream))

    def due(self, now: float) -> Iterator[Stream]:
        """Take out the streams whose time has come, one after the other."""
        heap, queued = self._heap, self._queued
        while heap and heap[0][0] <= now:
            at, _, stream = heapq.heappop(heap)
            if queued.get(stream) == at:
                del queued[stream]
                yield stream

    def remove(self, stream: Stream) -> None:
        """The stream is over."""
        self._queued.pop(stream, None)

    @property
    def first(self) -> float:
        """The earliest time; infinity when there is none."""
        return self._heap[0][0] if self._heap else INFINITY
