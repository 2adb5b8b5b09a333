"""Congestion control: how many bytes may be in flight, and how fast they leave.

`Reno` is RFC 5681 with byte counting (RFC 3465); `Cubic` is RFC 9438; both leave their first slow
start by HyStart++ (RFC 9406).  BBR is in `bbr.py`.  Loss detection is not here:
the scoreboard says what was lost, a controller only hears "one congestion event" for each round.
"""

from __future__ import annotations

import random
from typing import Protocol

from xiatb.transport.bbr import BBR
from xiatb.transport.delivery import Sample
from xiatb.transport.hystart import HyStart


class CongestionControl(Protocol):
    """What a stream asks of a controller.  Sizes in bytes, times in seconds."""

    name: str
    cwnd: int
    ssthresh: int
    mss: int
    models_path: bool
    """Whether it lives on `on_sample` alone and steers its window through recoveries itself."""

    def initial(self) -> int:
        """The initial window in bytes, for the current `mss`."""

    def on_ack(self, acked: int, now: float, rtt: float) -> None:
        """`acked` new bytes arrived while the window was in full use; `rtt` is the smoothed one."""

    def on_round_trip(self, rtt: float, una: int, next_position: int) -> None:
        """In slow start, before `on_ack`: the newest round trip and the ends of what is outstanding."""

    def on_sample(self, sample: Sample) -> None:
        """An acknowledgement delivered something; only with `models_path`."""

    def pacing_rate(self, srtt: float) -> float:
        """Bytes/s at which to send; 0 when nothing is known yet."""

    def on_congestion(self, now: float, flight: int) -> None:
        """A loss was found: a new recovery round begins with `flight` bytes outstanding."""

    def on_timeout(self, now: float, flight: int) -> None:
        """The retransmission timer ran out: go back to slow start."""

    def on_idle(self) -> None:
        """Nothing was sent for longer than an RTO: restart from the initial window (RFC 5681 4.1)."""

    def on_path_change(self) -> None:
        """One end moved: what was learned about the old path is a hint at most."""

    def undo(self) -> None:
        """The last congestion event was spurious: take back its reduction."""


_FOREVER = 1 << 62
_INITIAL_BYTES = 96 * 1024
_SLOW_START_PACE = 2.0
"""Pacing over window and round trip: what doubling a round takes, and some play for growth after it."""
_AVOIDANCE_PACE = 1.2


