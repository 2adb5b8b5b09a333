"""HyStart++ (RFC 9406): leaves the first slow start when round trips grow, before the queue overflows.

One deviation: the RFC looks at the least round trip of a whole round.  A paced sender fills the queue
within its rounds and begins each with an empty one, so that the round in which the window outgrows the path
looks harmless to its end; here the least of the last eight samples counts.
"""

from __future__ import annotations

from collections import deque

_INFINITY = float("inf")
_MIN_THRESH = 0.004
_MAX_THRESH = 0.016
_SAMPLES = 8
_CSS_DIVISOR = 4
_CSS_ROUNDS = 5


class HyStart:
    """Delay increase over rounds of one window each; conservative slow start (CSS) confirms it."""

    __slots__ = ("_baseline", "_css_rounds", "_current", "_last", "_round_end", "_samples")

    def __init__(self) -> None:
        self._round_end = -1
        self._last = _INFINITY
        self._current = _INFINITY
        self._baseline = 0.0
        self._samples: deque[float] = deque(maxlen=_SAMPLES)
        self._css_rounds = -1

    def on_ack(self, rtt: float, una: int, next_position: int) -> int:
        """What to divide the window's growth by: 1 in slow start, 4 in CSS, 0 to end slow start.

        `rtt`: the newest sample in seconds; `una`, `next_position`: first positions not acknowledged
        and not sent, of which the latter ends a round (RFC 9406 4.2).
        """
        if una >= self._round_end:
            self._round_end = next_position
            self._last = self._current
            self._current = _INFINITY
            self._samples.clear()
            if self._css_rounds >= 0:
                self._css_rounds += 1
                if self._css_rounds >= _CSS_ROUNDS:
                    return 0
        if rtt < self._current:
            self._current = rtt
        samples = self._samples
        samples.append(rtt)
        if len(samples) == _SAMPLES and self._last < _INFINITY:
            newest = min(samples)
            if self._css_rounds < 0:
                thresh = min(max(_MIN_THRESH, self._last / 8), _MAX_THRESH)
                if newest >= self._last + thresh:
                    self._baseline = newest
                    self._css_rounds = 0
            elif newest < self._baseline:
                self._css_rounds = -1
        return 1 if self._css_rounds < 0 else _CSS_DIVISOR
