"""What has been sent and not yet acknowledged: SACK marks, bytes in flight, and which segments are lost.

Loss detection is RACK (RFC 8985): a segment is lost when one sent later has been delivered and a
reordering window has passed.  The window is zero once three segments have been selectively
acknowledged and no reordering was ever seen, which is RFC 6675's duplicate threshold.  All work is
amortised to a constant per segment: marks never visit a SACKed range twice, and the search for losses
goes along the segments in order of transmission.  An entry may be a train of packets; it is cut where
acknowledgements tell its packets apart, and the threshold counts packets.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from operator import attrgetter
from typing import Any

from xiatb.transport.segments import Ranges, Segment, TransmitOrder

__all__ = ["Scoreboard", "Segment"]
_DUP_THRESH = 3
_start_of = attrgetter("start")
_AMBIGUOUS = 0.8
"""A retransmission answered within this part of the least round trip was not: the original arrived.
Not the whole of it, as a probe in an empty queue may well be quicker than anything before."""
_KEEP_ROUNDS = 16
"""Recoveries for which a widened reordering window is kept (RFC 8985 section 6.2 step 4)."""


class Scoreboard:
    """Segments from `una` to the highest sent.  Sizes in bytes (positions), times in seconds.

    After `acknowledge`: `newly_delivered` bytes arrived for the first time, `acked_resent_at` is the
    time of the first retransmission of a segment now covered by the cumulative acknowledgement (0 if
    none was retransmitted), `sample` the age of the newest segment delivered that was sent only once
    (negative: none).
    """

    def __init__(self, una: int) -> None:
        """`una`: the first position to be sent."""
        self.una = una
        self.in_flight = 0
        self.sacked = 0
        self.sacked_segments = 0
        """Packets SACKed, beyond `una`."""
        self.newly_delivered = 0
        self.acked_resent_at = 0.0
        self.sample = -1.0
        self.reordering_seen = False
        self.lost_total = 0
        """Bytes ever taken for lost one by one: not by a time-out, a move or a smaller MTU."""
        self.mark: Any = None
        """What segments sent now take along for whoever samples the delivery rate; None: nobody does."""
        self.newest_mark: Any = None
        """The mark of the newest segment ever delivered, if the last acknowledgement delivered it."""
        self.newest_sent_at = 0.0
        self._segments: list[Segment] = []
        self._head = 0
        self._order = TransmitOrder()
        self._lost: deque[Segment] = deque()
        self._lost_bytes = 0
        self._ranges = Ranges()
        self._rack_time = -1.0
        self._rack_end = 0
        self._rack_rtt = 0.0
        self._highest_delivered = una
        self._highest_before = una
        self._window_mult = 1
        self._window_keep = 0

    def __len__(self) -> int:
        return len(self._segments) - self._head

    @property
    def lost_bytes(self) -> int:
        """Bytes found lost and not yet sent again."""
        return self._lost_bytes

    def first(self) -> Segment | None:
        """The segment that holds `una`."""
        return self._segments[self._head] if self._head < len(self._segments) else None

    @property
    def single(self) -> bool:
        """Whether a single packet is outstanding."""
        return len(self) == 1 and self._segments[-1].packets == 1

    def last(self, limit: int) -> Segment | None:
        """The last packet (at most `limit` bytes) of data, cut off its train; a bare FIN, which SACK cannot
        report, only if alone; None when it is SACKed or lost, or nothing is outstanding."""
        segments = self._segments
        count = len(segments) - self._head
        if not count:
            return None
        segment = segments[-2] if count > 1 and not len(segments[-1].data) else segments[-1]
        if segment.sacked or segment.lost:
            return None
        size = segment.end - segment.start
        if size > segment.mss:
            segment = self._cut(segment, segment.start + (segment.packets - 1) * segment.mss)
        if segment.end - segment.start > limit:
            segment = self.split(segment, limit)
        return segment

    def sent(self, segment: Segment) -> None:
        """A new segment, adjacent to the last one, went out at its `sent_at`."""
        segment.mark = self.mark
        self._segments.append(segment)
        self._order.append(segment)
        self.in_flight += segment.end - segment.start

    def resent(self, segment: Segment, now: float) -> None:
        """`segment` went out once more."""
        size = segment.end - segment.start
        if segment.lost:
            segment.lost = False
            self._lost_bytes -= size
            self.in_flight += size
        if not segment.resent:
            segment.resent_at = now
        segment.resent += 1
        segment.sent_at = now
        segment.mark = self.mark
        self._order.append(segment)

    def next_lost(self) -> Segment | None:
        """The next segment to send again, None when nothing is lost; stays until `resent`."""
        lost = self._lost
        while lost:
            segment = lost[0]
            if segment.lost:
                return segment
            lost.popleft()
        return None

    def split(self, segment: Segment, limit: int) -> Segment:
        """Cut `segment` (lost, or just one in flight) after `limit` payload bytes; return its first part.

        The second part takes over the marks and follows directly.
        """
        self._cut(segment, segment.start + limit)
        return segment

    def _cut(self, segment: Segment, at: int) -> Segment:
        """Cut `segment` at position `at`, here and in the orders it stands in; return the rest."""
        i = bisect_left(self._segments, segment.start, self._head, key=_start_of)
        rest = segment.cut(at)
        self._segments.insert(i + 1, rest)
        if rest.lost:
            self._lost.insert(self._lost.index(segment) + 1, rest)
        else:
            self._order.insert(segment, rest)
        return rest

    def acknowledge(self, una: int, blocks: list[tuple[int, int]], now: float, min_rtt: float) -> int:
        """Take a cumulative acknowledgement (>= `una`) and SACK blocks of absolute positions.

        A retransmission that seems to have been answered faster than `min_rtt` was not: it was the
        original that arrived.  Returns the number of positions by which the cumulative point advanced.
        """
        self.newly_delivered = 0
        self.acked_resent_at = 0.0
        self.sample = -1.0
        self.newest_mark = None
        self._highest_before = self._highest_delivered
        advanced = una - self.una
        if advanced > 0:
            self._advance(una, now, min_rtt)
        for left, right in blocks:
            if left < self.una:
                left = self.una
            if left < right and len(self) and right <= self._segments[-1].end:
                for gap in self._ranges.add(left, right):
                    self._mark_range(*gap, now, min_rtt)
        return advanced

    def _advance(self, una: int, now: float, min_rtt: float) -> None:
        """Remove the segments below `una`; a partly acknowledged one (MTU change) loses its front."""
        segments, head = self._segments, self._head
        total = len(segments)
        while head < total and segments[head].end <= una:
            segment = segments[head]
            head += 1
            size = segment.end - segment.start
            if segment.sacked:
                self.sacked -= size
                self.sacked_segments -= segment.packets
            else:
                self._delivered(segment, segment.end, now, min_rtt)
                self._order.remove(segment)
            if segment.resent and not self.acked_resent_at:
                self.acked_resent_at = segment.resent_at
            segment.sacked = True
            segment.data = b""
        if head < total and segments[head].start < una:
            self._trim(segments[head], una, now, min_rtt)
        self.una = una
        if head > 256 and head * 2 > total:
            del segments[:head]
            head = 0
        self._head = head
        self._ranges.forget(una)

    def _trim(self, segment: Segment, una: int, now: float, min_rtt: float) -> None:
        """The front of a segment was acknowledged: some packets of a train, or a packet cut on the way."""
        size = una - segment.start
        if segment.sacked:
            self.sacked -= size
            self.sacked_segments -= segment.packets
            segment.start = una
            self.sacked_segments += segment.packets
        else:
            lost = segment.lost
            self._delivered(segment, una, now, min_rtt)
            segment.lost = lost
            segment.start = una
        if segment.resent and not self.acked_resent_at:
            self.acked_resent_at = segment.resent_at
        segment.data = memoryview(segment.data)[size:]

    def _delivered(self, segment: Segment, end: int, now: float, min_rtt: float) -> None:
        """Account what was outstanding up to `end`; advance RACK's newest delivered (6.2 step 2)."""
        size = end - segment.start
        self.newly_delivered += size
        if segment.lost:
            segment.lost = False
            self._lost_bytes -= size
        else:
            self.in_flight -= size
        sent_at = segment.sent_at
        if segment.resent:
            if now - sent_at < min_rtt * _AMBIGUOUS:
                return
        else:
            self.sample = now - sent_at
            if end < self._highest_before:
                self.reordering_seen = True
        if end > self._highest_delivered:
            self._highest_delivered = end
        if sent_at > self._rack_time or (sent_at == self._rack_time and end > self._rack_end):
            self._rack_time = sent_at
            self._rack_end = end
            self._rack_rtt = now - sent_at
            self.newest_mark = segment.mark
            self.newest_sent_at = sent_at

    def _mark_range(self, left: int, right: int, now: float, min_rtt: float) -> None:
        """Mark the packets that lie wholly in [left, right) and were not marked before."""
        segments = self._segments
        i = bisect_left(segments, left, self._head, key=_start_of)
        if i > self._head and segments[i - 1].end > left:
            train = segments[i - 1]
            at = train.start + -(-(left - train.start) // train.mss) * train.mss
            if at < train.end and not train.sacked:
                self._cut(train, at)
        while i < len(segments) and segments[i].start < right:
            segment = segments[i]
            if not segment.sacked:
                if segment.end > right:
                    at = segment.start + (right - segment.start) // segment.mss * segment.mss
                    if at == segment.start:
                        break
                    self._cut(segment, at)
                self._delivered(segment, segment.end, now, min_rtt)
                self._order.remove(segment)
                segment.sacked = True
                self.sacked += segment.end - segment.start
                self.sacked_segments += segment.packets
            i += 1

    def find_losses(self, now: float, min_rtt: float, srtt: float, recovering: bool) -> float:
        """Mark what RACK finds lost (RFC 8985 6.2 step 5); see `lost_bytes`.

        Returns the time at which to look again because a segment is within the reordering window,
        0 when there is none.
        """
        if self._rack_time < 0.0:
            return 0.0
        if not self.reordering_seen and (recovering or self.sacked_segments >= _DUP_THRESH):
            window = 0.0
        else:
            window = min(self._window_mult * min_rtt * 0.25, srtt)
        latest, latest_end = self._rack_time, self._rack_end
        allowed = self._rack_rtt + window
        for segment in self._order:
            sent_at = segment.sent_at
            if sent_at > latest or (sent_at == latest and segment.end >= latest_end):
                return 0.0
            due = sent_at + allowed
            if due > now:
                return due
            self.lost_total += segment.end - segment.start
            self.mark_lost(segment)
        return 0.0

    def mark_lost(self, segment: Segment) -> None:
        """Take one outstanding segment for lost; it will come from `next_lost`."""
        if segment.lost:
            return
        size = segment.end - segment.start
        segment.lost = True
        self._order.remove(segment)
        self.in_flight -= size
        self._lost_bytes += size
        self._lost.append(segment)

    def mark_first_lost(self) -> None:
        """The packet that holds `una` is lost, as a peer without SACK tells."""
        segment = self.first()
        if segment is not None and not segment.sacked and not segment.lost:
            if segment.end - segment.start > segment.mss:
                self._cut(segment, segment.start + segment.mss)
            self.mark_lost(segment)

    def refused(self, position: int, end: int) -> bool:
        """What was just sent of [position, end) never left this host: it is lost; False if unknown."""
        segments = self._segments
        i = max(bisect_right(segments, position, self._head, key=_start_of) - 1, self._head)
        known = False
        while i < len(segments) and segments[i].start < end:
            segment = segments[i]
            i += 1
            if segment.sacked or segment.lost or segment.end <= position:
                continue
            if segment.start < position:
                segment = self._cut(segment, position)
                i += 1
            if segment.end > end:
                self._cut(segment, end)
            self.lost_total += segment.end - segment.start
            self.mark_lost(segment)
            known = True
        return known

    def mark_all_lost(self) -> None:
        """Take everything that is not SACKed for lost: a time-out, or a move of either end."""
        self._lost.clear()
        for i in range(self._head, len(self._segments)):
            segment = self._segments[i]
            if not segment.sacked:
                if segment.lost:
                    self._lost.append(segment)
                else:
                    self.mark_lost(segment)

    def unmark_lost(self) -> None:
        """The losses were none (a spurious time-out): what was not sent again is in flight after all."""
        for segment in reversed(self._lost):
            if segment.lost:
                size = segment.end - segment.start
                segment.lost = False
                self._lost_bytes -= size
                self.in_flight += size
                self._order.prepend(segment)
        self._lost.clear()

    def forget_sacks(self) -> None:
        """The peer may have dropped what it SACKed (RFC 2018 section 8): after a time-out, trust no mark."""
        for i in range(self._head, len(self._segments)):
            segment = self._segments[i]
            if segment.sacked:
                segment.sacked = False
                self._order.append(segment)
                self.in_flight += segment.end - segment.start
        self.sacked = self.sacked_segments = 0
        self._ranges.clear()

    def duplicate_reported(self) -> None:
        """A DSACK came: a retransmission was needless, so wait longer for reordered segments."""
        self.reordering_seen = True
        self._window_mult = min(self._window_mult + 1, 20)
        self._window_keep = _KEEP_ROUNDS

    def recovery_ended(self) -> None:
        """One recovery is over; a widened reordering window lasts for a number of them."""
        if self._window_keep:
            self._window_keep -= 1
            if not self._window_keep:
                self._window_mult = 1

    def clear(self) -> None:
        """Drop all segments."""
        self._segments.clear()
        self._head = 0
        self._order.clear()
        self._lost.clear()
        self._ranges.clear()
        self.in_flight = self.sacked = self.sacked_segments = self._lost_bytes = 0