class Reno:
    """Slow start, congestion avoidance, halving (RFC 5681, RFC 3465 with L = 2)."""

    name = "reno"
    models_path = False
    beta = 0.5

    def __init__(self, mss: int, initial_window: int = 10) -> None:
        """`mss` bytes a segment, `initial_window` segments at the start."""
        self.mss = mss
        self._initial = initial_window
        self.cwnd = self.initial()
        self.ssthresh = _FOREVER
        self._credit = 0
        self._undo: tuple[int, int] | None = None
        self._hystart = HyStart()
        self._divisor = 1

    def initial(self) -> int:
        """RFC 6928, with the byte limit raised to what ten segments of a jumbo frame need."""
        return max(2 * self.mss, min(self._initial * self.mss, _INITIAL_BYTES))

    def on_round_trip(self, rtt: float, una: int, next_position: int) -> None:
        """HyStart++, in the first slow start only (RFC 9406 4.3)."""
        if self.ssthresh < _FOREVER:
            self._divisor = 1
            return
        self._divisor = self._hystart.on_ack(rtt, una, next_position)
        if not self._divisor:
            self._divisor = 1
            self.ssthresh = self.cwnd

    def on_sample(self, sample: Sample) -> None:
        """Nothing: windows of this kind live on losses."""

    def pacing_rate(self, srtt: float) -> float:
        """A window a round trip, with a gain that never holds back the acknowledgements' clock."""
        if srtt <= 0.0:
            return 0.0
        gain = _SLOW_START_PACE if self.cwnd < self.ssthresh else _AVOIDANCE_PACE
        return gain * self.cwnd / srtt

    def on_ack(self, acked: int, now: float, rtt: float) -> None:
        """Grow by the bytes acknowledged in slow start, by one segment a window afterwards."""
        if self.cwnd < self.ssthresh:
            self.cwnd = min(self.cwnd + acked // self._divisor, max(self.ssthresh, self.cwnd))
            return
        self._credit += acked
        if self._credit >= self.cwnd:
            self._credit -= self.cwnd
            self.cwnd += self.mss

    def on_congestion(self, now: float, flight: int) -> None:
        """Halve (RFC 5681 equation 4, on the window in use)."""
        self._undo = (self.cwnd, self.ssthresh)
        self.ssthresh = max(int(min(self.cwnd, max(flight, self.mss)) * self.beta), 2 * self.mss)
        self.cwnd = self.ssthresh
        self._credit = 0

    def on_timeout(self, now: float, flight: int) -> None:
        """One segment, slow start up to half of what was in flight."""
        self._undo = (self.cwnd, self.ssthresh)
        self.ssthresh = max(int(max(flight, self.cwnd) * self.beta), 2 * self.mss)
        self.cwnd = self.mss
        self._credit = 0

    def on_idle(self) -> None:
        """RFC 5681 4.1 with the threshold kept, so that the return is a short slow start."""
        restart = self.initial()
        if self.cwnd > restart:
            self.ssthresh = max(self.ssthresh if self.ssthresh < _FOREVER else 0, self.cwnd * 3 // 4)
            self.cwnd = restart

    def on_path_change(self) -> None:
        """Initial window again; slow start is free to go as far as the old window and no further."""
        self._undo = None
        self.ssthresh = max(self.cwnd, 2 * self.mss) if self.ssthresh < _FOREVER else _FOREVER
        self.cwnd = self.initial()
        self._credit = 0
        self._hystart = HyStart()
        self._divisor = 1

    def undo(self) -> None:
        """Restore window and threshold from before the last event."""
        if self._undo is not None:
            cwnd, ssthresh = self._undo
            self.cwnd = max(self.cwnd, cwnd)
            self.ssthresh = max(self.ssthresh, ssthresh)
            self._undo = None


class Cubic(Reno):
    """RFC 9438: window growth by a cubic function of the time since the last congestion event."""

    name = "cubic"
    beta = 0.7
    _c = 0.4
    """C of RFC 9438 5.1, in segments per second cubed."""
    _alpha = 3.0 * (1.0 - 0.7) / (1.0 + 0.7)
    """Additive increase of the Reno-friendly region (RFC 9438 4.3)."""

    def __init__(self, mss: int, initial_window: int = 10) -> None:
        """As `Reno`."""
        super().__init__(mss, initial_window)
        self._w_max = 0.0
        self._k = 0.0
        self._epoch = -1.0
        self._w_est = 0.0
        self._fraction = 0.0
        self._undo_cubic = (0.0, 0.0, -1.0)

    def on_ack(self, acked: int, now: float, rtt: float) -> None:
        """Slow start below the threshold; else towards W_cubic(t + rtt) (RFC 9438 4.2 to 4.5)."""
        if self.cwnd < self.ssthresh:
            self.cwnd = min(self.cwnd + acked // self._divisor, max(self.ssthresh, self.cwnd))
            return
        mss = self.mss
        segments = self.cwnd / mss
        if self._epoch < 0.0:
            self._start_epoch(now, segments)
        t = now - self._epoch
        target = self._c * (t + rtt - self._k) ** 3 + self._w_max
        if target < segments:
            target = segments
        elif target > 1.5 * segments:
            target = 1.5 * segments
        alpha = self._alpha if self._w_est < self._w_max else 1.0
        self._w_est += alpha * (acked / mss) / segments
        current = self._c * (t - self._k) ** 3 + self._w_max
        if current < self._w_est:
            if self._w_est > segments:
                self.cwnd = int(self._w_est * mss)
            return
        self._fraction += (target - segments) / segments * acked
        if self._fraction >= 1.0:
            whole = int(self._fraction)
            self.cwnd += whole
            self._fraction -= whole

    def _start_epoch(self, now: float, segments: float) -> None:
        """First acknowledgement in congestion avoidance after an event or after slow start."""
        self._epoch = now
        if segments < self._w_max:
            self._k = ((self._w_max - segments) / self._c) ** (1.0 / 3.0)
        else:
            self._k = 0.0
            self._w_max = segments
        self._w_est = segments

    def on_congestion(self, now: float, flight: int) -> None:
        """Multiplicative decrease with fast convergence (RFC 9438 4.6, 4.7)."""
        self._remember()
        super().on_congestion(now, max(flight, self.cwnd))

    def on_timeout(self, now: float, flight: int) -> None:
        """As Reno, with CUBIC's factor (RFC 9438 4.8)."""
        self._remember()
        super().on_timeout(now, flight)

    def _remember(self) -> None:
        """Note W_max, lower when the last peak was not reached again (fast convergence)."""
        self._undo_cubic = (self._w_max, self._k, self._epoch)
        segments = self.cwnd / self.mss
        if segments < self._w_max:
            self._w_max = segments * (1.0 + self.beta) / 2.0
        else:
            self._w_max = segments
        self._epoch = -1.0
        self._fraction = 0.0

    def on_idle(self) -> None:
        """As Reno; the time that passed idle must not count as growth time (RFC 9438 5.8)."""
        super().on_idle()
        self._epoch = -1.0

    def on_path_change(self) -> None:
        """As Reno; the peak belonged to another path."""
        super().on_path_change()
        self._w_max = 0.0
        self._epoch = -1.0

    def undo(self) -> None:
        """Restore the curve as well (RFC 9438 4.9)."""
        if self._undo is not None:
            self._w_max, self._k, self._epoch = self._undo_cubic
        super().undo()


def make(name: str, mss: int, initial_window: int, rng: random.Random) -> CongestionControl:
    """Give the controller called `name` ("cubic", "reno" or "bbr"); `rng` spreads BBR's probes."""
    if name == "cubic":
        return Cubic(mss, initial_window)
    if name == "reno":
        return Reno(mss, initial_window)
    if name == "bbr":
        return BBR(mss, initial_window, rng)
    raise ValueError(f"unknown congestion control {name!r}")
