"""What has been sent and not yet acknowledged: SACK marks, bytes in flight, and which segments are lost.

Loss detection is RACK (RFC 8985): a segment is lost when one sent later has been delivered and a
reordering window has passed.  The window is zero once three segments have been selectively
acknowledged and no reordering was ever seen, which is RFC 6675's duplicate threshold.  All work is
amortised to a constant per segment: marks never visit a SACKed range twice, and the search for losses
goes along a queue in order of transmission.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from operator import attrgetter
from typing import Any

_DUP_THRESH = 3
_start_of = attrgetter("start")
_AMBIGUOUS = 0.8
"""A retransmission answered within this part of the least round trip was not: the original arrived.
Not the whole of it, as a probe in an empty queue may well be quicker than anything before."""
_KEEP_ROUNDS = 16
"""Recoveries for which a widened reordering window is kept (RFC 8985 section 6.2 step 4)."""


class Segment:
    """One transmitted segment: positions [start, end), payload (a FIN takes one position without a byte)."""

    __slots__ = ("data", "end", "fin", "lost", "mark", "resent", "resent_at", "sacked", "sent_at", "start")

    def __init__(self, start: int, end: int, data: bytes | memoryview, fin: bool, now: float) -> None:
        self.start = start
        self.end = end
        self.data = data
        self.fin = fin
        self.sent_at = now
        self.resent_at = 0.0
        self.resent = 0
        self.sacked = False
        self.lost = False
        self.mark: Any = None


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
        self._sent_order: deque[tuple[float, Segment]] = deque()
        self._lost: deque[Segment] = deque()
        self._lost_bytes = 0
        self._sack_starts: list[int] = []
        self._sack_ends: list[int] = []
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

    def last(self) -> Segment | None:
        """The segment with the highest data; a bare FIN, which SACK cannot report, only if alone."""
        segments = self._segments
        count = len(segments) - self._head
        if count > 1 and not len(segments[-1].data):
            return segments[-2]
        return segments[-1] if count else None

    def sent(self, segment: Segment) -> None:
        """A new segment, adjacent to the last one, went out at its `sent_at`."""
        segment.mark = self.mark
        self._segments.append(segment)
        self._sent_order.append((segment.sent_at, segment))
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
        self._sent_order.append((now, segment))

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

        For a path whose MTU has shrunk.  The second part takes over the marks and follows directly.
        """
        cut = segment.start + limit
        rest = Segment(cut, segment.end, memoryview(segment.data)[limit:], segment.fin, segment.sent_at)
        rest.resent, rest.resent_at = segment.resent, segment.resent_at
        rest.lost, rest.sacked, rest.mark = segment.lost, segment.sacked, segment.mark
        segment.end = cut
        segment.data = memoryview(segment.data)[:limit]
        segment.fin = False
        i = bisect_left(self._segments, segment.start, self._head, key=_start_of)
        self._segments.insert(i + 1, rest)
        if rest.lost:
            at = self._lost.index(segment)
            self._lost.insert(at + 1, rest)
        else:
            self._sent_order.append((rest.sent_at, rest))
        return segment

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
                self._mark_sacked(left, right, now, min_rtt)
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
                self.sacked_segments -= 1
            else:
                self._delivered(segment, size, now, min_rtt)
            if segment.resent and not self.acked_resent_at:
                self.acked_resent_at = segment.resent_at
            segment.sacked = True
            segment.data = b""
        if head < total and segments[head].start < una:
            self._trim(segments[head], una)
        self.una = una
        if head > 256 and head * 2 > total:
            del segments[:head]
            head = 0
        self._head = head
        starts, ends = self._sack_starts, self._sack_ends
        while starts and ends[0] <= una:
            del starts[0], ends[0]
        if starts and starts[0] < una:
            starts[0] = una

    def _trim(self, segment: Segment, una: int) -> None:
        """Forget the front of a segment of which only a part was acknowledged."""
        size = una - segment.start
        if segment.sacked:
            self.sacked -= size
        else:
            self.newly_delivered += size
            if segment.lost:
                self._lost_bytes -= size
            else:
                self.in_flight -= size
        segment.data = memoryview(segment.data)[size:]
        segment.start = una

    def _delivered(self, segment: Segment, size: int, now: float, min_rtt: float) -> None:
        """Account one segment that was outstanding, and advance RACK's newest delivered (6.2 step 2)."""
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
            if segment.end < self._highest_before:
                self.reordering_seen = True
        if segment.end > self._highest_delivered:
            self._highest_delivered = segment.end
        if sent_at > self._rack_time or (sent_at == self._rack_time and segment.end > self._rack_end):
            self._rack_time = sent_at
            self._rack_end = segment.end
            self._rack_rtt = now - sent_at
            self.newest_mark = segment.mark
            self.newest_sent_at = sent_at

    def _mark_sacked(self, left: int, right: int, now: float, min_rtt: float) -> None:
        """Mark the parts of [left, right) that no earlier block covered, and merge the block in."""
        starts, ends = self._sack_starts, self._sack_ends
        lo = bisect_left(ends, left)
        hi = bisect_right(starts, right)
        if lo < hi and starts[lo] <= left and ends[lo] >= right:
            return
        position = left
        for i in range(lo, hi):
            if position < starts[i]:
                self._mark_range(position, starts[i], now, min_rtt)
            position = max(position, ends[i])
        if position < right:
            self._mark_range(position, right, now, min_rtt)
        if lo < hi:
            left = min(left, starts[lo])
            right = max(right, ends[hi - 1])
        starts[lo:hi] = [left]
        ends[lo:hi] = [right]

    def _mark_range(self, left: int, right: int, now: float, min_rtt: float) -> None:
        """Mark the segments that lie wholly in [left, right) and were not marked before."""
        segments = self._segments
        i = bisect_left(segments, left, self._head, key=_start_of)
        while i < len(segments) and segments[i].end <= right:
            segment = segments[i]
            if not segment.sacked:
                size = segment.end - segment.start
                self._delivered(segment, size, now, min_rtt)
                segment.sacked = True
                self.sacked += size
                self.sacked_segments += 1
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
        order = self._sent_order
        latest, latest_end = self._rack_time, self._rack_end
        allowed = self._rack_rtt + window
        while order:
            sent_at, segment = order[0]
            if segment.sacked or segment.lost or segment.sent_at != sent_at:
                order.popleft()
                continue
            if sent_at > latest or (sent_at == latest and segment.end >= latest_end):
                return 0.0
            due = sent_at + allowed
            if due > now:
                return due
            order.popleft()
            self.lost_total += segment.end - segment.start
            self.mark_lost(segment)
        return 0.0

    def mark_lost(self, segment: Segment) -> None:
        """Take one outstanding segment for lost; it will come from `next_lost`."""
        if segment.lost:
            return
        size = segment.end - segment.start
        segment.lost = True
        self.in_flight -= size
        self._lost_bytes += size
        self._lost.append(segment)

    def refused(self, position: int) -> bool:
        """The segment that starts at `position` never left this host: it is lost; False if unknown."""
        i = bisect_left(self._segments, position, self._head, key=_start_of)
        if i >= len(self._segments):
            return False
        segment = self._segments[i]
        if segment.start != position or segment.sacked or segment.lost:
            return False
        self.lost_total += segment.end - segment.start
        self.mark_lost(segment)
        return True

    def mark_all_lost(self) -> None:
        """Take everything that is not SACKed for lost: a time-out, or a move of either end."""
        self._lost.clear()
        self._sent_order.clear()
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
                self._sent_order.appendleft((segment.sent_at, segment))
        self._lost.clear()

    def forget_sacks(self) -> None:
        """The peer may have dropped what it SACKed (RFC 2018 section 8): after a time-out, trust no mark."""
        for i in range(self._head, len(self._segments)):
            segment = self._segments[i]
            if segment.sacked:
                segment.sacked = False
                self.in_flight += segment.end - segment.start
        self.sacked = self.sacked_segments = 0
        self._sack_starts.clear()
        self._sack_ends.clear()

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
        self._sent_order.clear()
        self._lost.clear()
        self._sack_starts.clear()
        self._sack_ends.clear()
        self.in_flight = self.sacked = self.sacked_segments = self._lost_bytes = 0
