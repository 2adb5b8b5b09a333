"""What the eBPF program must do with a frame, by the Python walk and the Click graph's rules around it."""

from __future__ import annotations

from typing import NamedTuple

from xiatb.errors import WireError
from xiatb.fastpath.mirror import PortInfo
from xiatb.fastpath.routes import Reason
from xiatb.wire import xip
from xiatb.wire.walk import DELIVER, DISCARD, UNREACHABLE, Entry, walk

REDIRECT, SHOT, UNSPEC = 7, 2, -1
ETHER = 14
BROADCAST = b"\xff" * 6
LOOPBACK = bytes(6)
"""Address of the interface that test runs pretend: frames to it, or to a group, are for us."""


class World(NamedTuple):
    """All that a node knows."""

    ports: dict[int, PortInfo]
    table: dict[bytes, Entry]
    defaults: dict[int, Entry]
    neighbours: dict[tuple[int, bytes], bytes]


class Outcome(NamedTuple):
    """tc's verdict, the frame afterwards, why it was not sent on, and the port that it left by."""

    verdict: int
    frame: bytes
    reason: Reason | None
    egress: int = -1


def expected(world: World, frame: bytes, transit: bool) -> Outcome:
    """The outcome for a frame that comes in by a port that may forward or not (an end host's)."""

    def other(reason: Reason) -> Outcome:
        return Outcome(SHOT if reason.dropped else UNSPEC, frame, reason)

    if frame[12:14] != b"\xc0\xde" or not (frame[0] & 1 or frame[:6] == LOOPBACK):
        return other(Reason.FOREIGN)
    try:
        _, plen, hlim, _, _, _, payload = xip.parse_fast(frame, ETHER)
    except WireError:
        return other(malformed(frame[ETHER:]))
    data = bytearray(frame[: payload + plen])
    verdict, entry = walk(data, ETHER, world.table, world.defaults)
    if verdict == UNREACHABLE or entry is None:
        return other(Reason.NO_ROUTE)
    if verdict == DISCARD:
        return other(Reason.DISCARDED)
    if verdict == DELIVER:
        index, mac, last_resort = entry.deliver, BROADCAST, Reason.LOCAL
        port = world.ports.get(index)
        usable = port is not None and port.internal and port.up
    else:
        index, last_resort = entry.port, Reason.EXCEPTED
        port = world.ports.get(index)
        mac = world.neighbours.get((index, entry.nexthop or hop(data, world)), b"")
        if (port is not None and port.internal) or (entry.nexthop or hop(data, world))[:4] == b"\0\0\0\x30":
            mac = BROADCAST
        usable = port is not None and port.up and mac != b""
    if not usable or port is None:
        return other(last_resort)
    if verdict != DELIVER:
        if not transit:
            return other(Reason.TRANSIT)
        if hlim <= 1:
            return other(Reason.HOP_LIMIT)
        data[ETHER + 4] -= 1
    if port.mtu and len(data) - ETHER > port.mtu:
        return other(Reason.TOO_BIG)
    data[:12] = mac + port.mac
    return Outcome(REDIRECT, bytes(data), None, index)


def hop(data: bytearray, world: World) -> bytes:
    """The XID that an exact route without next hop forwards to; a default has none to name."""
    dnode, last = data[ETHER + 5], data[ETHER + 7]
    at = ETHER + 8 + 28 * (dnode - 1 if last == 0x7E else last)
    for edge in data[at + 24 : at + 28]:
        index = edge & 0x7F
        key = bytes(data[ETHER + 8 + 28 * index :][:24])
        entry = world.table.get(key)
        if entry is not None and entry.port >= 0:
            return key
        default = world.defaults.get(int.from_bytes(key[:4], "big"))
        if entry is None and default is not None and default.port >= 0:
            return b""
    return b""


def malformed(packet: bytes) -> Reason:
    """Which of the header rules a packet breaks first, in the order of CheckXIAHeader."""
    if len(packet) < 8:
        return Reason.BAD_LENGTH
    if packet[0] != 1:
        return Reason.BAD_VERSION
    if not (0 < packet[5] <= 20 and 0 < packet[6] <= 20):
        return Reason.BAD_NODES
    if len(packet) < 8 + 28 * (packet[5] + packet[6]) + int.from_bytes(packet[2:4], "big"):
        return Reason.BAD_LENGTH
    return Reason.BAD_LAST
