"""The sending half of a stream: segments, acknowledgements, probes, and what each of them waits for."""

from __future__ import annotations

import struct

from xiatb.transport.connection import INFINITY, MASK, Connection, State
from xiatb.transport.events import EventKind
from xiatb.transport.mobility import detour, readdressed
from xiatb.transport.packets import Out
from xiatb.transport.scoreboard import Segment
from xiatb.wire import migrate, xstream
from xiatb.wire.xstream import ACK, FIN, PUSH, RST, SYN

_SENDING = frozenset((State.ESTABLISHED, State.FIN_WAIT_1, State.CLOSE_WAIT, State.CLOSING, State.LAST_ACK))
MAX_BLOCKS = 6
"""SACK blocks in one acknowledgement: 6 need 52 bytes, the header could hold far more."""
_TRAIN_PACKETS = 44
_TRAIN_BYTES = 1 << 18
"""Most that a train takes: packets as with the kernel's segmentation offload, bytes as a large write has."""


class OutputSide(Connection):
    """Everything that makes packets."""

    def transmit(self, now: float, budget: int = 64) -> list[Out]:
        """At most about `budget` packets that may go out now, in order; call again when it was used up.

        `burst` is then how many packets that were, those of trains counted one by one.
        """
        out = self._urgent
        self.burst = 0
        self._urgent = []
        state = self.state
        if state is State.CLOSED:
            return out
        mover = self._mover
        if mover is not None and mover.next_at <= now and state >= State.ESTABLISHED:
            self._send_migrate(now, out)
        if state in _SENDING:
            self._send_data(now, budget - len(out), out)
        if self._ack_now and state >= State.SYN_RCVD:
            out.append(self._acknowledgement(now))
        if out:
            self._last_sent = now
            self.burst += len(out)
            self.counters["segments_out"] += self.burst
        return out

    def _header(self, now: float, flags: int, position: int, size: int) -> bytes:
        """Header of a segment of `size` payload bytes whose first is at `position`."""
        template = self._template
        self._ack_now = False
        self._unacked_in = 0
        self._ack_at = INFINITY
        self._acked_at = now
        ack = self._received.next
        if self._fin_seen:
            ack += 1
        self._last_ack_sent = ack
        window = self._offer(ack)
        seq = (self.iss + position) & MASK
        wire_ack = (self.irs + ack) & MASK
        if self._stamps:
            tsval = (int(now * 1e6) + self._stamp_offset) & MASK
            return template.stamped(
                template.head, 28 + size, template.rest, 0, 7, flags, seq, wire_ack, window,
                8, 3, 0, tsval, self._ts_recent,
            )  # fmt: skip
        return template.bare(template.head, 16 + size, template.rest, 0, 4, flags, seq, wire_ack, window)

    def _offer(self, ack: int) -> int:
        """The window field; the right edge offered never moves back (RFC 9293 3.8.6.2.2)."""
        received = self._received
        free = self.recv_limit - received.size
        if free < self._peer_segment:
            free = 0
        right = received.next + free
        if right < self._offered:
            right = self._offered
        scale = self._rcv_scale
        window = (right - ack) >> scale if right > ack else 0
        if window > 0xFFFF:
            window = 0xFFFF
        right = ack + (window << scale)
        if right > self._offered:
            self._offered = right
        return window

    def _with_options(self, now: float, flags: int, position: int, options: xstream.Options) -> bytes:
        """Header of a segment without payload that carries more than a timestamp."""
        plain = self._header(now, flags, position, 0)
        length = self._template.length
        fixed = xstream.parse(plain, length)
        if self._stamps:
            options.timestamp = fixed.options.timestamp
        body = xstream.pack(flags, fixed.seq, fixed.ack, fixed.win, options)
        return self._template.head + len(body).to_bytes(2, "big") + self._template.rest + body

    def _acknowledgement(self, now: float) -> Out:
        """A bare ACK, with SACK blocks when there are gaps, a DSACK block first (RFC 2018, RFC 2883)."""
        received = self._received
        if not self._sack or not (received.has_gap or self._dsack):
            return self._header(now, ACK, self._snd_next, 0), b""
        blocks = [self._dsack] if self._dsack else []
        blocks += received.sack_blocks(MAX_BLOCKS - len(blocks))
        self._dsack = None
        irs = self.irs
        edges = [(irs + edge) & MASK for block in blocks for edge in block]
        option = struct.pack(f">BBH{len(edges)}I", xstream.OPT_SACK, 1 + len(edges), 0, *edges)
        header = self._header(now, ACK, self._snd_next, len(option))
        words_at = self._template.length + 1
        words = bytes((header[words_at] + 1 + len(edges),))
        return header[:words_at] + words + header[words_at + 1 :] + option, b""

    def _send_data(self, now: float, budget: int, out: list[Out]) -> None:
        """Lost segments first, then new data, as far as congestion, pacing and flow control go."""
        board, recovery, buffer = self._board, self._recovery, self._buffer
        self._pace_at = INFINITY
        sampler = recovery.sampler
        if not board.lost_bytes and not buffer.size:
            if sampler is not None and board.in_flight < self._control.cwnd:
                sampler.starved(board)
            fin = self._fin_wanted and self._fin_position < 0 and budget > 0
            self._after_sending(now, self._send_fin(now, out) if fin else 0)
            return
        if not len(board) and now - self._last_sent > self._rtt.rto:
            self._control.on_idle()
        pacer = self._pacer
        if now < pacer.held_until:
            self._pace_at = pacer.held_until
            self._after_sending(now, 0)
            return
        quota = recovery.quota()
        rate = self._control.pacing_rate(self._rtt.srtt)
        credit = pacer.refill(now, rate, self.mss)
        allowed = quota if quota < credit else int(credit)
        if sampler is not None:
            sampler.mark(now, board)
        count, rest = self._send_lost(now, budget, allowed, out) if board.lost_bytes else (0, allowed)
        if not board.lost_bytes:
            count += self._send_new(now, budget - count, rest, out)
        if (
            rate
            and (buffer.size or board.lost_bytes)
            and pacer.credit < self.mss <= quota - (credit - pacer.credit)
        ):
            self._pace_at = pacer.due(now)
        if sampler is not None and buffer.size and self._snd_right - self._snd_next < self.mss:
            sampler.starved(board)
        self._after_sending(now, count)

    def _train_limit(self, budget: int) -> int:
        """Most payload bytes of one train: a burst of the pacer's, but two packets at least."""
        mss, pacer = self.mss, self._pacer
        packets = _TRAIN_BYTES // mss
        if packets > _TRAIN_PACKETS:
            packets = _TRAIN_PACKETS
        if pacer.rate and pacer.quantum < packets * mss:
            packets = int(pacer.quantum) // mss
            if packets < 2:
                packets = 2
        return (packets if packets < budget else budget) * mss

    def _send_lost(self, now: float, budget: int, quota: int, out: list[Out]) -> tuple[int, int]:
        """Send lost segments again; return how many packets, and what is left of `quota`."""
        board, recovery, mss = self._board, self._recovery, self.mss
        sent = 0
        while sent < budget and board.lost_bytes:
            segment = board.next_lost()
            if segment is None:
                break
            size = segment.end - segment.start
            limit = self._train_limit(budget - sent)
            if quota < limit:
                limit = int(quota) // mss * mss
            if size > limit:
                if limit < mss:
                    limit = mss
                if size > limit:
                    size = limit
                    board.split(segment, limit)
                if quota < size and board.in_flight:
                    recovery.limited_until = self._snd_next
                    break
            self._resend(segment, now, out)
            recovery.sent(size)
            self._pacer.spend(size)
            quota -= size
            sent += segment.packets
        return sent, quota

    def _resend(self, segment: Segment, now: float, out: list[Out]) -> None:
        """Send one segment again."""
        self._board.resent(segment, now)
        size, mss = len(segment.data), self.mss
        counters = self.counters
        if size > mss:
            segment.mss = mss
            out.append((self._header(now, ACK, segment.start, mss), segment.data, mss))
            self.burst += segment.packets - 1
        else:
            segment.mss = segment.end - segment.start
            flags = ACK | FIN if segment.fin else ACK
            out.append((self._header(now, flags, segment.start, size), segment.data))
        counters["retransmitted"] += segment.packets
        counters["bytes_out"] += size

    def _send_new(self, now: float, budget: int, quota: float, out: list[Out]) -> int:
        """Send data never sent before, then the FIN when it is its turn; return how many packets."""
        buffer, board, mss = self._buffer, self._board, self.mss
        room = self._snd_right - self._snd_next
        count = total = 0
        longest = self._train_limit(budget)
        while count < budget:
            left = buffer.size
            if not left:
                break
            limit = left if left < longest else longest
            if limit > room:
                if room < mss and (room <= 0 or board.in_flight):
                    break
                limit = room - room % mss or room
            if quota < limit:
                if quota >= mss:
                    limit = int(quota) // mss * mss
                elif quota < (limit if limit < mss else mss) and board.in_flight:
                    self._recovery.limited_until = self._snd_next
                    break
                elif limit > mss:
                    limit = mss
            if limit > mss:
                if limit > (budget - count) * mss:
                    limit = (budget - count) * mss
                data = buffer.take_packets(limit, mss)
                limit = len(data)
            else:
                data = buffer.take(limit)
            position = self._snd_next
            self._snd_next = end = position + limit
            board.sent(Segment(position, end, data, False, now, mss))
            flags = ACK | PUSH if left == limit else ACK
            if limit > mss:
                packets = -(-limit // mss)
                out.append((self._header(now, flags, position, mss), data, mss))
                self.burst += packets - 1
                count += packets
            else:
                out.append((self._header(now, flags, position, limit), data))
                count += 1
            quota -= limit
            room -= limit
            total += limit
        if total:
            self._recovery.sent(total)
            self._pacer.spend(total)
            self.counters["bytes_out"] += total
        if self._fin_wanted and self._fin_position < 0 and not buffer.size and count < budget:
            count += self._send_fin(now, out)
        elif not buffer.size and self._recovery.sampler is not None and board.in_flight < self._control.cwnd:
            self._recovery.sampler.starved(board)
        return count

    def _send_fin(self, now: float, out: list[Out]) -> int:
        """The FIN takes one position behind the last byte; windows do not hold it back."""
        position = self._fin_position = self._snd_next
        self._snd_next = position + 1
        self._board.sent(Segment(position, position + 1, b"", True, now))
        out.append((self._header(now, ACK | FIN, position, 0), b""))
        return 1

    def _after_sending(self, now: float, count: int) -> None:
        """Run the retransmission, probe or persist timer as the case may be (RFC 6298 5.1, RFC 8985 7.2)."""
        board = self._board
        if board.in_flight or board.lost_bytes or board.sacked_segments:
            self._persist_at = INFINITY
            if self._rto_at == INFINITY:
                self._rto_at = now + self._rtt.rto
                self._progress_at = now
            if count:
                self._arm_probe(now)
        elif self._buffer.size and self._persist_at == INFINITY and self._snd_right <= self._snd_next:
            self._persist_count = 0
            self._persist_at = now + self._rtt.rto

    def _arm_probe(self, now: float) -> None:
        """Where a tail loss probe is due it takes the place of an earlier time-out (RFC 8985 7.2)."""
        probe = now + self._recovery.probe_delay()
        if probe != INFINITY and probe > self._rto_at:
            probe = self._rto_at
        self._probe_at = probe

    def _send_migrate(self, now: float, out: list[Out]) -> None:
        """The signed word on where we are, in a segment of its own so that it fits every MTU."""
        mover = self._mover
        assert mover is not None
        message = mover.take(now)
        if message is None:
            self._event(EventKind.MOVE_FAILED)
            return
        options = xstream.Options(mss=self.mtu, migrate=migrate.option_value(message))
        packet = self._with_options(now, ACK, self._snd_next, options)
        out.append((packet, b""))
        address = detour(mover.tries, self.config.rendezvous, self.remote)
        if address is not None:
            out.append((readdressed(packet, address), b""))
        self.counters["migrate_sent"] += 1

    def _acknowledge_move(self, now: float) -> None:
        """Tell the peer, at its new place, that its move is known here."""
        options = xstream.Options(
            mss=self.mtu, migrate_ack=migrate.option_value(self._peer_moves.acknowledgement())
        )
        self._urgent.append((self._with_options(now, ACK, self._snd_next, options), b""))

    def _syn(self, now: float) -> Out:
        """SYN, or SYN with ACK when both ends opened at once; the window of a SYN is never scaled."""
        stamp = (int(now * 1e6) + self._stamp_offset) & MASK
        options = xstream.Options(
            mss=self.mtu, wscale=self._rcv_scale, sack_permitted=True, timestamp=(stamp, self._ts_recent)
        )
        window = min(self.recv_limit, 0xFFFF)
        self._offered = max(self._offered, 1 + window)
        both = self.state is State.SYN_RCVD
        ack = (self.irs + 1) & MASK if both else 0
        body = xstream.pack(SYN | ACK if both else SYN, self.iss, ack, window, options)
        return self._template.head + len(body).to_bytes(2, "big") + self._template.rest + body, b""

    def _reset(self) -> Out:
        """RST at the next position, with an ACK so that any receiver can place it."""
        template = self._template
        seq = (self.iss + self._snd_next) & MASK
        ack = (self.irs + self._received.next + self._fin_seen) & MASK
        return template.bare(template.head, 16, template.rest, 0, 4, RST | ACK, seq, ack, 0), b""

    def _window_probe(self, now: float) -> Out:
        """An old position makes the peer answer with its ACK and window (RFC 9293 3.8.6.1, 3.8.4)."""
        return self._header(now, ACK, self._board.una - 1, 0), b""
