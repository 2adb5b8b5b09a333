"""The receiving half of a stream: what a segment from the peer does.

The way of an in-order data segment or a plain ACK is short; everything rare (handshake, RST, FIN,
options other than the timestamp) branches off it.
"""

from __future__ import annotations

import struct

from xiatb.errors import WireError
from xiatb.transport.autotuning import send_limit
from xiatb.transport.connection import HALF, INFINITY, MASK, State
from xiatb.transport.errors import ResetError
from xiatb.transport.events import EventKind
from xiatb.transport.opening import OpeningSide
from xiatb.wire import xip, xstream
from xiatb.wire.xstream import ACK, FIN, RST, SYN

_unpack_stamped = struct.Struct(">BBHIIIBBHII").unpack_from
_RECEIVING = frozenset((State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2))
_CHALLENGE_GAP = 0.005
_ACK_GAP = 0.00025
"""Seconds between two acknowledgements of data in order: at a gigabit, one for twenty packets of 1500 bytes
instead of one for two; below 90 Mbit/s nothing changes."""
_STAMP_SLACK = 5_000_000
"""Microseconds by which a reordered segment's timestamp may lie behind before it counts as an old
duplicate (RFC 7323 5): with such fine stamps the plain comparison would drop reordered segments."""

Buffer = bytes | bytearray | memoryview
Blocks = tuple[tuple[int, int], ...]


