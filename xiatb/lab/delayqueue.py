"""The core of a delay line: which frames leave when. Bytes and times in, bytes and times out; no I/O.

What it does to a frame, and in which order, is what Linux's sch_netem.c does (netem_enqueue, loss_gilb_ell,
tabledist), so that the same numbers mean the same with either: duplication and loss are drawn separately
(a frame that draws both goes once), the double draws its own loss, delay and reordering; jitter is uniform; a
`reorder` share skips the delay.
"""

from __future__ import annotations

import heapq
import random
from collections import deque

from xiatb.lab.plan import Impairment

DEFAULT_LIMIT = 128 * 2**20
_COUNTERS = ("taken", "lost", "duplicated", "reordered", "overflowed", "given")


class DelayQueue:
    """One direction of a line. Times are integer nanoseconds of any one clock.

    Counters: `taken`, `lost`, `duplicated`, `reordered`, `overflowed`, `given` frames. Constant delay keeps
    order and costs a deque; jitter, reordering and changes of the delay need a heap."""

    def __init__(self, impairment: Impairment, rng: random.Random, *, limit: int = DEFAULT_LIMIT) -> None:
        self._random = rng.random
        self._limit = limit
        self._bytes = 0
        self._sequence = 0
        self._bad = False
        self._line: deque[tuple[int, int, bytes]] = deque()
        self._heap: list[tuple[int, int, bytes]] = []
        self.taken = self.lost = self.duplicated = self.reordered = self.overflowed = self.given = 0
        self._set(impairment)

    def configure(self, impairment: Impairment) -> None:
        """New parameters for frames to come. Those that wait keep their time (as with `tc qdisc change`), so
        after a cut of the delay later frames overtake them."""
        self._heap += self._line
        heapq.heapify(self._heap)
        self._line.clear()
        if impairment.loss_chain is None:
            self._bad = False
        self._set(impairment)

    def push(self, frame: bytes, now: int) -> None:
        """A frame arrived at `now`."""
        self.taken += 1
        if self._simple:
            self._hold(frame, now)
            return
        double = bool(self._duplicate) and self._random() < self._duplicate
        if double:
            self.duplicated += 1
        if self._loses():
            self.lost += 1
            if not double:
                return
            double = False
        if double:
            if self._loses():
                self.lost += 1
            else:
                self._hold(frame, now)
        self._hold(frame, now)

    def pop_due(self, now: int, budget: int = 256) -> list[bytes]:
        """Frames whose time has come, in order of their times; at most `budget`."""
        due: list[bytes] = []
        line, heap = self._line, self._heap
        while len(due) < budget:
            if heap and (not line or heap[0] < line[0]):
                if heap[0][0] > now:
                    break
                due.append(heapq.heappop(heap)[2])
            elif line and line[0][0] <= now:
                due.append(line.popleft()[2])
            else:
                break
        if due:
            self._bytes -= sum(map(len, due))
            self.given += len(due)
        return due

    def next_time(self) -> int | None:
        """When the next frame is due; None when nothing waits."""
        line, heap = self._line, self._heap
        if heap:
            return min(heap[0][0], line[0][0]) if line else heap[0][0]
        return line[0][0] if line else None

    def counters(self) -> dict[str, int]:
        """The counters by name, and the bytes that wait."""
        return {**{name: getattr(self, name) for name in _COUNTERS}, "waiting_bytes": self._bytes}

    def _set(self, impairment: Impairment) -> None:
        self._delay = impairment.delay
        self._jitter = impairment.jitter
        self._loss = impairment.loss / 1e6
        self._chain = impairment.loss_chain
        self._duplicate = impairment.duplicate / 1e6
        self._reorder = impairment.reorder / 1e6 if impairment.delay else 0.0
        self._ordered = not (self._jitter or self._reorder)
        self._simple = not (self._loss or self._chain or self._duplicate)

    def _loses(self) -> bool:
        """Draw one frame's fate. The chain moves first, the share lost is that of the state it was in."""
        chain = self._chain
        if chain is None:
            return self._loss > 0 and self._random() < self._loss
        p, r, bad, good = chain
        if self._bad:
            self._bad = self._random() >= r
            return self._random() < bad
        self._bad = self._random() < p
        return self._random() < good

    def _hold(self, frame: bytes, now: int) -> None:
        if self._bytes + len(frame) > self._limit:
            self.overflowed += 1
            return
        due = now + self._delay
        self._bytes += len(frame)
        self._sequence += 1
        if self._ordered:
            self._line.append((due, self._sequence, frame))
            return
        if self._reorder and self._random() < self._reorder:
            self.reordered += 1
            due = now
        elif self._jitter:
            due = max(now, due + round((2 * self._random() - 1) * self._jitter))
        heapq.heappush(self._heap, (due, self._sequence, frame))
