"""What forwarding is: the walk over a packet's destination DAG, the one specification.

Start at the last visited node, try its edges in priority order, look the XID up: on a match with
this node itself mark it visited and go on from it, on a port forward, with no edge left the
destination is unreachable. Nodes once visited are never left again (no back-tracking), plain
forwarding marks nothing. As in xia-core V2 (etc/click/xia_router_lib.click:59-144), but an
unknown principal type falls back to the next edge, as the architecture wants, and a route to
DISCARD drops. The Click elements and the eBPF forwarder are held against this function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# Special ports of a route (xia-core xiaxidroutetable.hh:33-40).
DISCARD = -1
SELF = -2
UNREACHABLE = -6
FALLBACK = -7

# Verdicts. UNREACHABLE and DISCARD are verdicts too, with the value of the port of that name.
FORWARD = 1
DELIVER = 2

Verdict = int

# SID, CID, NCID, ICID: owning one means the packet is for something here, whatever follows it.
_ENDPOINTS = frozenset((0x13, 0x12, 0x31, 0x32))


class Entry(NamedTuple):
    """A route: where packets for an XID go.

    `port` is an egress port or one of the special ports; `nexthop` the 24-byte HID key to resolve
    by XARP (None: the XID itself or broadcast, the sender decides); `flags` are free for routing;
    `deliver` is the port that leads to the owner of a local SID, -1 the node itself.
    """

    port: int
    nexthop: bytes | None = None
    flags: int = 0
    deliver: int = -1


def walk(
    pkt: bytearray | memoryview, off: int, table: Mapping[bytes, Entry], defaults: Mapping[int, Entry]
) -> tuple[Verdict, Entry | None]:
    """Return what to do with the XIP packet at `off` and the route that says so.

    `pkt` has passed `xip.parse_fast`; its `last` and visited bits are updated in place where nodes
    match this node. `table` maps 24-byte XID keys to routes, `defaults` XID types to the route for
    everything else of that type. Verdicts: FORWARD (to entry.port), DELIVER (here, see
    entry.deliver), DISCARD, UNREACHABLE (entry is None; also for edges that go in a circle).
    Never raises on a packet that parse_fast accepts.
    """
    count = pkt[off + 5]
    last = pkt[off + 7]
    base = off + 8
    sink = base + 28 * count - 28
    at = sink if last == 0x7E else base + 28 * last
    for _ in range(count):
        for slot in (at + 24, at + 25, at + 26, at + 27):
            index = pkt[slot] & 0x7F
            if index >= count:
                return UNREACHABLE, None
            node = base + 28 * index
            key = bytes(pkt[node : node + 24])
            entry = table.get(key)
            if entry is None:
                entry = defaults.get(int.from_bytes(key[:4], "big"))
                if entry is None:
                    continue
            port = entry.port
            if port >= 0:
                return FORWARD, entry
            if port == SELF:
                pkt[slot] |= 0x80
                pkt[off + 7] = index
                if node == sink or int.from_bytes(key[:4], "big") in _ENDPOINTS:
                    return DELIVER, entry
                at = node
                break
            if port == DISCARD:
                return DISCARD, entry
        else:
            return UNREACHABLE, None
    return UNREACHABLE, None
