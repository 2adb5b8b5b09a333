"""What the eBPF program knows of a route, and the layouts it shares with `xip.bpf.c`."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

ROUTE_LEN = 32
NO_LIMIT = 0xFFFFFFFF
"""MTU of a port that takes everything."""

_ROUTE = struct.Struct("=IIII6s6sI")
_PORT = struct.Struct("=II")
_NO_TRANSIT = 1


class Kind(IntEnum):
    """What to do with a packet for an XID (`enum kind` of xip.bpf.c)."""

    NONE = 0
    """No default for this type; not for a route."""
    FORWARD = 1
    """Send it out: the hop limit counts."""
    SELF = 2
    """It is this node's: go on from it, or deliver (to `ifindex`; 0: to the node process, by passing it)."""
    PASS = 3
    """Leave it to the slow path."""
    DISCARD = 4
    FALLBACK = 5
    """Try the next edge, as if there were no route (but without asking for a default)."""


class Route(NamedTuple):
    """Where packets for an XID go.

    ifindex, slot: the egress interface and the number its traffic is counted under (of a route to DISCARD:
    the principal type, whose drops are counted); dst, src: MAC addresses (6 bytes) that frames get; mtu:
    largest XIP packet there, octets.
    """

    kind: Kind
    ifindex: int = 0
    slot: int = 0
    dst: bytes = bytes(6)
    src: bytes = bytes(6)
    mtu: int = NO_LIMIT

    def pack(self) -> bytes:
        """`struct route`, 32 bytes."""
        return _ROUTE.pack(self.kind, self.ifindex, self.mtu, self.slot, self.dst, self.src, 0)


def pack_port(slot: int, transit: bool) -> bytes:
    """`struct port`: the number to count under; whether packets that come in there may be forwarded."""
    return _PORT.pack(slot, 0 if transit else _NO_TRANSIT)


class Reason(IntEnum):
    """Why a packet was not forwarded (`enum reason` of xip.bpf.c): dropped up to DISCARDED, else passed."""

    BAD_VERSION = 0
    BAD_NODES = 1
    BAD_LENGTH = 2
    BAD_LAST = 3
    DISCARDED = 4
    FOREIGN = 5
    """Passed: not for this interface's Ethernet address, or with a VLAN tag."""
    NO_ROUTE = 6
    LOCAL = 7
    """Passed: for the node process."""
    EXCEPTED = 8
    """Passed: the route says so (neighbour unknown, port down, table incomplete)."""
    TRANSIT = 9
    """Passed: an end host does not forward."""
    HOP_LIMIT = 10
    TOO_BIG = 11
    FAILED = 12
    """Passed: the kernel had no memory to change the packet."""

    @property
    def dropped(self) -> bool:
        """Whether such packets end here; the others reach the node's own sockets."""
        return self <= Reason.DISCARDED


COUNTERS_LEN = 8 * (5 + len(Reason))


class Counters(NamedTuple):
    """Totals of one port. rx: came in there and were sent on (octets as they came, with padding); tx: left
    there; dropped_bytes: octets of those dropped; reasons: came in, were not sent on."""

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    dropped_bytes: int
    reasons: dict[Reason, int]

    def since(self, before: Counters) -> Counters:
        """What has been added to an earlier reading."""
        return Counters(
            self.rx_packets - before.rx_packets,
            self.rx_bytes - before.rx_bytes,
            self.tx_packets - before.tx_packets,
            self.tx_bytes - before.tx_bytes,
            self.dropped_bytes - before.dropped_bytes,
            {reason: count - before.reasons[reason] for reason, count in self.reasons.items()},
        )


def sum_counters(values: bytes) -> Counters:
    """Counters from the values of all CPUs, `struct counters` one after another."""
    by_cpu = struct.iter_unpack(f"={COUNTERS_LEN // 8}Q", values)
    rx, rx_bytes, tx, tx_bytes, dropped, *reasons = (sum(column) for column in zip(*by_cpu, strict=True))
    return Counters(rx, rx_bytes, tx, tx_bytes, dropped, dict(zip(Reason, reasons, strict=True)))
