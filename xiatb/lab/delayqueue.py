"""The core of a delay line: which frames leave when. Bytes and times in, bytes and times out; no I/O.

Same meaning of the knobs as tc-netem(8): loss first, then duplication, then delay with uniform jitter,
where a `reorder` share of frames skips the delay. Constant delay keeps order and costs a deque; jitter
needs a heap.
"""

from __future__ import annotations

import heapq
import random
from collections import deque

from xiatb.lab.plan import Impairment

DEFAULT_LIMIT = 128 * 2**20


class DelayQueue:
    """One direction of a line. Times are integer nanoseconds of any one clock.

    Counters: `taken`, `lost`, `duplicated`, `reordered`, `overflowed`, `given` frames."""

    def __init__(self, impairment: Impairment, rng: random.Random, *, limit: int = DEFAULT_LIMIT) -> None:
        self._delay = impairment.delay
        self._jitter = impairment.jitter
        self._loss = impairment.loss / 1e6
        self._duplicate = impairment.duplicate / 1e6
        self._reorder = impairment.reorder / 1e6
        self._random = rng.random
        self._limit = limit
        self._bytes = 0
        self._sequence = 0
        self._ordered = not (self._jitter or self._reorder)
        self._line: deque[tuple[int, int, bytes]] = deque()
        self._heap: list[tuple[int, int, bytes]] = []
        self.taken = self.lost = self.duplicated = self.reordered = self.overflowed = self.given = 0

    def push(self, frame: bytes, now: int) -> None:
        """A frame arrived at `now`."""
        self.taken += 1
        if self._loss and self._random() < self._loss:
            self.lost += 1
            return
        self._hold(frame, now)
        if self._duplicate and self._random() < self._duplicate:
            self.duplicated += 1
            self._hold(frame, now)

    def pop_due(self, now: int, budget: int = 256) -> list[bytes]:
        """Frames whose time has come, in order of their times; at most `budget`."""
        due: list[bytes] = []
        if self._ordered:
            line = self._line
            while line and line[0][0] <= now and len(due) < budget:
                due.append(line.popleft()[2])
        else:
            heap = self._heap
            while heap and heap[0][0] <= now and len(due) < budget:
                due.append(heapq.heappop(heap)[2])
        self._bytes -= sum(map(len, due))
        self.given += len(due)
        return due

    def next_time(self) -> int | None:
        """When the next frame is due; None when nothing waits."""
        waiting = self._line or self._heap
        return waiting[0][0] if waiting else None

    def counters(self) -> dict[str, int]:
        """The counters by name, and the bytes that wait."""
        names = ("taken", "lost", "duplicated", "reordered", "overflowed", "given")
        return {**{name: getattr(self, name) for name in names}, "waiting_bytes": self._bytes}

    def _hold(self, frame: bytes, now: int) -> None:
        if self._bytes + len(frame) > self._limit:
            self.overflowed += 1
            return
        due = now + self._delay
        if self._reorder and self._random() < self._reorder:
            self.reordered += 1
            due = now
        elif self._jitter:
            due = max(now, due + round((2 * self._random() - 1) * self._jitter))
        self._bytes += len(frame)
        self._sequence += 1
        if self._ordered:
            self._line.append((due, self._sequence, frame))
        else:
            heapq.heappush(self._heap, (due, self._sequence, frame))
