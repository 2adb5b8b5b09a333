"""Session moves: the signed, sequenced, acknowledged MIGRATE, from both ends' point of view.

`Mover` tells one peer where this end is now, at once and again on a short timer of its own until the
peer acknowledges.  `PeerMoves` decides whether a MIGRATE from the peer holds.  Both are used by
streams (option) and datagrams (extension header); neither knows how its messages travel.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from xiatb.errors import WireError
from xiatb.identity import keys
from xiatb.identity.keys import KeyPair
from xiatb.wire import xip
from xiatb.wire.dag import DAG
from xiatb.wire.migrate import Migrate, MigrateAck
from xiatb.wire.rendezvous import via
from xiatb.wire.xid import XID

INFINITY = float("inf")
DIRECT_TRIES = 3
"""Transmissions of a MIGRATE to where the peer was last, before it goes by the rendezvous service, too."""
_UNKEYED = bytes.fromhex("30000ff0")
"""Ids of this form are drawn at random for unbound datagram sockets and belong to no key (xia.md 5)."""


def has_key(sid: XID) -> bool:
    """Say whether an SID can be backed by a key, so that its owner can sign."""
    return not sid.id.startswith(_UNKEYED)


def detour(tries: int, service: DAG | None, peer: DAG) -> DAG | None:
    """The address by which a MIGRATE that was sent `tries` times goes as well: the rendezvous service's, as
    it knows where a peer is that has moved at the same time. None while the direct way may still do."""
    if service is None or tries <= DIRECT_TRIES:
        return None
    try:
        return via(service, peer)
    except WireError:
        return None


def readdressed(packet: bytes, to: DAG) -> bytes:
    """The same XIP packet for another destination. Raises WireError when it is none."""
    header = xip.parse(packet)
    return xip.build(header.nxt, to, header.src_wire, header.payload)


class Mover:
    """Our moves as one peer hears of them: at most one is under way, a later one replaces it.

    `next_at` is when to send the current message (infinity: nothing to send); `tries` how often it was sent.
    """

    __slots__ = (
        "_deadline",
        "_interval",
        "_max_interval",
        "_first_interval",
        "_give_up",
        "_key",
        "_message",
        "_own",
        "_peer",
        "_sequence",
        "acknowledged",
        "failed",
        "next_at",
        "sent_count",
        "started_at",
        "tries",
    )

    def __init__(
        self, key: KeyPair, own: XID, peer: XID, sequence: Iterator[int], timing: tuple[float, float, float]
    ) -> None:
        """`own` SID belongs to `key`; each move takes the next of `sequence`; `timing`: first and longest
        interval between transmissions, and how long to go on, in seconds."""
        self._key = key
        self._own = own
        self._peer = peer
        self._sequence = sequence
        self._first_interval, self._max_interval, self._give_up = timing
        self._interval = 0.0
        self._deadline = 0.0
        self._message: Migrate | None = None
        self.next_at = INFINITY
        self.started_at = 0.0
        self.sent_count = 0
        self.tries = 0
        self.acknowledged = 0
        self.failed = 0

    @property
    def pending(self) -> bool:
        """Whether a move is still unacknowledged."""
        return self._message is not None

    def start(self, dag: DAG, now: float) -> None:
        """This end is at `dag` from now on: sign that, to be sent at once."""
        message = Migrate(next(self._sequence), dag, self._key.public)
        self._message = message.signed(self._key.sign(message.signed_bytes(self._own, self._peer)))
        self._interval = self._first_interval
        self.tries = 0
        self._deadline = now + self._give_up
        self.started_at = now
        self.next_at = now

    def take(self, now: float) -> Migrate | None:
        """The message, when it is due (the timer then runs again), else None.

        Once the time is up this gives up: `failed` counts it and nothing is pending any more.
        """
        if now < self.next_at or self._message is None:
            return None
        if now >= self._deadline:
            self._message = None
            self.next_at = INFINITY
            self.failed += 1
            return None
        self.next_at = now + self._interval
        self._interval = min(self._interval * 2, self._max_interval)
        self.sent_count += 1
        self.tries += 1
        return self._message

    def hurry(self, now: float) -> None:
        """The peer was heard from at a new place: send a pending message there at once."""
        if self._message is not None:
            self._interval = self._first_interval
            self.next_at = now

    def accept(self, ack: MigrateAck) -> bool:
        """Take an acknowledgement; False when it is not of the pending move or not the peer's own."""
        message = self._message
        if message is None or ack.seq != message.seq:
            return False
        if has_key(self._peer):
            if keys.xid_of(ack.public, self._peer.type) != self._peer:
                return False
            if not keys.verify(ack.public, ack.signature, ack.signed_bytes(self._peer, self._own)):
                return False
        self._message = None
        self.next_at = INFINITY
        self.acknowledged += 1
        return True


class Verdict(Enum):
    """What to make of a MIGRATE from the peer."""

    NEW = "new"
    """Verified and newer than all before: the peer is there now; acknowledge."""
    REPEAT = "repeat"
    """The one accepted last, again: acknowledge again."""
    STALE = "stale"
    """Older than one already accepted: ignore."""
    FORGED = "forged"
    """The key is not the peer's, the signature does not hold, or the address is another SID's."""


class PeerMoves:
    """The moves of one peer as heard by this end."""

    __slots__ = ("_ack", "_floor", "_key", "_last", "_own", "_peer")

    def __init__(self, key: KeyPair | None, own: XID, peer: XID, floor: int = 0) -> None:
        """`key` (of `own`) signs acknowledgements; without it they go unsigned.  Moves up to sequence
        `floor` are known and stale."""
        self._floor = floor
        self._key = key
        self._own = own
        self._peer = peer
        self._last: Migrate | None = None
        self._ack: MigrateAck | None = None

    @property
    def last_seq(self) -> int:
        """Sequence of the newest accepted move; before the first the floor."""
        return self._last.seq if self._last is not None else self._floor

    def judge(self, message: Migrate) -> Verdict:
        """Decide on a MIGRATE; the cheap checks come first, a NEW one is remembered."""
        last = self._last
        if message.seq <= self.last_seq:
            return Verdict.REPEAT if last is not None and message == last else Verdict.STALE
        if message.dag.intent != self._peer or not has_key(self._peer):
            return Verdict.FORGED
        if keys.xid_of(message.public, self._peer.type) != self._peer:
            return Verdict.FORGED
        if not keys.verify(message.public, message.signature, message.signed_bytes(self._peer, self._own)):
            return Verdict.FORGED
        self._last = message
        return Verdict.NEW

    def acknowledgement(self) -> MigrateAck:
        """The signed acknowledgement of the newest accepted move (there must be one)."""
        seq = self.last_seq
        if self._ack is None or self._ack.seq != seq:
            if self._key is None:
                self._ack = MigrateAck(seq, bytes(32))
            else:
                bare = MigrateAck(seq, self._key.public)
                self._ack = bare.signed(self._key.sign(bare.signed_bytes(self._own, self._peer)))
        return self._ack
