"""Delivery rate samples (draft-cheng-iccrg-delivery-rate-estimation): what the path carried.

Each segment takes a mark along of what had been delivered when it was sent; when it is acknowledged,
the bytes delivered since then over the longer of the sending and the acknowledging time are a sample
of the bandwidth.  Marks are made once for each burst.
"""

from __future__ import annotations

from typing import NamedTuple

from xiatb.transport.scoreboard import Scoreboard


class Mark(NamedTuple):
    """State at the departure of a burst.  Sizes in bytes, times in seconds."""

    delivered: int
    delivered_at: float
    first_sent_at: float
    lost: int
    in_flight: int
    app_limited: bool


class Sample(NamedTuple):
    """What one acknowledgement tells a controller that models the path."""

    now: float
    newly: int
    """Bytes delivered by this acknowledgement."""
    total: int
    """Bytes delivered so far."""
    prior: int
    """`total` when the newest delivered segment was sent; -1: no such segment, the sample has no rate."""
    rate: float
    """Bytes/s; 0 when it cannot be told."""
    app_limited: bool
    lost: int
    """Bytes lost since that segment was sent."""
    lost_total: int
    sent_in_flight: int
    """Bytes in flight when it was sent."""
    in_flight: int
    rtt: float
    """Round trip of this acknowledgement in seconds; 0: not measured."""


class DeliverySampler:
    """Makes marks and samples for one sender."""

    __slots__ = ("_app_limited", "_delivered", "_delivered_at", "_first_sent_at")

    def __init__(self) -> None:
        self._delivered = 0
        self._delivered_at = 0.0
        self._first_sent_at = 0.0
        self._app_limited = 0

    def mark(self, now: float, board: Scoreboard) -> None:
        """The segments sent next carry the state of now."""
        in_flight = board.in_flight
        if not in_flight:
            self._first_sent_at = self._delivered_at = now
        board.mark = Mark(
            self._delivered, self._delivered_at, self._first_sent_at, board.lost_total, in_flight,
            self._app_limited > 0,
        )  # fmt: skip

    def starved(self, board: Scoreboard) -> None:
        """There was nothing to send: until what is in flight is delivered, samples say too little."""
        self._app_limited = self._delivered + board.in_flight or 1

    def take(self, now: float, board: Scoreboard, rtt: float, min_rtt: float) -> Sample | None:
        """The sample of an acknowledgement that `board` has just taken; None when nothing was delivered."""
        newly = board.newly_delivered
        if not newly:
            return None
        self._delivered = total = self._delivered + newly
        self._delivered_at = now
        if self._app_limited and total > self._app_limited:
            self._app_limited = 0
        mark = board.newest_mark
        lost_total = board.lost_total
        if mark is None:
            return Sample(now, newly, total, -1, 0.0, True, 0, lost_total, 0, board.in_flight, rtt)
        sent_at = board.newest_sent_at
        sending = sent_at - mark.first_sent_at
        self._first_sent_at = sent_at
        interval = max(sending, now - mark.delivered_at)
        # Less than a round trip measures a burst of acknowledgements rather than the path.
        rate = (total - mark.delivered) / interval if interval >= min_rtt * 0.9 and interval > 0 else 0.0
        return Sample(
            now, newly, total, mark.delivered, rate, mark.app_limited, lost_total - mark.lost, lost_total,
            mark.in_flight, board.in_flight, rtt,
        )  # fmt: skip
