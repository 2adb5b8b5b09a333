"""Keeps the eBPF engine's tables equal to a node's: routes, neighbours and ports in, resolved routes out.

A node's route names a port and a neighbour; the engine's holds an interface number, MAC addresses and an MTU.
When a port or a neighbour changes, the routes through it are written anew. What cannot be resolved (neighbour
unknown, port down) is left to the slow path, which asks by XARP or counts the loss.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from xiatb.fastpath.engine import MAX_TYPE
from xiatb.fastpath.errors import FastpathError, TableFullError
from xiatb.fastpath.routes import NO_LIMIT, Kind, Route
from xiatb.wire.walk import DISCARD, SELF, Entry
from xiatb.wire.xid import XidType

BROADCAST = b"\xff" * 6
_FID = int(XidType.FID).to_bytes(4, "big")

Target = bytes | int
"""What a route is for: a 24-byte XID key, or a principal type (its default)."""


class PortInfo(NamedTuple):
    """A port: its interface number, MAC (6 bytes), largest XIP packet (octets, 0: no limit).

    internal: the node's own applications are behind it, frames there are broadcast; up: usable.
    """

    ifindex: int
    mac: bytes
    mtu: int
    internal: bool = False
    up: bool = True


class Sink(Protocol):
    """The part of `Fastpath` that is written to."""

    def set_route(self, key: bytes, route: Route) -> None:
        """Raises TableFullError."""

    def delete_route(self, key: bytes) -> None:
        """Harmless when there is none."""

    def set_default(self, kind: int, route: Route | None) -> None:
        """None: no default."""


class Mirror:
    """Mirrors one node's tables into an engine. All calls are idempotent, in any order.

    When the route map is full, what did not fit stays right: every XID of that type that is not in the map
    goes to the slow path, until there is room. Errors of the engine (FastpathError) come through.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._ports: dict[int, PortInfo] = {}
        self._neighbours: dict[tuple[int, bytes], bytes] = {}
        self._entries: dict[Target, Entry] = {}
        self._through: dict[int, set[Target]] = {}
        self._overflow: dict[int, set[bytes]] = {}

    # Ports and neighbours

    def set_port(self, index: int, port: PortInfo | None) -> None:
        """Port number `index` is like this now; None: it does not exist."""
        if self._ports.get(index) == port:
            return
        if port is None:
            del self._ports[index]
        else:
            self._ports[index] = port
        for target in tuple(self._through.get(index, ())):
            self._write(target)

    def set_neighbour(self, port: int, hid_key: bytes, mac: bytes) -> None:
        """The neighbour with this 24-byte key has this MAC (6 bytes) at that port."""
        if self._neighbours.get((port, hid_key)) != mac:
            self._neighbours[port, hid_key] = bytes(mac)
            self._neighbour_changed(port, hid_key)

    def forget_neighbour(self, port: int, hid_key: bytes) -> None:
        """The neighbour's MAC is not known any more."""
        if self._neighbours.pop((port, hid_key), None) is not None:
            self._neighbour_changed(port, hid_key)

    def _neighbour_changed(self, port: int, hid_key: bytes) -> None:
        for target in tuple(self._through.get(port, ())):
            if hid_key in (self._entries[target].nexthop, target):
                self._write(target)

    # Routes

    def set(self, key: bytes, entry: Entry) -> None:
        """Routes an XID by its 24-byte key. Raises FastpathError for types that cannot be mirrored."""
        if key[:3] != b"\0\0\0":
            raise FastpathError(f"routes of principal type 0x{key[:4].hex()} stay in the slow path")
        self._enter(key, entry)

    def set_default(self, kind: int, entry: Entry | None) -> None:
        """Routes every XID of a type that has no route of its own; None: nowhere."""
        if not 0 <= kind <= MAX_TYPE:
            raise FastpathError(f"routes of principal type 0x{kind:x} stay in the slow path")
        if entry is None:
            self._leave(kind)
        else:
            self._enter(kind, entry)

    def remove(self, key: bytes) -> None:
        """Forgets the route of an XID; harmless when there is none."""
        self._leave(key)

    def _enter(self, target: Target, entry: Entry) -> None:
        self._unlink(target)
        self._entries[target] = entry
        for port in (entry.port, entry.deliver if entry.port == SELF else -1):
            if port >= 0:
                self._through.setdefault(port, set()).add(target)
        self._write(target)

    def _leave(self, target: Target) -> None:
        self._unlink(target)
        if self._entries.pop(target, None) is None:
            return
        if isinstance(target, int):
            self._write_default(target)
            return
        kind = target[3]
        missing = self._overflow.get(kind, set())
        if target in missing:
            missing.discard(target)
        else:
            self._sink.delete_route(target)
            self._retry()
        self._settle(kind)

    def _unlink(self, target: Target) -> None:
        entry = self._entries.get(target)
        if entry is not None:
            for port in (entry.port, entry.deliver):
                self._through.get(port, set()).discard(target)

    # Writing

    @property
    def overflow(self) -> int:
        """How many routes the map has no room for: packets that they are for go the slow way."""
        return sum(len(keys) for keys in self._overflow.values())

    def _write(self, target: Target) -> None:
        if isinstance(target, int):
            self._write_default(target)
        elif self._try(target):
            self._overflow.get(target[3], set()).discard(target)
            self._settle(target[3])

    def _try(self, key: bytes) -> bool:
        """Writes one route; when there is no room its whole type becomes the slow path's."""
        try:
            self._sink.set_route(key, self.resolve(key))
        except TableFullError:
            missing = self._overflow.setdefault(key[3], set())
            missing.add(key)
            if len(missing) == 1:
                self._write_default(key[3])
            return False
        return True

    def _retry(self) -> None:
        """There is room for one route again."""
        for kind, missing in tuple(self._overflow.items()):
            for key in missing:
                if self._try(key):
                    missing.discard(key)
                    self._settle(kind)
                return

    def _settle(self, kind: int) -> None:
        """The default of a type means what it says again once no route is missing."""
        if kind in self._overflow and not self._overflow[kind]:
            del self._overflow[kind]
            self._write_default(kind)

    def _write_default(self, kind: int) -> None:
        if self._overflow.get(kind):
            self._sink.set_default(kind, Route(Kind.PASS))
        elif kind in self._entries:
            self._sink.set_default(kind, self.resolve(kind))
        else:
            self._sink.set_default(kind, None)

    def resolve(self, target: Target) -> Route:
        """The engine's form of a route that was set, by what is known of ports and neighbours now."""
        entry = self._entries[target]
        if entry.port == SELF:
            return self._delivery(entry.deliver)
        if entry.port == DISCARD:
            return Route(Kind.DISCARD, slot=target if isinstance(target, int) else target[3])
        if entry.port < 0:
            return Route(Kind.FALLBACK)
        port = self._ports.get(entry.port)
        if port is None or not port.up:
            return Route(Kind.PASS)
        nexthop = entry.nexthop or (target if isinstance(target, bytes) else b"")
        if port.internal or nexthop[:4] == _FID:
            mac: bytes | None = BROADCAST
        else:
            mac = self._neighbours.get((entry.port, nexthop))
        if mac is None:
            return Route(Kind.PASS)
        return Route(Kind.FORWARD, port.ifindex, entry.port, mac, port.mac, port.mtu or NO_LIMIT)

    def _delivery(self, index: int) -> Route:
        """Local XIDs: to the applications behind an internal port, else to the node process."""
        port = self._ports.get(index)
        if port is None or not (port.internal and port.up):
            return Route(Kind.SELF)
        return Route(Kind.SELF, port.ifindex, index, BROADCAST, port.mac, port.mtu or NO_LIMIT)
