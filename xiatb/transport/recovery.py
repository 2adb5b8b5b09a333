"""Loss recovery of one sender: when to reduce, how much may go out, and when to probe.

Ties the scoreboard (what is lost), the congestion controller and the RTT estimator together:
fast recovery with proportional rate reduction (RFC 6937), time-outs (RFC 6298), tail loss probes
(RFC 8985 section 7), and taking back reductions that the timestamps prove needless (Eifel, RFC 3522).
"""

from __future__ import annotations

from enum import IntEnum

from xiatb.transport.congestion import CongestionControl
from xiatb.transport.delivery import DeliverySampler
from xiatb.transport.rtt import RttEstimator
from xiatb.transport.scoreboard import Scoreboard

INFINITY = float("inf")
_PROBE_MIN = 0.01
_CLOCK_ERROR = 2e-6
"""Timestamps are whole microseconds."""


class Phase(IntEnum):
    """What the sender is doing about losses."""

    OPEN = 0
    RECOVERY = 1
    LOSS = 2
    """After a time-out, or after a move: slow start from what is missing."""


class Recovery:
    """Loss recovery state; sizes in bytes, times in seconds."""

    def __init__(
        self, board: Scoreboard, control: CongestionControl, rtt: RttEstimator, peer_delay: float
    ) -> None:
        """`peer_delay`: how long the peer may delay an acknowledgement."""
        self.board = board
        self.control = control
        self.rtt = rtt
        self.phase = Phase.OPEN
        self.reorder_at = INFINITY
        self.limited_until = 0
        self.fast_recoveries = 0
        self.timeouts = 0
        self.undone = 0
        self.probes = 0
        self.sampler = DeliverySampler() if control.models_path else None
        self._peer_delay = peer_delay
        self._point = 0
        self._reduced = False
        self._quota = 0
        self._delivered = 0
        self._sent = 0
        self._flight_size = 1
        self._probe_end = -1
        self._probe_at = 0.0
        self._probe_resent = False

    def quota(self) -> int:
        """Bytes that may be sent now (may be negative)."""
        if self.phase is Phase.RECOVERY and self.sampler is None:
            return self._quota
        return self.control.cwnd - self.board.in_flight

    def sent(self, size: int) -> None:
        """`size` bytes went out during a recovery."""
        self._quota -= size
        self._sent += size

    def on_ack(self, advanced: int, now: float, next_position: int, echo: float) -> None:
        """After `board.acknowledge`: look for losses and steer the window.

        `advanced`: positions newly covered by the cumulative acknowledgement; `next_position`: the
        first position never sent; `echo`: send time named by the timestamp echo, 0 when unknown.
        """
        board = self.board
        if self._probe_end >= 0:
            self._check_probe(now, echo)
        phase = self.phase
        if phase is not Phase.OPEN and advanced > 0:
            if self._was_needless(echo):
                self._undo()
            elif board.una >= self._point:
                self._leave()
            phase = self.phase
        delivered = board.newly_delivered
        if board.sacked_segments or phase is not Phase.OPEN or self.reorder_at != INFINITY:
            self.look_for_losses(now, next_position, delivered)
            phase = self.phase
        sampler = self.sampler
        if sampler is not None:
            rtt = self.rtt
            sample = sampler.take(now, board, rtt.latest if advanced > 0 else 0.0, rtt.min_rtt)
            if sample is not None:
                self.control.on_sample(sample)
        elif advanced > 0 and phase is not Phase.RECOVERY and board.una <= self.limited_until:
            control, rtt = self.control, self.rtt
            if control.cwnd < control.ssthresh:
                control.on_round_trip(rtt.latest, board.una, next_position)
            control.on_ack(advanced, now, rtt.srtt)

    def look_for_losses(self, now: float, next_position: int, delivered: int = 0) -> None:
        """Let RACK mark what is lost; enter recovery when that is news; renew the sending quota."""
        board, rtt = self.board, self.rtt
        due = board.find_losses(now, rtt.min_rtt, rtt.srtt, self.phase is not Phase.OPEN)
        self.reorder_at = due or INFINITY
        if self.phase is Phase.OPEN and board.lost_bytes:
            self._enter(now, next_position)
        if self.phase is Phase.RECOVERY:
            self._renew_quota(delivered)

    def _enter(self, now: float, next_position: int) -> None:
        """One reduction for everything lost of what is outstanding now."""
        board = self.board
        self.phase = Phase.RECOVERY
        self._point = next_position
        self._flight_size = max(next_position - board.una, 1)
        self._delivered = self._sent = 0
        self.control.on_congestion(now, board.in_flight + board.lost_bytes)
        self.fast_recoveries += 1
        self._quota = 0

    def _renew_quota(self, delivered: int) -> None:
        """Proportional rate reduction with the slow-start reduction bound (RFC 6937 section 3.1)."""
        self._delivered += delivered
        pipe, target, mss = self.board.in_flight, self.control.ssthresh, self.control.mss
        if pipe > target:
            quota = -(-self._delivered * target // self._flight_size) - self._sent
        else:
            bound = max(self._delivered - self._sent, delivered) + mss
            quota = min(target - pipe, bound)
        if not self._sent and quota < mss:
            quota = mss
        self._quota = quota

    def _was_needless(self, echo: float) -> bool:
        """Whether the cumulative point advanced over an original that had been taken for lost."""
        resent_at = self.board.acked_resent_at
        return bool(echo and resent_at and echo + _CLOCK_ERROR < resent_at)

    def _undo(self) -> None:
        self.undone += 1
        self.control.undo()
        self.board.unmark_lost()
        self.board.reordering_seen = True
        self.rtt.reset_backoff()
        self.phase = Phase.OPEN

    def _leave(self) -> None:
        if self.phase is Phase.RECOVERY and self.sampler is None:
            self.control.cwnd = max(self.control.ssthresh, self.control.mss)
        self.phase = Phase.OPEN
        self.board.recovery_ended()

    def on_timeout(self, now: float, next_position: int) -> None:
        """The RTO ran out: all that is not SACKed is lost; slow start from one segment."""
        board = self.board
        self.timeouts += 1
        first = board.first()
        if first is not None and first.sacked:
            board.forget_sacks()
        if self.phase is not Phase.LOSS or board.una >= self._point or not self._reduced:
            self.control.on_timeout(now, board.in_flight)
            self._reduced = True
        elif self.sampler is None:
            self.control.cwnd = self.control.mss
        board.mark_all_lost()
        self.limited_until = next_position
        self.rtt.back_off()
        self._start_over(next_position)

    def on_path_change(self, next_position: int, initial_rto: float) -> None:
        """An end moved: what is in flight went to, or came from, the wrong place; send it again at once."""
        self.rtt.restart(initial_rto)
        self.control.on_path_change()
        self.board.mark_all_lost()
        self._reduced = False
        self.limited_until = next_position
        self._start_over(next_position)
        if not len(self.board):
            self.phase = Phase.OPEN

    def on_resize(self, next_position: int) -> None:
        """Segments met a link too small for them, which is no congestion: send all again, cut smaller."""
        self.board.mark_all_lost()
        self._reduced = False
        self._start_over(next_position)

    def refused_locally(self, now: float, next_position: int) -> None:
        """Packets met a full queue in this host (ENOBUFS): congestion like any other, known at once."""
        if self.phase is Phase.OPEN and self.board.lost_bytes:
            self._enter(now, next_position)

    def without_sack(self, advanced: int, duplicates: int, now: float, next_position: int) -> None:
        """NewReno (RFC 6582) for a peer that does not do SACK: after three duplicate acknowledgements,
        and on each partial one, the first segment is lost; each duplicate says that one arrived."""
        board = self.board
        first = board.first()
        if first is None or first.sacked:
            return
        partial = advanced > 0 and self.phase is Phase.RECOVERY and board.una < self._point
        if partial or (duplicates == 3 and self.phase is Phase.OPEN):
            board.mark_first_lost()
        if not advanced and duplicates:
            board.newly_delivered = self.control.mss
        if self.phase is Phase.OPEN and board.lost_bytes:
            self._enter(now, next_position)

    def _start_over(self, next_position: int) -> None:
        self.phase = Phase.LOSS
        self._point = next_position
        self.reorder_at = INFINITY
        self._probe_end = -1

    def probe_delay(self) -> float:
        """Seconds from the last transmission to a tail loss probe; infinity when none is due (7.2)."""
        rtt = self.rtt
        board = self.board
        if self.phase is not Phase.OPEN or self._probe_end >= 0 or not rtt.samples or board.sacked_segments:
            return INFINITY
        delay = 2 * rtt.srtt
        if board.single:
            delay += self._peer_delay
        return delay if delay > _PROBE_MIN else _PROBE_MIN

    def probing(self, now: float, end: int, resent: bool) -> None:
        """A probe went out; everything sent ends at `end`; `resent`: it was a segment sent before."""
        self.probes += 1
        self._probe_end = end
        self._probe_at = now
        self._probe_resent = resent

    def _check_probe(self, now: float, echo: float) -> None:
        """A probe that had to repair the last segment found a loss: reduce once (7.4)."""
        board = self.board
        if board.una < self._probe_end:
            return
        self._probe_end = -1
        if self._probe_resent and echo and echo + _CLOCK_ERROR >= self._probe_at and self.phase is Phase.OPEN:
            self.control.on_congestion(now, board.newly_delivered)
