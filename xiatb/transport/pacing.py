"""Spreads a window over the round trip: how many bytes may leave now, and when the next ones may.

A bucket of credit in bytes that fills at the controller's rate.  Departures come in bursts of about a
millisecond's worth (at least two segments), since timers of a Python event loop are no finer.  A
sender that waits for the pacer keeps the credit of a late timer; one that waits for something else
(its window, its application) keeps only a small burst of it.
"""

from __future__ import annotations

INFINITY = float("inf")
_QUANTUM = 0.001
"""Seconds of sending in one burst."""
_IDLE_KEEP = 0.002
"""Seconds of unused credit that outlast a wait for anything but the pacer."""
_LATE_KEEP = 0.01
"""Seconds by which a timer may be late without a loss of rate."""
_HOLD_FIRST = 0.001
_HOLD_LAST = 0.25


class Pacer:
    """Credit of one stream.  Sizes in bytes, rates in bytes/s, times in seconds."""

    __slots__ = ("_at", "_hold_step", "_keep", "credit", "held_until", "quantum", "rate")

    def __init__(self) -> None:
        """No rate is known yet: nothing is held back."""
        self.rate = 0.0
        self.credit = 0.0
        self.quantum = 0.0
        self.held_until = 0.0
        self._at = 0.0
        self._keep = _IDLE_KEEP
        self._hold_step = _HOLD_FIRST

    def grant(self, size: int) -> None:
        """`size` bytes may go out as a burst: the initial window, or that after a move."""
        if self.credit < size:
            self.credit = size

    def refill(self, now: float, rate: float, mss: int) -> float:
        """Bytes that may leave at `now`; `rate` 0 stands for no limit."""
        if rate <= 0.0:
            self._at = now
            self.rate = 0.0
            return INFINITY
        self.rate = rate
        quantum = rate * _QUANTUM
        if quantum < 2 * mss:
            quantum = 2.0 * mss
        self.quantum = quantum
        cap = quantum + rate * self._keep
        credit = self.credit
        if credit < cap:
            credit += (now - self._at) * rate
            self.credit = credit = credit if credit < cap else cap
        self._at = now
        self._keep = _IDLE_KEEP
        return credit

    def spend(self, size: int) -> None:
        """`size` bytes left."""
        self.credit -= size

    def due(self, now: float) -> float:
        """When the next burst may leave; the sender is waiting for it."""
        self._keep = _LATE_KEEP
        missing = self.quantum - self.credit
        return now + missing / self.rate if missing > 0.0 and self.rate else now

    def hold(self, now: float) -> None:
        """The local link refused a packet: stop for a while, longer each time it happens again."""
        if now >= self.held_until:
            self.held_until = now + self._hold_step
            self._hold_step = min(self._hold_step * 2, _HOLD_LAST)

    def delivered(self) -> None:
        """Something arrived: the next refusal is a new one."""
        self._hold_step = _HOLD_FIRST
