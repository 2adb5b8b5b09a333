"""The handshake of a stream that this end opens, or that both open at once (RFC 9293 3.5)."""

from __future__ import annotations

from xiatb.errors import WireError
from xiatb.transport.config import MIN_MTU
from xiatb.transport.connection import INFINITY, MASK, State, fits
from xiatb.transport.errors import RefusedError
from xiatb.transport.events import EventKind
from xiatb.transport.moving import MovingSide
from xiatb.wire import xip, xstream
from xiatb.wire.xstream import ACK, RST, SYN


class OpeningSide(MovingSide):
    """Segments before the connection is established."""

    def _opening(
        self, flags: int, seq: int, ack: int, win: int, stamp: int, options: xstream.Options | None,
        source: bytes, now: float,
    ) -> bool:  # fmt: skip
        """A segment before the connection is established; True when it may be processed further."""
        if self.state is State.CLOSED:
            return False
        acked = (ack - self.iss) & MASK == 1
        if self.state is State.SYN_RCVD and not flags & (SYN | RST):
            if flags & ACK and acked:
                self._established(win, now)
                return True
            return False
        if flags & ACK and not acked:
            if not flags & RST:
                self._urgent.append(self._reset_for(ack))
            return False
        if flags & RST:
            if flags & ACK:
                self._finish(RefusedError(f"{self.remote_sid} refused the connection"))
            return False
        if flags & SYN:
            self._take_syn(flags, seq, win, stamp, options, source, now)
        return False

    def _reset_for(self, ack: int) -> tuple[bytes, bytes]:
        """The reset that answers an acknowledgement of something never sent (RFC 9293 3.10.7.3)."""
        template = self._template
        return template.bare(template.head, 16, template.rest, 0, 4, RST, ack, 0, 0), b""

    def _take_syn(
        self, flags: int, seq: int, win: int, stamp: int, options: xstream.Options | None, source: bytes,
        now: float,
    ) -> None:  # fmt: skip
        """The peer's SYN: its parameters, and the address that it answers from.

        A service may answer from elsewhere than where it was called (anycast, rendezvous); knowing
        our initial sequence number, it is whom the SYN reached, so this is the first binding of the
        peer's address and no change of it.
        """
        self.irs = seq
        if flags & ACK and source != self.remote.to_wire():
            try:
                remote = xip.dag_of(source)
                if not fits(self.local, remote, self.mtu):
                    raise WireError("the peer's address leaves no room in a packet")
                self._set_remote(remote)
            except WireError:
                self.counters["malformed"] += 1
                return
        self.set_peer_options(options or xstream.Options())
        self._ts_recent = stamp
        if flags & ACK:
            self._established(win, now)
            self._ack_now = True
            return
        if self.state is State.SYN_SENT:
            self.state = State.SYN_RCVD
        self._urgent.append(self._syn(now))

    def set_peer_options(self, options: xstream.Options) -> None:
        """Take over what the peer's SYN announced; absent options switch features off."""
        if options.mss is not None and options.mss >= MIN_MTU:
            self.peer_mtu = options.mss
        if options.wscale is not None:
            self._snd_scale = min(options.wscale, 14)
        else:
            self._rcv_scale = 0
        self._stamps = options.timestamp is not None
        self._sack = options.sack_permitted
        self._update_mss()

    def _established(self, win: int, now: float) -> None:
        """The handshake is complete; `win` is as in a SYN or already scaled by nothing."""
        self.state = State.ESTABLISHED
        self._snd_right = 1 + win
        self._last_window = win
        self._window_seq = 0
        self._rtt.reset_backoff()
        self._state_at = INFINITY
        if self.config.keepalive_idle > 0:
            self._keep_at = now + self.config.keepalive_idle
        self._progress_at = self._heard = now
        self._event(EventKind.CONNECTED)
        self._event(EventKind.WRITABLE)
        if self._fin_wanted:
            self.state = State.FIN_WAIT_1
