"""Datagrams of one SID, with peers that follow each other's moves.

A datagram goes where the application says, with one exception: when the peer has proved a move
(a signed MIGRATE extension header) away from an address, what is sent to that address goes to the new
one.  Own moves are told to every peer met lately.  Wire format: XDGRAM (xia.md 4.1), MIGRATE headers.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from typing import Any

from xiatb.errors import TransportError, WireError
from xiatb.identity.keys import KeyPair
from xiatb.transport.config import DatagramConfig
from xiatb.transport.errors import MessageTooLongError
from xiatb.transport.mobility import INFINITY, Mover, PeerMoves, Verdict, detour
from xiatb.transport.packets import Out
from xiatb.wire import extension, migrate, xdgram, xip
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID

_QUEUE = 4096
_TEMPLATES = 256
_REMEMBERED = 16
"""Addresses of one peer that are known to be outdated; the oldest is forgotten first."""
_KNOWN_MOVES = 4096
"""Peers whose newest move is remembered beyond their record, so that no older one can be replayed."""
Buffer = bytes | bytearray | memoryview


class Peer:
    """What is known of one other SID."""

    __slots__ = (
        "active_at",
        "connected",
        "current",
        "mover",
        "moves",
        "outdated",
        "reach",
        "sent",
        "sid",
        "used",
    )

    def __init__(self, sid: XID, reach: DAG, moves: PeerMoves) -> None:
        self.sid = sid
        self.reach = reach
        self.moves = moves
        self.mover: Mover | None = None
        self.current: DAG | None = None
        self.used: dict[bytes, None] = {}
        self.outdated: dict[bytes, None] = {}
        self.active_at = -INFINITY
        self.sent = False
        self.connected = False


class Datagram:
    """The datagram side of one SID.  Packets in by `receive`, out by `transmit`."""

    def __init__(
        self, sid: XID, key: KeyPair | None, local: DAG, config: DatagramConfig | None = None
    ) -> None:
        """`local` ends in `sid`; without `key` this end cannot prove its moves."""
        self.sid = sid
        self.local = local
        self.config = config or DatagramConfig()
        self.mtu = self.config.mtu
        self.stats: dict[str, int] = {
            "sent": 0, "received": 0, "malformed": 0, "redirected": 0, "queue_full": 0, "migrate_sent": 0,
            "migrate_accepted": 0, "migrate_refused": 0, "migrate_stale": 0, "moves_acknowledged": 0,
        }  # fmt: skip
        self._key = key
        self._peers: OrderedDict[bytes, Peer] = OrderedDict()
        self._queue: deque[Out] = deque()
        self._templates: dict[bytes, tuple[bytes, bytes]] = {}
        self._sequence = itertools.count(self.config.move_base + 1)
        self._moving: dict[bytes, Peer] = {}
        self._known_moves: OrderedDict[bytes, int] = OrderedDict()

    def send(self, payload: Buffer, to: DAG, now: float) -> bool:
        """Queue one datagram; False when the queue is full (as ENOBUFS).

        MessageTooLongError when it does not fit into one packet.
        """
        peer = self._peer(to.nodes[-1], to, now)
        wire = to.to_wire()
        if wire in peer.outdated and peer.current is not None:
            to = peer.current
            wire = to.to_wire()
            self.stats["redirected"] += 1
        elif wire not in peer.used:
            if len(peer.used) >= _REMEMBERED:
                del peer.used[next(iter(peer.used))]
            peer.used[wire] = None
        peer.reach = to
        peer.sent = True
        head, rest = self._template(wire)
        size = len(payload)
        if 4 + len(rest) + size > self.mtu:
            raise MessageTooLongError(f"a datagram of {size} bytes does not fit an MTU of {self.mtu}")
        if len(self._queue) >= _QUEUE:
            self.stats["queue_full"] += 1
            return False
        data = payload if isinstance(payload, bytes) else bytes(payload)
        self._queue.append((b"".join((head, (4 + size).to_bytes(2, "big"), rest)), data))
        self.stats["sent"] += 1
        return True

    def _template(self, wire: bytes) -> tuple[bytes, bytes]:
        """What stands before and after `plen` in a datagram to the node list `wire`."""
        found = self._templates.get(wire)
        if found is None:
            whole = xip.build_header(xip.NXT_XDGRAM, wire, self.local, 0)
            found = whole[:2], whole[4:] + xdgram.HEADER
            if len(self._templates) >= _TEMPLATES:
                self._templates.clear()
            self._templates[wire] = found
        return found

    def room(self, to: DAG) -> int:
        """The largest payload that `send` takes to `to`."""
        return self.mtu - xip.FIXED_LEN - len(to.to_wire()) - len(self.local.to_wire()) - xdgram.LEN

    def connect(self, to: DAG, now: float) -> None:
        """Keep the peer for good: it is told of every move however long it has been silent."""
        self._peer(to.intent, to, now).connected = True

    def disconnect(self, sid: XID) -> None:
        """Treat the peer as any other again."""
        peer = self._peers.get(sid.key)
        if peer is not None:
            peer.connected = False

    def peer_dag(self, sid: XID) -> DAG | None:
        """Where `sid` proved to have moved to; None when it has not moved."""
        peer = self._peers.get(sid.key)
        return peer.current if peer is not None else None

    def _peer(self, sid: XID, reach: DAG, now: float) -> Peer:
        """Find or make the record of a peer, and note that it is active."""
        peer = self._peers.get(sid.key)
        if peer is None:
            peer = Peer(sid, reach, self._moves_of(sid))
            self._peers[sid.key] = peer
            if len(self._peers) > self.config.max_peers:
                self._evict(sid.key)
        else:
            self._peers.move_to_end(sid.key)
        peer.active_at = now
        return peer

    def _moves_of(self, sid: XID) -> PeerMoves:
        """A fresh record of a peer's moves, which still knows the sequence of one forgotten earlier."""
        return PeerMoves(self._key, self.sid, sid, self._known_moves.get(sid.key, 0))

    def _evict(self, keep: bytes) -> None:
        """Make room: first peers that only ever sent to us (anyone can pose as many), then the oldest."""
        victim = oldest = None
        for key, peer in self._peers.items():
            if peer.connected or key == keep:
                continue
            oldest = oldest or key
            if not peer.sent:
                victim = key
                break
        victim = victim or oldest
        if victim is not None:
            del self._peers[victim]
            self._moving.pop(victim, None)

    def receive(self, packet: Buffer, now: float) -> list[tuple[bytes, DAG]]:
        """Take a whole XIP packet; return what it holds for the application: (payload, source DAG)."""
        try:
            nxt, plen, _, dnode, snode, _, off = xip.parse_fast(packet)
            if bytes(packet[28 * dnode - 20 : 28 * dnode + 4]) != self.sid.key:
                raise WireError("a datagram for another SID")
            source = xip.dag_of(bytes(packet[off - 28 * snode : off]))
            return self.take(packet, nxt, off, off + plen, source, now)
        except WireError:
            self.stats["malformed"] += 1
            return []

    def take(
        self, packet: Buffer, nxt: int, off: int, end: int, source: DAG, now: float
    ) -> list[tuple[bytes, DAG]]:
        """As `receive`, of a packet whose XIP header is parsed: payload at off..end.  Raises WireError."""
        if nxt == xip.NXT_XDGRAM and end - off >= 4 and packet[off] == 0 and packet[off + 1] == 1:
            data_at = off + 4
        else:
            headers, data_at = extension.chain(nxt, packet, off, end)
            plain = False
            for header in headers:
                if header.kind in (xip.NXT_MIGRATE, xip.NXT_MIGRATEACK):
                    message = migrate.parse_header(header.kind, packet, header.start, header.end)
                    self._mobility(message, source, now)
                elif header.kind == xip.NXT_XDGRAM:
                    plain = True
                elif header.kind != xip.NXT_FID:
                    raise WireError(f"extension header {header.kind} in a datagram")
            if not plain:
                return []
        sid = source.nodes[-1]
        peer = self._peer(sid, source, now)
        if not peer.sent and peer.current is None:
            peer.reach = source
        self.stats["received"] += 1
        return [(bytes(packet[data_at:end]), source)]

    def _mobility(self, message: migrate.Migrate | migrate.MigrateAck, source: DAG, now: float) -> None:
        """A MIGRATE or its acknowledgement from the owner of the source's SID."""
        sid = source.intent
        if isinstance(message, migrate.MigrateAck):
            peer = self._peers.get(sid.key)
            if peer is not None and peer.mover is not None and peer.mover.accept(message):
                self.stats["moves_acknowledged"] += 1
            return
        known = self._peers.get(sid.key)
        moves = known.moves if known is not None else self._moves_of(sid)
        verdict = moves.judge(message)
        if verdict is Verdict.FORGED:
            self.stats["migrate_refused"] += 1
            return
        if verdict is Verdict.STALE:
            self.stats["migrate_stale"] += 1
            return
        peer = self._peer(sid, message.dag, now)
        peer.moves = moves
        if verdict is Verdict.NEW:
            self.stats["migrate_accepted"] += 1
            self._known_moves[sid.key] = message.seq
            self._known_moves.move_to_end(sid.key)
            if len(self._known_moves) > _KNOWN_MOVES:
                self._known_moves.popitem(last=False)
            self._follow(peer, message.dag, now)
        self._control(moves.acknowledgement(), message.dag)

    def _follow(self, peer: Peer, dag: DAG, now: float) -> None:
        """All addresses under which the peer was reached are outdated, `dag` is not."""
        wire = dag.to_wire()
        outdated = peer.outdated
        outdated.update(peer.used)
        outdated[peer.reach.to_wire()] = None
        if peer.current is not None:
            outdated[peer.current.to_wire()] = None
        outdated.pop(wire, None)
        while len(outdated) > _REMEMBERED:
            del outdated[next(iter(outdated))]
        peer.used = {wire: None}
        peer.current = peer.reach = dag
        if peer.mover is not None:
            peer.mover.hurry(now)

    def _control(self, message: migrate.Migrate | migrate.MigrateAck, to: DAG) -> None:
        """Queue a packet that holds only a MIGRATE or its acknowledgement."""
        body = migrate.pack_header(message, xip.NXT_DATA)
        self._queue.append((xip.build(migrate.number_of(message), to, self.local, body), b""))

    def move(self, new_local: DAG, now: float) -> None:
        """This end is at `new_local` from now on: tell every recent or connected peer at once.

        TransportError when the final intent is another.
        """
        if new_local.intent != self.sid:
            raise TransportError(f"a socket of {self.sid} cannot move to an address of {new_local.intent}")
        self.local = new_local
        self._templates.clear()
        if self._key is None:
            return
        config = self.config
        for peer in self._peers.values():
            if not peer.connected and now - peer.active_at > config.peer_idle:
                continue
            if peer.mover is None:
                timing = (config.migrate_rto, config.migrate_max_rto, config.migrate_give_up)
                peer.mover = Mover(self._key, self.sid, peer.sid, self._sequence, timing)
            peer.mover.start(new_local, now)
            self._moving[peer.sid.key] = peer

    @property
    def move_pending(self) -> int:
        """Peers that have not acknowledged the latest move."""
        return sum(1 for peer in self._moving.values() if peer.mover is not None and peer.mover.pending)

    def next_deadline(self) -> float | None:
        """When `transmit` must be called at the latest; None: only when something is sent."""
        if self._queue:
            return 0.0
        first = INFINITY
        for peer in self._moving.values():
            if peer.mover is not None and peer.mover.next_at < first:
                first = peer.mover.next_at
        return None if first == INFINITY else first

    def tick(self, now: float) -> None:
        """Queue the MIGRATEs that are due."""
        if not self._moving:
            return
        for key, peer in list(self._moving.items()):
            mover = peer.mover
            message = mover.take(now) if mover is not None else None
            if message is not None:
                self.stats["migrate_sent"] += 1
                self._control(message, peer.reach)
                address = None if mover is None else detour(mover.tries, self.config.rendezvous, peer.reach)
                if address is not None:
                    self._control(message, address)
            elif mover is None or not mover.pending:
                del self._moving[key]

    def transmit(self, now: float, budget: int = 64) -> list[Out]:
        """At most `budget` packets that are to go out now."""
        self.tick(now)
        queue = self._queue
        if len(queue) <= budget:
            out = list(queue)
            queue.clear()
            return out
        return [queue.popleft() for _ in range(budget)]

    def peers(self) -> list[dict[str, Any]]:
        """What is known of the peers, most recently used last, for display."""
        return [
            {"sid": str(peer.sid), "dag": str(peer.reach), "moved": peer.current is not None,
             "connected": peer.connected, "pending": peer.mover is not None and peer.mover.pending}
            for peer in self._peers.values()
        ]  # fmt: skip