class InputSide(OpeningSide):
    """Everything that takes packets in."""

    def receive(self, packet: bytes | bytearray | memoryview, now: float) -> None:
        """Take a whole XIP packet addressed to this connection; hostile bytes are counted, never raise."""
        try:
            nxt, plen, _, dnode, snode, _, off = xip.parse_fast(packet)
            at = off - 28
            if nxt != xip.NXT_XSTREAM or bytes(packet[at : at + 24]) != self.remote_sid.key:
                raise WireError("not a segment of this connection")
        except WireError:
            self.counters["malformed"] += 1
            return
        self.segment(packet, off, off + plen, off - 28 * snode, now)

    def segment(
        self, buf: Buffer, off: int, end: int, source_at: int, now: float, payload: bytes = b"",
        packets: int = 1, full: int = 0,
    ) -> None:  # fmt: skip
        """Take the segment at off..end of `buf`, sent from the address whose nodes begin at
        `source_at`; or a train of `packets` whose header that is, with the `payload` of all,
        `full` bytes in each but the last."""
        options: xstream.Options | None = None
        words = 0
        stamp = echo = 0
        blocks: Blocks = ()
        if end - off >= 28:
            nxt, words, flags, seq, ack, win, kind, length, _, stamp, echo = _unpack_stamped(buf, off)
            if words != 7 or kind != 8 or length != 3 or nxt:
                words = 0
        if words:
            start = off + 28
            stamped = True
        else:
            try:
                header = xstream.parse(buf, off, end)
                if header.nxt != xip.NXT_DATA:
                    raise WireError("something follows the stream header")
            except WireError:
                self.counters["malformed"] += 1
                return
            flags, seq, ack, win, options = header.flags, header.seq, header.ack, header.win, header.options
            start = off + header.length
            stamped = options.timestamp is not None
            if options.timestamp is not None:
                stamp, echo = options.timestamp
            blocks = options.sack
        self.counters["segments_in"] += packets
        state = self.state
        if state < State.ESTABLISHED:
            source = bytes(buf[source_at:off])
            if not self._opening(flags, seq, ack, win, stamp, options, source, now):
                return
        elif options is not None and (options.migrate is not None or options.migrate_ack is not None):
            self._mobility(options, now)
        self._heard = now
        data = payload or (bytes(buf[start:end]) if end > start else b"")
        self._process(flags, seq, ack, win, stamp, echo if stamped else -1, blocks, data, full, now)

    def _process(
        self, flags: int, seq: int, ack: int, win: int, stamp: int, echo: int, blocks: Blocks, data: bytes,
        full: int, now: float,
    ) -> None:  # fmt: skip
        """A segment of a synchronised connection; `echo` is -1 without a timestamp."""
        size = len(data)
        received = self._received
        expected = received.next
        delta = (seq - self.irs - expected) & MASK
        if delta or self._fin_seen:
            if delta >= HALF:
                delta -= 1 << 32
            if not self._acceptable(flags, delta, size, now):
                return
        if flags & (RST | SYN):
            self._rare(flags, delta, now)
            return
        if not flags & ACK:
            self.counters["dropped"] += 1
            return
        position = expected + delta
        if echo >= 0:
            behind = (self._ts_recent - stamp) & MASK
            if behind >= HALF:
                if position <= self._last_ack_sent:
                    self._ts_recent = stamp
            elif behind > _STAMP_SLACK and size:
                self.counters["dropped"] += 1
                self._challenge(now)
                return
        if not self._take_ack(position, ack, win, echo, blocks, now):
            return
        if size or flags & FIN:
            self._take_data(position, data, full or size, flags, now)
            growth = self._window
            if growth is not None and now >= growth.due and echo >= 0:
                age = (int(now * 1e6) + self._stamp_offset - echo) & MASK
                self.recv_limit = growth.on_data(now, received.next - received.size, age * 1e-6)

    def _acceptable(self, flags: int, delta: int, size: int, now: float) -> bool:
        """Whether a segment that is not the next one may be looked at (RFC 9293 3.10.7.4 step 1)."""
        room = self._offered - self._received.next
        if delta > room + 1 or delta < -(1 << 30):
            self.counters["dropped"] += 1
            if not flags & RST:
                self._challenge(now)
            return False
        if delta < self._fin_seen and not size and not flags & (RST | SYN | FIN):
            # A probe of our window or a keep-alive asks for an answer by being old.
            if delta == self._fin_seen - 1:
                self._ack_now = True
            else:
                self._challenge(now)
        return True

    def _challenge(self, now: float) -> None:
        """Answer something implausible with our state, not too often (RFC 5961 7)."""
        if now >= self._challenge_at:
            self._challenge_at = now + _CHALLENGE_GAP
            self._ack_now = True

    def _rare(self, flags: int, delta: int, now: float) -> None:
        """RST and SYN on a synchronised connection (RFC 5961 3 and 4)."""
        if not flags & RST or delta != self._fin_seen and delta != 0:
            self._challenge(now)
        elif self.state is State.TIME_WAIT or (self.state is State.LAST_ACK and self._fin_position >= 0
                                               and self._board.una >= self._fin_position):  # fmt: skip
            self._finish(None)
        else:
            self._finish(ResetError(f"{self.remote_sid} reset the connection"))

    def _take_ack(self, position: int, ack: int, win: int, echo: int, blocks: Blocks, now: float) -> bool:
        """Process acknowledgement, window and SACK; False when the segment must be dropped."""
        board = self._board
        una = board.una
        advance = (ack - self.iss - una) & MASK
        if not advance and win == self._last_window and not blocks and not len(board):
            return True
        if advance >= HALF:
            return True
        una += advance
        if una > self._snd_next:
            self.counters["dropped"] += 1
            self._challenge(now)
            return False
        if position >= self._window_seq:
            self._window_seq = position
            self._last_window = win
            right = una + (win << self._snd_scale)
            if right != self._snd_right:
                self._snd_right = right
                self._persist_at = INFINITY
                self._duplicate_acks = 0
            elif not advance and not self._sack and len(board):
                self._duplicate_acks += 1
        if advance or blocks or self._duplicate_acks:
            self._progress(una, advance, echo, blocks, now)
        return True

    def _progress(self, una: int, advance: int, echo: int, blocks: Blocks, now: float) -> None:
        """Hand what the peer has to the scoreboard and to recovery, and set the timers anew."""
        board, rtt, recovery = self._board, self._rtt, self._recovery
        echoed_at = 0.0
        if echo >= 0:
            age = (int(now * 1e6) + self._stamp_offset - echo) & MASK
            if age < HALF:
                age_s = age * 1e-6
                echoed_at = now - age_s
                if advance and echoed_at >= self._path_since:
                    rtt.sample(age_s, now)
        ranges = self._ranges(blocks, una) if blocks else []
        board.acknowledge(una, ranges, now, rtt.min_rtt)
        if echo < 0 and advance and board.sample >= 0.0:
            rtt.sample(board.sample, now)
        if not self._sack:
            recovery.without_sack(advance, self._duplicate_acks, now, self._snd_next)
        recovery.on_ack(advance, now, self._snd_next, echoed_at)
        if not advance and not board.newly_delivered:
            return
        if advance:
            self._pacer.delivered()
            self._duplicate_acks = 0
            self._progress_at = now
            if not self._send_fixed:
                self.send_limit = send_limit(self.send_limit, self._snd_next - una + advance)
            if self._want_room:
                self._room_again()
            if 0 <= self._fin_position < una:
                self._fin_acknowledged(now)
        if len(board):
            self._rto_at = now + rtt.rto
            self._arm_probe(now)
        else:
            self._rto_at = self._probe_at = INFINITY

    def _ranges(self, blocks: Blocks, una: int) -> list[tuple[int, int]]:
        """SACK blocks as positions; a leading DSACK block is taken out and noted (RFC 2883)."""
        base = self.iss + una
        ranges: list[tuple[int, int]] = []
        for left, right in blocks:
            low = (left - base) & MASK
            if low >= HALF:
                low -= 1 << 32
            size = (right - left) & MASK
            if 0 < size < HALF:
                ranges.append((una + low, una + low + size))
        if ranges:
            first = ranges[0]
            if first[1] <= una or (len(ranges) > 1 and ranges[1][0] <= first[0] and first[1] <= ranges[1][1]):
                del ranges[0]
                self._board.duplicate_reported()
        return ranges

    def _take_data(self, position: int, data: bytes, full: int, flags: int, now: float) -> None:
        """Put payload, `full` bytes a packet, where it belongs; decide when to acknowledge (RFC 5681 4.2)."""
        size = len(data)
        if self.state not in _RECEIVING:
            if flags & FIN or size:
                self._ack_now = True
            return
        received = self._received
        expected = received.next
        if position == expected and size <= self._offered - expected and not received.has_gap:
            if size:
                if self._read_closed:
                    self._refuse_data()
                    return
                received.append(data)
                if full > self._peer_segment:
                    self._peer_segment = full
                self._unacked_in += size
                if self._unacked_in >= self.config.ack_every * self._peer_segment:
                    if now - self._acked_at >= _ACK_GAP:
                        self._ack_now = True
                    else:
                        self._ack_at = self._acked_at + _ACK_GAP
                elif self._ack_at == INFINITY:
                    self._ack_at = now + self.config.delayed_ack
        elif not self._take_displaced(position, data):
            return
        taken = received.next - expected
        if taken:
            self.counters["bytes_in"] += taken
            self._flags |= 1 << EventKind.READABLE
        if flags & FIN and self._peer_fin < 0 and position + size >= received.next:
            self._peer_fin = position + size
        if self._peer_fin == received.next and not self._fin_seen:
            self._take_fin(now)

    def _take_displaced(self, position: int, data: bytes) -> bool:
        """Data out of order, repeated, or beyond what was offered; always acknowledged at once."""
        self._ack_now = True
        received = self._received
        room = self._offered - position
        end = position + len(data)
        if len(data) > room:
            self.counters["dropped"] += 1
            if room <= 0:
                return False
            data = data[:room]
        if end <= received.next or not data:
            if data:
                self.counters["duplicates"] += 1
                self._dsack = (position, end)
            return True
        if self._read_closed:
            self._refuse_data()
            return False
        repeated = received.insert(position, data)
        if repeated is not None:
            self.counters["duplicates"] += 1
            self._dsack = repeated
        return len(data) == end - position

    def _refuse_data(self) -> None:
        """The application has closed and will never read this: tell the peer (RFC 9293 3.6)."""
        self._urgent.append(self._reset())
        self._finish(ResetError("data arrived after close"))

    def _take_fin(self, now: float) -> None:
        """The peer's last byte is in."""
        self._fin_seen = True
        self._ack_now = True
        self._event(EventKind.EOF)
        if self.state is State.ESTABLISHED:
            self.state = State.CLOSE_WAIT
        elif self.state is State.FIN_WAIT_1:
            self.state = State.CLOSING
        elif self.state is State.FIN_WAIT_2:
            self._enter_time_wait(now)

    def _fin_acknowledged(self, now: float) -> None:
        """The peer has everything we shall ever send."""
        if self.state is State.FIN_WAIT_1:
            self.state = State.FIN_WAIT_2
            if self._read_closed:
                self._state_at = now + self.config.linger
        elif self.state is State.CLOSING:
            self._enter_time_wait(now)
        elif self.state is State.LAST_ACK:
            self._finish(None)

    def _enter_time_wait(self, now: float) -> None:
        """Stay a while to acknowledge a repeated FIN."""
        self.state = State.TIME_WAIT
        self._rto_at = self._probe_at = self._persist_at = self._keep_at = INFINITY
        self._state_at = now + self.config.time_wait

    def _room_again(self) -> None:
        """Tell a writer that was held up that there is room, once it is worth waking it."""
        used = self._buffer.size + self._snd_next - self._board.una
        if self.send_limit - used >= min(self.send_limit >> 2, 1 << 16):
            unsent = self.config.unsent_limit
            if not unsent or self._buffer.size * 2 <= unsent:
                self._want_room = False
                self._flags |= 1 << EventKind.WRITABLE
