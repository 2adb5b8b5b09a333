"""A reliable byte stream between two SIDs that survives moves of either end.

Sans-IO: packets and the time go in (`receive`, `tick`), packets come out (`transmit`), `events` says
what changed and `next_deadline` when to call `tick` again.  Wire format: XSTREAM (xia.md 4.1, 4.2).
"""

from __future__ import annotations

import random
from typing import Any

from xiatb.errors import TransportError
from xiatb.identity.keys import KeyPair
from xiatb.transport.config import MAX_MTU, MIN_MTU, StreamConfig
from xiatb.transport.connection import MASK, State, fits
from xiatb.transport.errors import AbortedError, ClosedForWritingError, NotConnectedError, UnreachableError
from xiatb.transport.handshake import HalfOpen
from xiatb.transport.input import InputSide
from xiatb.transport.packets import HeaderTemplate
from xiatb.wire.dag import DAG

__all__ = ["State", "Stream", "StreamConfig"]


class Stream(InputSide):
    """One connection.  Made by `Endpoint.connect` and `Endpoint.accept`."""

    @classmethod
    def opening(
        cls,
        config: StreamConfig,
        key: KeyPair | None,
        local: DAG,
        remote: DAG,
        rng: random.Random,
        now: float,
    ) -> Stream:
        """Begin to connect from `local` to `remote` (service DAGs); the SYN goes out with `transmit`.

        TransportError when the addresses are too long for the MTU.
        """
        if not fits(local, remote, config.mtu):
            raise TransportError(f"an MTU of {config.mtu} leaves no room for data behind these addresses")
        stream = cls(config, key, local, remote, rng, now)
        stream.state = State.SYN_SENT
        stream._urgent.append(stream._syn(now))
        stream._state_at = now + stream._rtt.rto
        return stream

    def take_over(self, half: HalfOpen, stamp: int, win: int, now: float) -> None:
        """Become the listener's end of a handshake that the peer's ACK completed.

        `stamp` is the newest timestamp of the peer, `win` the window field of its ACK.  The clock of
        our timestamps must go on as the SYN-ACK began it: the peer compares them (RFC 7323 5).
        """
        self.iss, self.irs = half.iss, half.irs
        self._stamp_offset = half.stamp_offset
        self.set_peer_options(half.options)
        self._ts_recent = stamp
        self._offered = 1 + min(self.recv_limit, 0xFFFF)
        self._last_ack_sent = 1
        self._established(win << self._snd_scale, now)

    @property
    def send_space(self) -> int:
        """Bytes that `write` would take now."""
        if self._fin_wanted or (self.state is State.CLOSED):
            return 0
        waiting = self._buffer.size
        space = self.send_limit - waiting - (self._snd_next - self._board.una)
        unsent = self.config.unsent_limit
        if unsent and unsent - waiting < space:
            space = unsent - waiting
        return space if space > 0 else 0

    @property
    def unsent(self) -> int:
        """Bytes written and not sent even once."""
        return self._buffer.size

    @property
    def unacked(self) -> int:
        """Bytes sent and not acknowledged."""
        return self._snd_next - self._board.una

    def set_send_limit(self, limit: int) -> None:
        """Bound the bytes written and not yet acknowledged to `limit` from now on, whatever the path.

        What is already buffered stays; `write` takes nothing until it has drained below the limit.
        """
        if limit < 1024:
            raise TransportError(f"a send limit of {limit} bytes is below 1024")
        self.send_limit = limit
        self._send_fixed = True

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take over as much of `data` as there is room for and return how much that was.

        `bytes`, and views of them, are kept by reference.  Raises the stream's error once it has
        failed, ClosedForWritingError after `shutdown`.
        """
        if self.error is not None:
            raise self.error
        if self._fin_wanted:
            raise ClosedForWritingError("this side of the stream is closed")
        if self.state is State.CLOSED:
            raise NotConnectedError("the stream is not connected")
        space = self.send_space
        n = len(data)
        if n > space:
            self._want_room = True
            if not space:
                return 0
            data = memoryview(data)[:space]
            n = space
        if n:
            self._buffer.append(data)
            self._wake()
        return n

    @property
    def readable(self) -> int:
        """Bytes that `read` can return now."""
        return self._received.size

    @property
    def at_eof(self) -> bool:
        """Whether the peer has closed its direction and everything has been read."""
        return self._fin_seen and not self._received.size

    def read(self, limit: int = 1 << 62) -> bytes:
        """Return at most `limit` bytes in order; empty when there are none (see `at_eof`, `error`)."""
        if not self._received.size or limit <= 0:
            return b""
        data = self._received.read(limit)
        self._window_opened()
        return data

    def read_into(self, target: memoryview) -> int:
        """Fill `target` as far as bytes are there; return how many."""
        done = self._received.read_into(target)
        if done:
            self._window_opened()
        return done

    def _window_opened(self) -> None:
        """Announce new room when the peer may be waiting for it (RFC 9293 3.8.6.2.2)."""
        received = self._received
        buffer = self.recv_limit
        left = self._offered - received.next
        gain = buffer - received.size - left
        if left < buffer >> 1 and gain >= min(buffer >> 2, 2 * self._peer_segment) and self.state in (
            State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2
        ):  # fmt: skip
            if left >= 2 * self._peer_segment and gain < buffer >> 2:
                return
            self._ack_now = True
            self._wake()

    def shutdown(self) -> None:
        """Close this direction: FIN follows what has been written; reading goes on.  May be repeated."""
        if self._fin_wanted or self.state is State.CLOSED:
            return
        self._fin_wanted = True
        if self.state is State.ESTABLISHED:
            self.state = State.FIN_WAIT_1
        elif self.state is State.CLOSE_WAIT:
            self.state = State.LAST_ACK
        self._wake()

    def close(self, now: float) -> None:
        """Close both directions: nothing will be read any more, what was written is still delivered.

        Unread bytes, or bytes that come later, abort the connection, so that the peer knows.
        """
        if self.state is State.CLOSED:
            return
        if self.state is State.SYN_SENT:
            self._finish(AbortedError("closed before it was connected"))
            return
        if self._received.size:
            self.abort("closed with unread data")
            return
        self._read_closed = True
        self.shutdown()
        if self.state is State.FIN_WAIT_2:
            self._state_at = now + self.config.linger

    def abort(self, reason: str = "aborted") -> None:
        """End the connection at once with a RST; nothing more is delivered either way."""
        if self.state is State.CLOSED:
            return
        if self.state not in (State.SYN_SENT, State.TIME_WAIT):
            self._urgent.append(self._reset())
        self._received.discard()
        self._finish(AbortedError(reason))

    def move(self, new_local: DAG, now: float) -> None:
        """This end is at `new_local` from now on: tell the peer at once, signed, and send again what
        is outstanding.

        The final intent must stay.  TransportError when it does not, or when the two addresses do
        not leave room for the MIGRATE in a packet.
        """
        if new_local.intent != self.local_sid:
            raise TransportError(
                f"a stream of {self.local_sid} cannot move to an address of {new_local.intent}"
            )
        if self.state is State.CLOSED:
            return
        if not fits(new_local, self.remote, self.mtu):
            raise TransportError("the addresses are too long for a MIGRATE within the MTU")
        self.local = new_local
        self._template = HeaderTemplate(new_local, self.remote)
        self.path_mtu = self.mtu
        self._update_mss()
        if self.state in (State.SYN_SENT, State.SYN_RCVD):
            self._urgent = [self._syn(now)]
            self._rtt.reset_backoff()
            self._state_at = now + self._rtt.rto
        elif self._mover is not None:
            self._mover.start(new_local, now)
            self._restart_path(now)
        self._wake()

    def set_mtu(self, mtu: int) -> None:
        """The local link carries XIP packets of `mtu` bytes from now on."""
        if not MIN_MTU <= mtu <= MAX_MTU:
            raise TransportError(f"an MTU of {mtu} is not within {MIN_MTU}..{MAX_MTU}")
        self.mtu = self.path_mtu = mtu
        self._update_mss()

    def too_big(self, mtu: int, seq: int, now: float) -> None:
        """The network reports that the segment with wire sequence `seq` met a link of `mtu` bytes.

        Believed only about something outstanding and never below the minimum (RFC 1191, RFC 5927 7).
        """
        position = (seq - self.iss) & MASK
        una = self._board.una & MASK
        if (position - una) & MASK >= max(self._snd_next - self._board.una, 1) or mtu >= self.path_mtu:
            return
        if mtu < MIN_MTU:
            return
        self.path_mtu = mtu
        self._update_mss()
        self._recovery.on_resize(self._snd_next)
        self._wake()

    def not_sent(self, seq: int, size: int, packets: int, now: float) -> None:
        """`packets` with `size` bytes of payload, from wire sequence `seq` on, met a full queue in this host:
        pause, then send them again."""
        self.counters["refused"] += packets
        una = self._board.una
        position = una + ((seq - self.iss - una) & MASK)
        self._pacer.hold(now)
        if self._board.refused(position, position + max(size, 1)):
            self._recovery.refused_locally(now, self._snd_next)

    def unreachable(self, seq: int, gone: bool = False) -> None:
        """The network reports that the segment with wire sequence `seq` could not be delivered; `gone`: the
        peer's own host reports that nobody has its SID any more.

        Fatal only to a connect (xia-core runs into its limit there); a connection lives on. But when only the
        answer to our FIN is missing, and the peer has ended before it gave one, nothing is left to wait for.
        """
        self.counters["unreachable"] += 1
        if self.state is State.SYN_SENT and seq == self.iss:
            self._finish(UnreachableError(f"{self.remote_sid} cannot be reached"))
        elif gone and self._only_fin_outstanding and seq == (self.iss + self._fin_position) & MASK:
            self._finish(None)

    @property
    def _only_fin_outstanding(self) -> bool:
        """The peer has sent and got everything, but has not told that it has our FIN."""
        closing = self.state in (State.LAST_ACK, State.CLOSING)
        return closing and 0 <= self._fin_position <= self._board.una

    def stats(self) -> dict[str, Any]:
        """Counters and the state of the path; sizes in bytes, times in seconds."""
        rtt, recovery = self._rtt, self._recovery
        mover = self._mover
        return {
            **self.counters,
            "state": self.state.name,
            "mss": self.mss,
            "srtt": rtt.srtt, "min_rtt": rtt.min_rtt, "rttvar": rtt.rttvar, "rto": rtt.rto,
            "cwnd": self._control.cwnd,
            "pacing_rate": self._pacer.rate,
            "ssthresh": self._control.ssthresh,
            "congestion": self._control.name,
            "in_flight": self._board.in_flight,
            "acked": self._board.una - 1,
            "unsent": self._buffer.size,
            "unacked": self.unacked,
            "readable": self._received.size,
            "send_window": self._snd_right - self._board.una,
            "send_limit": self.send_limit,
            "recv_limit": self.recv_limit,
            "timeouts": recovery.timeouts,
            "fast_recoveries": recovery.fast_recoveries,
            "undone": recovery.undone,
            "tail_probes": recovery.probes,
            "moves": mover.acknowledged if mover is not None else 0,
            "moves_failed": mover.failed if mover is not None else 0,
            "move_pending": mover.pending if mover is not None else False,
        }  # fmt: skip
