"""BBR: a sender that models the path instead of filling its queue until something is lost.

Versions 2 and 3 in substance (draft-ietf-ccwg-bbr): the greatest delivery rate of the last two probing
cycles and the least round trip of 10 s say how fast to send and how much to have in flight; the rate
is probed upwards every few seconds, the round trip downwards every 5 s; losses above 2 % bound both.
The bounds below a probe react to rounds with *more* than that share of losses, where the draft takes
any loss: a link that loses 1 % at random is then still filled.
"""

from __future__ import annotations

import math
import random
from enum import IntEnum

from xiatb.transport.delivery import Sample

_FOREVER = 1 << 62
_INFINITY = float("inf")
_INITIAL_BYTES = 96 * 1024
_MARGIN = 0.99
"""Pacing stays below the estimate, so that a queue drains in the end."""
_LOSS = 0.02
_CHANCE = 3.0
"""Standard deviations beyond that share which chance may add on a link that loses at random: what is judged
are many short stretches, of which some are always unlucky, while a queue that overflows loses far more."""
_BETA = 0.7
_HEADROOM = 0.85
"""Part of the highest safe amount in flight that is used while cruising: room for others to grow."""
_FULL_GROWTH = 1.25
_FULL_ROUNDS = 3
_STARTUP_LOSSES = 6
_MIN_WINDOW = 4
"""Segments in flight at the least, so that delayed acknowledgements do not stop the clock."""
_MIN_RTT_KEEP = 10.0
_PROBE_RTT_EVERY = 5.0
_PROBE_RTT_TIME = 0.2
_PROBE_WAIT = 1.0
_PROBE_GAP = 0.2
_UP_EXTRA = 32
"""Segments by which a probe goes beyond a quarter more: alike for all, so that small shares grow faster."""
_PROBE_ROUNDS = 24
"""Probe at least as often as this; fewer than the draft's 63, as shares even out from probe to probe."""
_AGGREGATION_ROUNDS = 5
"""The greatest aggregation of acknowledgements counts for this many rounds to twice as many."""
_BURSTS = 0.003
"""Seconds of sending that may be in flight on top: departures come in bursts of 1 ms, answers too."""


class Mode(IntEnum):
    """What the sender is finding out."""

    STARTUP = 0
    DRAIN = 1
    DOWN = 2
    CRUISE = 3
    REFILL = 4
    UP = 5
    PROBE_RTT = 6


_PACING = {
    Mode.STARTUP: 2.77, Mode.DRAIN: 0.5, Mode.DOWN: 0.75, Mode.CRUISE: 1.0, Mode.REFILL: 1.0, Mode.UP: 1.25,
    Mode.PROBE_RTT: 1.0,
}  # fmt: skip
_WINDOW = {
    Mode.STARTUP: 2.0, Mode.DRAIN: 2.0, Mode.DOWN: 0.75, Mode.CRUISE: 1.25, Mode.REFILL: 1.25, Mode.UP: 2.25,
    Mode.PROBE_RTT: 0.5,
}  # fmt: skip
_UNBOUND = frozenset((Mode.STARTUP, Mode.REFILL, Mode.UP, Mode.PROBE_RTT))
"""Modes whose losses, or whose low rate, do not tell what is safe between two probes."""


