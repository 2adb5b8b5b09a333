"""The state of one stream connection and the small things that both directions need.

Positions are unbounded integers counted from the initial sequence number, so nothing but the wire
format ever wraps: position 0 is the SYN, data starts at 1, the FIN follows the last byte.  A position
p of ours is sequence (iss + p) mod 2**32, one of the peer's (irs + p) mod 2**32.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from xiatb.identity.keys import KeyPair
from xiatb.transport import congestion
from xiatb.transport.autotuning import RECV_MAX, RECV_START, SEND_START, WindowGrowth
from xiatb.transport.config import MIN_MTU, StreamConfig
from xiatb.transport.errors import StreamError
from xiatb.transport.events import Event, EventKind
from xiatb.transport.mobility import Mover, PeerMoves
from xiatb.transport.pacing import Pacer
from xiatb.transport.packets import STAMPED_HEADER, HeaderTemplate, Out
from xiatb.transport.reassembly import ReceiveBuffer
from xiatb.transport.recovery import Recovery
from xiatb.transport.rtt import RttEstimator
from xiatb.transport.scoreboard import Scoreboard
from xiatb.transport.sendbuffer import SendBuffer
from xiatb.wire import migrate, xip
from xiatb.wire.dag import DAG

INFINITY = float("inf")
MASK = 0xFFFFFFFF
HALF = 0x80000000
MIN_SEGMENT = 64
"""Addresses that leave less room for payload than this are refused."""
PEER_ACK_DELAY = 0.04
"""How long a peer may hold back an acknowledgement; only tail loss probes depend on it."""


class State(IntEnum):
    """TCP's states (RFC 9293 3.3.2); a listener's half-open connections are not streams yet."""

    CLOSED = 0
    SYN_SENT = 1
    SYN_RCVD = 2
    ESTABLISHED = 3
    FIN_WAIT_1 = 4
    FIN_WAIT_2 = 5
    CLOSE_WAIT = 6
    CLOSING = 7
    LAST_ACK = 8
    TIME_WAIT = 9


def scale_for(buffer: int) -> int:
    """The window scale with which a 16-bit field can offer `buffer` bytes (RFC 7323 2.2)."""
    shift = 0
    while buffer >> shift > 0xFFFF and shift < 14:
        shift += 1
    return shift


def fits(local: DAG, remote: DAG, mtu: int) -> bool:
    """Whether packets between these addresses leave room for data and for a MIGRATE."""
    own = len(local.to_wire())
    extra = max(MIN_SEGMENT, 8 + migrate.FIXED_LEN + own)
    return xip.FIXED_LEN + own + len(remote.to_wire()) + STAMPED_HEADER + extra <= mtu


class Connection:
    """Fields of a connection, its timers, and its events."""

    def __init__(
        self,
        config: StreamConfig,
        key: KeyPair | None,
        local: DAG,
        remote: DAG,
        rng: random.Random,
        now: float,
    ) -> None:
        """A closed connection between the intents of `local` and `remote`; `key` is `local`'s."""
        self.config = config
        self.local = local
        self.remote = remote
        self.local_sid = local.intent
        self.remote_sid = remote.intent
        self.state = State.CLOSED
        self.error: StreamError | None = None
        self.rng = rng
        self.opened_at = now
        self.mtu = config.mtu
        self.peer_mtu = config.mtu
        self.path_mtu = config.mtu
        self.iss = rng.getrandbits(32)
        self.irs = 0
        self._key = key
        self._wake_owner: Callable[[Any], None] | None = None
        self._template = HeaderTemplate(local, remote)
        self._init_sender(config)
        self._init_receiver(config)
        self._init_timers(now)
        self._mover: Mover | None = None
        if key is not None:
            timing = (config.migrate_rto, config.migrate_max_rto, config.migrate_give_up)
            sequence = itertools.count(config.move_base + 1)
            self._mover = Mover(key, self.local_sid, self.remote_sid, sequence, timing)
        self._peer_moves = PeerMoves(key, self.local_sid, self.remote_sid)
        self._flags = 0
        self._details: dict[EventKind, Any] = {}
        self.counters = {
            "segments_in": 0, "segments_out": 0, "bytes_in": 0, "bytes_out": 0, "retransmitted": 0,
            "duplicates": 0, "malformed": 0, "dropped": 0, "migrate_sent": 0, "migrate_accepted": 0,
            "migrate_refused": 0, "migrate_stale": 0, "unreachable": 0, "refused": 0,
        }  # fmt: skip
        self._update_mss()

    def _init_sender(self, config: StreamConfig) -> None:
        self.burst = 0
        self.send_limit = config.send_buffer or SEND_START
        self._send_fixed = bool(config.send_buffer)
        self._buffer = SendBuffer()
        self._board = Scoreboard(1)
        self._rtt = RttEstimator(config.initial_rto, config.min_rto, config.max_rto)
        self._control = congestion.make(config.congestion, MIN_MTU, config.initial_window, self.rng)
        self._pacer = Pacer()
        self._recovery = Recovery(self._board, self._control, self._rtt, PEER_ACK_DELAY)
        self._snd_next = 1
        self._snd_right = 1
        self._snd_scale = 0
        self._window_seq = 0
        self._last_window = -1
        self._stamps = True
        self._sack = True
        self._stamp_offset = self.rng.getrandbits(32)
        self._fin_wanted = False
        self._fin_position = -1
        self._want_room = False
        self._duplicate_acks = 0
        self._challenge_at = 0.0

    def _init_receiver(self, config: StreamConfig) -> None:
        self.recv_limit = config.recv_buffer or RECV_START
        self._window = None if config.recv_buffer else WindowGrowth(RECV_START, RECV_MAX)
        self._received = ReceiveBuffer(1, config.recv_buffer or RECV_MAX)
        self._rcv_scale = scale_for(config.recv_buffer or RECV_MAX)
        self._offered = 1
        self._last_ack_sent = 0
        self._ts_recent = 0
        self._peer_segment = 536
        self._unacked_in = 0
        self._acked_at = -INFINITY
        self._ack_now = False
        self._dsack: tuple[int, int] | None = None
        self._peer_fin = -1
        self._fin_seen = False
        self._read_closed = False

    def _init_timers(self, now: float) -> None:
        self._rto_at = INFINITY
        self._probe_at = INFINITY
        self._ack_at = INFINITY
        self._pace_at = INFINITY
        self._persist_at = INFINITY
        self._keep_at = INFINITY
        self._state_at = INFINITY
        self._persist_count = 0
        self._keep_count = 0
        self._heard = now
        self._progress_at = now
        self._last_sent = now
        self._path_since = -INFINITY
        self._urgent: list[Out] = []

    def _update_mss(self) -> None:
        """Payload bytes of a full segment between the current addresses on the current path."""
        mtu = min(self.mtu, self.peer_mtu, self.path_mtu)
        mss = max(mtu - self._template.length - STAMPED_HEADER, MIN_SEGMENT)
        self.mss = mss
        control = self._control
        control.mss = mss
        if self._snd_next == 1:
            control.cwnd = control.initial()
            self._pacer.grant(control.cwnd)
        elif control.cwnd < mss:
            control.cwnd = mss

    def _event(self, kind: EventKind, detail: Any = None) -> None:
        """Note an event for `events`."""
        self._flags |= 1 << kind
        if detail is not None:
            self._details[kind] = detail

    def events(self) -> list[Event]:
        """What happened since the last call, each kind at most once, in the order of `EventKind`."""
        flags = self._flags
        if not flags:
            return []
        self._flags = 0
        details = self._details
        found = [Event(kind, details.get(kind)) for kind in EventKind if flags >> kind & 1]
        details.clear()
        return found

    def _wake(self) -> None:
        """Tell the endpoint that there is something to transmit or to look at."""
        if self._wake_owner is not None:
            self._wake_owner(self)

    def next_deadline(self) -> float | None:
        """When `tick` (and then `transmit`) must be called at the latest; None: no timer runs."""
        mover = self._mover
        first = min(
            self._rto_at, self._probe_at, self._ack_at, self._persist_at, self._keep_at, self._state_at,
            self._recovery.reorder_at, self._pace_at, mover.next_at if mover is not None else INFINITY,
        )  # fmt: skip
        return None if first == INFINITY else first

    def _finish(self, error: StreamError | None) -> None:
        """The connection is over; what was received can still be read."""
        if self.state is State.CLOSED and self.error is not None:
            return
        self.state = State.CLOSED
        self.error = self.error or error
        self._rto_at = self._probe_at = self._ack_at = self._persist_at = self._pace_at = INFINITY
        self._keep_at = self._state_at = self._recovery.reorder_at = INFINITY
        if self._mover is not None:
            self._mover.next_at = INFINITY
        self._ack_now = False
        self._buffer.clear()
        self._board.clear()
        self._event(EventKind.CLOSED, self.error)
        self._wake()
