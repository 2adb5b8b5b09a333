"""Finds the Ethernet addresses of neighbours and addresses frames to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_positive, to_seconds, to_text
from xiatb.click.context import Timer
from xiatb.click.element import ReadHandler, WriteHandler, listing, shows, zeroes
from xiatb.click.errors import HandlerError
from xiatb.click.flows import Trace
from xiatb.click.packet import ETHER_LEN, REASON_NEIGHBOUR, Packet
from xiatb.click.waiting import Querier
from xiatb.errors import WireError
from xiatb.wire import xarp
from xiatb.wire.xid import XID

_HID = b"\0\0\0\x11"
_FID = b"\0\0\0\x30"
_BROADCAST = b"\xff" * 6
_XIP = b"\xc0\xde"
_XARP = b"\x99\x90"
MAX_ENTRIES = 4096
NeighbourWatcher = Callable[[bytes, bytes | None], None]
"""Told of a neighbour's 24-byte key and its address, None when that is not known any more."""


class _Neighbour:
    """What is known of one neighbour: its address, since when, and since when we ask again."""

    __slots__ = ("confirmed", "mac", "polled")

    def __init__(self, mac: bytes, now: float) -> None:
        self.mac = mac
        self.confirmed = now
        self.polled = now


class XARPQuerier(Querier):
    """Writes the Ethernet header for the neighbour that a packet's `nexthop` annotation names (a HID).

    Input 0: XIP packets to send. Input 1: XARP frames received; replies, asked for or not, teach
    addresses, and so do requests for this node. Output 0: frames to send, XARP requests among them.
    Output 1: packets whose neighbour did not answer TRIES requests, RETRY apart, with the reason
    annotation for XCMP "host unreachable" (dropped when not connected).

    While an address is sought up to CAPACITY packets wait, 64 for one neighbour; the oldest go first.
    An address is asked for again, by unicast, when it is POLL old, and forgotten after TIMEOUT without
    confirmation. A next hop of type FID is the Ethernet broadcast.
    """

    __slots__ = (
        "capacity", "changed", "drops", "headers", "malformed", "neighbours", "poll", "queries", "replies",
        "sweeping", "timeout",
    )  # fmt: skip
    ARGS = (
        Arg("DEVNAME", to_text, "port whose address is the source", REQUIRED),
        Arg("CAPACITY", to_positive, "packets that may wait for addresses", 2048, positional=False),
        Arg("RETRY", to_seconds, "time between requests", 0.3, positional=False),
        Arg("TRIES", to_positive, "requests before giving up", 3, positional=False),
        Arg("TIMEOUT", to_seconds, "how long an address holds without confirmation", 300.0, positional=False),
        Arg("POLL", to_seconds, "age at which an address is asked for again", 60.0, positional=False),
    )
    capacity: int
    timeout: float
    poll: float

    def configure(self, args: dict[str, Any]) -> None:
        """Take the times and sizes."""
        super().configure(args)
        self.queries = self.replies = self.drops = self.malformed = 0
        self.headers: dict[bytes, bytes] = {}
        self.neighbours: dict[bytes, _Neighbour] = {}
        self.sweeping: Timer | None = None
        self.changed: NeighbourWatcher | None = None

    def cleanup(self) -> None:
        """Stop the timers."""
        if self.sweeping is not None:
            self.sweeping.cancel()
        super().cleanup()

    def receive(self, p: Packet) -> None:
        """Address a packet, or keep it until its neighbour is known."""
        nexthop = p.nexthop
        header = self.headers.get(nexthop)  # type: ignore[arg-type]
        if header is not None:
            p.data[:ETHER_LEN] = header
            self.out0(p)
        elif nexthop is None or nexthop[:4] != _HID:
            if nexthop is not None and nexthop[:4] == _FID:
                p.data[:ETHER_LEN] = _BROADCAST + self.mac + _XIP
                self.out0(p)
            else:
                self._fail(p)
        else:
            self._wait(nexthop, p)

    def trace(self, port: int, trace: Trace) -> int | None:
        """Packets for a neighbour whose address is known pass."""
        header = self.headers.get(trace.packet.nexthop or b"")
        if header is None or port != 0:
            return None
        trace.packet.data[:ETHER_LEN] = header
        return 0

    def _wait(self, key: bytes, p: Packet) -> None:
        """Keep a packet, unless too many wait already."""
        if self.waiting.packets >= self.capacity:
            self.drops += 1
        else:
            self.drops += self.waiting.add(key, p)

    def _ask(self, key: bytes) -> None:
        self._query(key, _BROADCAST)

    def _query(self, key: bytes, dst: bytes) -> None:
        self.queries += 1
        body = xarp.request(self.mac, self.ctx.hid, key)
        self.out0(Packet(bytearray(dst + self.mac + _XARP + body)))

    def _fail(self, p: Packet) -> None:
        self.drops += 1
        if self.failed is not None:
            p.reason = REASON_NEIGHBOUR
            self.failed(p)

    def _learn(self, p: Packet) -> None:
        """An XARP frame came in."""
        try:
            message = xarp.parse(p.data, ETHER_LEN)
        except WireError:
            self.malformed += 1
            return
        if message.sha[0] & 1 or message.spa[:4] != _HID or message.spa == self.ctx.hid:
            self.malformed += 1
            return
        if message.op == xarp.REPLY:
            self.replies += 1
        elif message.tpa != self.ctx.hid and message.spa not in self.neighbours:
            return
        self._store(message.spa, message.sha)

    # -- for the node ---------------------------------------------------------------------------
    def insert(self, key: bytes, mac: bytes) -> None:
        """A neighbour's address (6 octets) is known; packets that wait for it go."""
        self.sched.enter_task(lambda: self._store(key, mac))

    def forget(self, key: bytes) -> None:
        """A neighbour has gone; the next packet for it asks anew."""
        self.headers.pop(key, None)
        self.forget_flows()
        if self.neighbours.pop(key, None) is not None and self.changed is not None:
            self.changed(key, None)

    def watch(self, changed: NeighbourWatcher) -> None:
        """Tell `changed` every neighbour from now on, those that are known first."""
        self.changed = changed
        for key, neighbour in self.neighbours.items():
            changed(key, neighbour.mac)

    def _store(self, key: bytes, mac: bytes) -> None:
        if key not in self.neighbours and len(self.neighbours) >= MAX_ENTRIES:
            self.forget(next(iter(self.neighbours)))
        self.neighbours[key] = _Neighbour(bytes(mac), self.ctx.now())
        header = bytes(mac) + self.mac + _XIP
        if self.headers.get(key) != header:
            self.headers[key] = header
            self.forget_flows()
        if self.changed is not None:
            self.changed(key, bytes(mac))
        if self.sweeping is None:
            self._schedule_sweep()
        for p in self.waiting.take(key):
            p.nexthop = key
            self.receive(p)

    def _schedule_sweep(self) -> None:
        self.sweeping = self.timer(min(self.poll, self.timeout) / 4, self._sweep)

    def _sweep(self) -> None:
        """Forget what is too old, ask again for what is old. Runs only while there are entries."""
        now = self.ctx.now()
        self.sweeping = None
        for key, neighbour in list(self.neighbours.items()):
            if now - neighbour.confirmed >= self.timeout:
                self.forget(key)
            elif now - neighbour.polled >= self.poll:
                neighbour.polled = now
                self._query(key, neighbour.mac)
        if self.neighbours:
            self._schedule_sweep()

    # -- handlers -------------------------------------------------------------------------------
    def table_text(self) -> str:
        """`HID MAC AGE`, one a line."""
        now = self.ctx.now()
        lines = [
            f"{XID.from_key(key)} {neighbour.mac.hex(':')} {now - neighbour.confirmed:.1f}"
            for key, neighbour in sorted(self.neighbours.items())
        ]
        return listing(lines)

    def _insert_text(self, value: str) -> None:
        words = value.split()
        try:
            key, mac = XID.parse(words[0]).key, bytes.fromhex(words[1].replace(":", ""))
        except (WireError, ValueError, IndexError):
            raise HandlerError("expected 'HID MAC'") from None
        if len(mac) != 6:
            raise HandlerError("expected 'HID MAC'")
        self.insert(key, mac)

    def _forget_text(self, value: str) -> None:
        try:
            self.forget(XID.parse(value.strip()).key)
        except WireError as error:
            raise HandlerError(error.message) from None

    READ = {
        "table": ReadHandler(
            "addresses known: `HID MAC AGE`, one a line", lambda element, _: element.table_text()
        ),
        "count": ReadHandler("how many addresses are known", lambda element, _: str(len(element.neighbours))),
        "length": ReadHandler(
            "packets that wait for an address", lambda element, _: str(element.waiting.packets)
        ),
        "queries": shows("queries", "requests sent"),
        "replies": shows("replies", "replies received"),
        "drops": shows("drops", "packets that could not be addressed"),
        "malformed": shows("malformed", "XARP frames that cannot be read or believed"),
    }
    WRITE = {
        "insert": WriteHandler(
            "`HID MAC`: this is its address", lambda element, value: element._insert_text(value)
        ),
        "delete": WriteHandler(
            "`HID`: forget its address", lambda element, value: element._forget_text(value)
        ),
        "reset": zeroes("queries", "replies", "drops", "malformed"),
    }
