"""Rate and backlog of one relay direction, and the bound on its buffer that follows from them.

The relay's buffer is downtime: QEMU takes what it could write for what has arrived (reference/migration.md,
fact 2). So the bound is what the path needs to stay full, rate * round trip, and `SLACK_S` of the rate on
top.
"""

from __future__ import annotations

from collections import deque

SLACK_S = 0.015
FLOOR = 128 * 1024
SWITCH_FLOOR = 384 * 1024
"""The same while a post-copy begins: its first word is the device state in one piece (some 140 KB), which
must not wait for an acknowledgement. QEMU itself sends little then."""
CEILING = 8 * 1024 * 1024
BULK = 1 << 20
"""Channels that carried less than this have no rate worth naming."""
_SAMPLE_S = 0.1
_SAMPLES = 10


class Meter:
    """Counts bytes of one direction. `now` is monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.total = 0
        self.peak_backlog = 0
        self.floor = FLOOR
        self._began = now
        self._ended = now
        self._since = now
        self._in_sample = 0
        self._rates: deque[float] = deque(maxlen=_SAMPLES)

    def count(self, size: int, now: float) -> bool:
        """`size` bytes went through; True when a rate sample was completed (time to look at the bound)."""
        if self.total == 0:
            self._began = now
        self.total += size
        self._ended = now
        self._in_sample += size
        elapsed = now - self._since
        if elapsed < _SAMPLE_S:
            return False
        self._rates.append(self._in_sample / elapsed)
        self._since, self._in_sample = now, 0
        return True

    @property
    def rate(self) -> float:
        """Bytes a second: the best sample of the last second, so that a pause does not shrink the bound."""
        return max(self._rates, default=0.0)

    def bound(self, round_trip: float) -> int:
        """Bytes that may wait between QEMU and the wire, with `round_trip` seconds of them on their way."""
        return int(min(CEILING, max(self.floor, self.rate * (round_trip + SLACK_S))))

    def saw_backlog(self, size: int) -> None:
        """Note `size` bytes waiting now."""
        self.peak_backlog = max(self.peak_backlog, size)

    def peak_backlog_ms(self) -> float | None:
        """The peak as time at the mean rate of the whole transfer; None for channels that carried too
        little."""
        elapsed = self._ended - self._began
        if self.total < BULK or elapsed <= 0:
            return None
        return 1000.0 * self.peak_backlog * elapsed / self.total
