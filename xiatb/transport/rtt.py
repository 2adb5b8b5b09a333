"""Round-trip time estimation and the retransmission time-out (RFC 6298), with the windowed minimum
that loss detection needs (RFC 8985 section 6.2 step 1)."""

from __future__ import annotations

_GRANULARITY = 0.001
"""Clock granularity G of RFC 6298; a Python event loop is not more punctual than this."""

_MIN_WINDOW = 10.0
"""Seconds over which the minimum round trip is remembered."""


class RttEstimator:
    """Smoothed round-trip time, its variation, and the RTO with exponential back-off."""

    __slots__ = (
        "_backoff",
        "_fresh",
        "_max_rto",
        "_min_next",
        "_min_rto",
        "_min_since",
        "base_rto",
        "latest",
        "min_rtt",
        "rto",
        "rttvar",
        "samples",
        "srtt",
    )

    def __init__(self, initial_rto: float, min_rto: float, max_rto: float) -> None:
        """Times in seconds; no sample has been taken yet, so `rto` is `initial_rto`."""
        self._min_rto = min_rto
        self._max_rto = max_rto
        self._backoff = 0
        self._fresh = True
        self._min_since = 0.0
        self._min_next = 0.0
        self.base_rto = initial_rto
        self.rto = initial_rto
        self.srtt = 0.0
        self.rttvar = 0.0
        self.latest = 0.0
        self.min_rtt = 0.0
        self.samples = 0

    def sample(self, rtt: float, now: float) -> None:
        """Take one measured round trip (seconds, of a segment whose transmission is not ambiguous)."""
        if rtt < 0.0:
            return
        self.latest = rtt
        self.samples += 1
        if self._fresh:
            self._fresh = False
            self.srtt = rtt
            self.rttvar = rtt / 2
            self.min_rtt = self._min_next = rtt
            self._min_since = now
        else:
            error = rtt - self.srtt
            self.rttvar += ((error if error >= 0.0 else -error) - self.rttvar) * 0.25
            self.srtt += error * 0.125
            self._track_minimum(rtt, now)
        spread = 4 * self.rttvar
        base = self.srtt + (spread if spread > _GRANULARITY else _GRANULARITY)
        if base < self._min_rto:
            base = self._min_rto
        elif base > self._max_rto:
            base = self._max_rto
        self.base_rto = base
        self._backoff = 0
        self.rto = base

    def _track_minimum(self, rtt: float, now: float) -> None:
        """Keep the least round trip of the last one to two windows."""
        if rtt <= self.min_rtt:
            self.min_rtt = self._min_next = rtt
            self._min_since = now
            return
        if rtt < self._min_next:
            self._min_next = rtt
        if now - self._min_since > _MIN_WINDOW:
            self.min_rtt = self._min_next
            self._min_next = rtt
            self._min_since = now

    def back_off(self) -> None:
        """Double the RTO after a time-out (RFC 6298 5.5), up to the maximum."""
        self._backoff += 1
        self.rto = min(self.base_rto * (1 << min(self._backoff, 16)), self._max_rto)

    def reset_backoff(self) -> None:
        """Forget time-outs: the path is known to work again."""
        self._backoff = 0
        self.rto = self.base_rto

    def restart(self, initial_rto: float) -> None:
        """The path is another one (a move): the next sample counts as the first.

        Until then the RTO is the larger of the old base and `initial_rto`, since the old
        estimate is a guess at best and the new path may be slower.
        """
        self._fresh = True
        self._backoff = 0
        self.base_rto = max(self.base_rto, initial_rto)
        self.rto = self.base_rto