class BBR:
    """Sizes in bytes, rates in bytes/s, times in seconds."""

    name = "bbr"
    models_path = True

    def __init__(self, mss: int, initial_window: int, rng: random.Random) -> None:
        """`mss` bytes a segment, `initial_window` segments at the start; `rng` spreads the probes."""
        self.mss = mss
        self._initial = initial_window
        self._rng = rng
        self.ssthresh = _FOREVER
        self.cwnd = self.initial()
        self._forget()

    def _forget(self) -> None:
        """Nothing is known about the path."""
        self.mode = Mode.STARTUP
        self.rate = 0.0
        self.min_rtt = _INFINITY
        self._min_rtt_at = 0.0
        self._low_rtt = _INFINITY
        self._low_rtt_at = -1.0
        self._bw_before = 0.0
        self._bw_now = 0.0
        self.bw_lo = _INFINITY
        self.inflight_hi = _FOREVER
        self.inflight_lo = _FOREVER
        self._round = 0
        self._round_end = -1
        self._round_lost = self._round_delivered = 0
        self._ahead = self._ahead_at = self._aggregated = self._aggregated_before = 0.0
        self._round_bw = 0.0
        self._full = False
        self._full_bw = 0.0
        self._full_rounds = 0
        self._mode_at = 0.0
        self._mode_round = 0
        self._probe_wait = 0.0
        self._probe_at = 0.0
        self._probe_heard = True
        self._up_credit = 0.0
        self._drained_at = _INFINITY
        self._kept_cwnd = 0
        self._low_round = -2
        self._undo = (_INFINITY, _FOREVER, _FOREVER)

    @property
    def bw(self) -> float:
        """The bandwidth taken for true: what was measured, within what losses allow."""
        best = self._bw_before if self._bw_before > self._bw_now else self._bw_now
        return best if best < self.bw_lo else self.bw_lo

    def initial(self) -> int:
        """As for the loss-based controllers."""
        return max(2 * self.mss, min(self._initial * self.mss, _INITIAL_BYTES))

    def pacing_rate(self, srtt: float) -> float:
        """The model's rate; before there is one, the window over the round trip."""
        if self.rate:
            return self.rate
        return _PACING[Mode.STARTUP] * self.cwnd / srtt if srtt > 0.0 else 0.0

    # What the path says

    def on_sample(self, sample: Sample) -> None:
        """Renew the model and act on it."""
        new_round = sample.prior >= self._round_end
        self._take_rate(sample)
        self._take_aggregation(sample, new_round)
        if new_round:
            self._round += 1
            self._round_end = sample.total
            self._end_round(sample)
        self._judge_probe(sample)
        self._advance(sample, new_round)
        self._take_rtt(sample)
        self._steer(sample)

    def _take_rate(self, sample: Sample) -> None:
        rate = sample.rate
        if rate > self._round_bw:
            self._round_bw = rate
        if rate > self._bw_now and (not sample.app_limited or rate > self._bw_before):
            self._bw_now = rate

    def _take_aggregation(self, sample: Sample, new_round: bool) -> None:
        """How far deliveries run ahead of the bandwidth (the draft's 5.5.9): an end that is not scheduled for
        some milliseconds acknowledges all that came meanwhile at once, and the window must cover that."""
        self._ahead += sample.newly - self.bw * (sample.now - self._ahead_at)
        self._ahead_at = sample.now
        if self._ahead < sample.newly:
            self._ahead = float(sample.newly)
        if new_round and self._round % _AGGREGATION_ROUNDS == 0:
            self._aggregated_before, self._aggregated = self._aggregated, 0.0
        if self._ahead > self._aggregated:
            self._aggregated = min(self._ahead, float(self.cwnd))

    def _end_round(self, sample: Sample) -> None:
        """Once a round trip: is the pipe full, and did the round lose more than it may?"""
        lost = sample.lost_total - self._round_lost
        delivered = sample.total - self._round_delivered
        lossy = lost > self._tolerable(delivered + lost)
        if self.mode is Mode.STARTUP:
            self._look_for_full_pipe(sample)
            if lossy and lost >= _STARTUP_LOSSES * self.mss:
                self._full = True
                self.inflight_hi = max(int(self._bdp()), delivered)
        elif lossy and self.mode not in _UNBOUND and self._round > self._low_round + 1:
            best = max(self._bw_before, self._bw_now)
            self.bw_lo = max(self._round_bw, _BETA * min(self.bw_lo, best))
            self.inflight_lo = max(delivered, int(_BETA * min(self.inflight_lo, self.cwnd)))
        self._round_lost = sample.lost_total
        self._round_delivered = sample.total
        self._round_bw = 0.0

    def _look_for_full_pipe(self, sample: Sample) -> None:
        """Three rounds without a quarter more: there is no more (the draft's 5.3.1.2)."""
        if sample.app_limited:
            return
        if self._bw_now >= self._full_bw * _FULL_GROWTH:
            self._full_bw = self._bw_now
            self._full_rounds = 0
            return
        self._full_rounds += 1
        if self._full_rounds >= _FULL_ROUNDS:
            self._full = True

    def _judge_probe(self, sample: Sample) -> None:
        """Too many losses of what was in flight: that was too much.  Else it is safe to have that much."""
        if not self._full or sample.prior < 0:
            return
        if sample.lost > self._tolerable(sample.sent_in_flight):
            if not self._probe_heard and not sample.app_limited:
                self._probe_heard = True
                self.inflight_hi = max(sample.sent_in_flight, int(self._bdp() * _BETA), self._least())
                if self.mode is Mode.UP:
                    self._go_down(sample.now)
        elif self.inflight_hi < _FOREVER:
            if sample.sent_in_flight > self.inflight_hi:
                self.inflight_hi = sample.sent_in_flight
            used = sample.in_flight + sample.newly + self._bursts()
            if self.mode is Mode.UP and used >= self.inflight_hi:
                self._raise_bound(sample.newly)

    def _raise_bound(self, newly: int) -> None:
        """One segment in the first round of a probe, twice as many in each further one."""
        growth = min(1 << min(self._round - self._mode_round, 20), 1 + self.cwnd // self.mss)
        self._up_credit += newly * growth * self.mss / max(self.cwnd, self.mss)
        whole = int(self._up_credit)
        self._up_credit -= whole
        self.inflight_hi += whole

    # What to do

    def _enter(self, mode: Mode, now: float) -> None:
        self.mode = mode
        self._mode_at = now
        self._mode_round = self._round

    def _advance(self, sample: Sample, new_round: bool) -> None:
        """Go through the modes."""
        mode, now = self.mode, sample.now
        if mode is Mode.CRUISE:
            self._probe_when_due(now)
        elif mode is Mode.DOWN:
            if not self._probe_when_due(now) and sample.in_flight <= self._bdp() + self._bursts():
                self._enter(Mode.CRUISE, now)
        elif mode is Mode.UP:
            rounds = self._round - self._mode_round
            enough = 1.25 * self._bdp() + self._bursts() + _UP_EXTRA * self.mss
            if (rounds > 0 and sample.in_flight >= enough) or rounds > 8:
                self._go_down(now)
        elif mode is Mode.REFILL:
            if new_round and self._round > self._mode_round + 1:
                self._up_credit = 0.0
                self._probe_heard = False
                self._enter(Mode.UP, now)
        elif mode is Mode.STARTUP:
            if self._full:
                self._enter(Mode.DRAIN, now)
        elif mode is Mode.DRAIN and (
            sample.in_flight <= self._bdp() + self._bursts() or self._round > self._mode_round + 8
        ):
            self._go_down(now)

    def _go_down(self, now: float) -> None:
        """The end of a probe: a new cycle of the bandwidth filter, and the queue drains."""
        if self.mode is Mode.UP:
            self._bw_before, self._bw_now = self._bw_now or self._bw_before, 0.0
        self._probe_at = now
        self._probe_wait = _PROBE_WAIT + self._rng.random()
        self._enter(Mode.DOWN, now)

    def _probe_when_due(self, now: float) -> bool:
        waited = now - self._probe_at
        often = min(_PROBE_ROUNDS, max(self._bdp() / self.mss, 8.0))
        if waited < _PROBE_GAP or (waited < self._probe_wait and self._round - self._mode_round < often):
            return False
        self.bw_lo = _INFINITY
        self.inflight_lo = _FOREVER
        self._probe_heard = True
        self._enter(Mode.REFILL, now)
        return True

    def _take_rtt(self, sample: Sample) -> None:
        """The least round trip; a pause in sending every 5 s in which it shows."""
        now, rtt = sample.now, sample.rtt
        stale = self._low_rtt_at >= 0.0 and now > self._low_rtt_at + _PROBE_RTT_EVERY
        if rtt > 0.0 and (rtt < self._low_rtt or stale):
            self._low_rtt = rtt
            self._low_rtt_at = now
        if self._low_rtt < self.min_rtt or now > self._min_rtt_at + _MIN_RTT_KEEP:
            self.min_rtt = self._low_rtt
            self._min_rtt_at = self._low_rtt_at
        if self.mode is Mode.PROBE_RTT:
            self._stay_low(sample)
        elif stale and self._full:
            self._kept_cwnd = self.cwnd
            self._drained_at = _INFINITY
            self._enter(Mode.PROBE_RTT, now)

    def _stay_low(self, sample: Sample) -> None:
        """200 ms and a round trip with half a pipe in flight, then go on as before."""
        now = sample.now
        if self._drained_at == _INFINITY:
            if sample.in_flight <= max(self._bdp() * 0.5, self._least()) or now - self._mode_at > 1.0:
                self._drained_at = now
                self._mode_round = self._round
        elif now - self._drained_at >= _PROBE_RTT_TIME and self._round > self._mode_round:
            self._low_rtt_at = now
            self._low_round = self._round
            self.cwnd = max(self.cwnd, self._kept_cwnd)
            self._go_down(now)
            self._enter(Mode.CRUISE, now)

    def _bdp(self) -> float:
        """Bytes that fill the path without a queue."""
        return self.bw * self.min_rtt if self.min_rtt < _INFINITY else float(self.initial())

    def _least(self) -> int:
        return _MIN_WINDOW * self.mss

    def _tolerable(self, sent: int) -> float:
        """Bytes out of `sent` that may get lost without being too many."""
        expected = _LOSS * sent
        return expected + _CHANCE * math.sqrt(expected * self.mss)

    def _bursts(self) -> float:
        return self.bw * _BURSTS + 2 * self.mss

    def _steer(self, sample: Sample) -> None:
        """Rate and window from the model."""
        mode, bw = self.mode, self.bw
        gain = _PACING[mode]
        if mode is Mode.UP:
            gain = min(gain + _UP_EXTRA * self.mss / max(self._bdp(), 1.0), 2.0)
        rate = gain * bw * _MARGIN
        if rate and (self._full or rate > self.rate):
            self.rate = rate
        play = max(self._bursts(), self._aggregated, self._aggregated_before)
        target = int(self._bdp() * _WINDOW[mode] + play)
        cwnd = self.cwnd + sample.newly
        if cwnd > target:
            cwnd = target if self._full else max(target, self.cwnd)
        bound = self.inflight_hi
        if mode in (Mode.CRUISE, Mode.DOWN) and bound < _FOREVER:
            bound = int(bound * _HEADROOM)
        if bound > self.inflight_lo:
            bound = self.inflight_lo
        if mode is Mode.PROBE_RTT:
            bound = min(bound, int(self._bdp() * 0.5))
        if self._full and cwnd > bound:
            cwnd = bound
        least = self._least()
        self.cwnd = cwnd if cwnd > least else least

    # What the stream says

    def on_ack(self, acked: int, now: float, rtt: float) -> None:
        """Nothing: `on_sample` hears of every delivery."""

    def on_round_trip(self, rtt: float, una: int, next_position: int) -> None:
        """Nothing: rounds are counted in deliveries."""

    def on_congestion(self, now: float, flight: int) -> None:
        """Losses count by their share of a round; keep what a needless recovery must give back."""
        self._undo = (self.bw_lo, self.inflight_lo, self.inflight_hi)

    def on_timeout(self, now: float, flight: int) -> None:
        """All is lost: begin again with a small window, at the known rate, up to the known bounds."""
        self._undo = (self.bw_lo, self.inflight_lo, self.inflight_hi)
        self.inflight_lo = min(self.inflight_lo, max(int(self.cwnd * _BETA), self._least()))
        self.cwnd = self._least()

    def on_idle(self) -> None:
        """Nothing: what leaves after a pause is paced."""

    def on_path_change(self) -> None:
        """Another path: learn it from the start."""
        self._forget()
        self.cwnd = self.initial()

    def undo(self) -> None:
        """The last losses were none."""
        bw_lo, inflight_lo, inflight_hi = self._undo
        self.bw_lo = max(self.bw_lo, bw_lo)
        self.inflight_lo = max(self.inflight_lo, inflight_lo)
        self.inflight_hi = max(self.inflight_hi, inflight_hi)
