"""XARP: which MAC address a neighbour's HID has (ethertype 0x9990).

Layout of xia-core V2 (clicknet/ether.h:67-92), big-endian, 68 bytes: hrd u16=1, pro u16=0xC0DE,
hln u8=6, pln u8=24, op u16, sender MAC 6, sender XID key 24, target MAC 6, target XID key 24.
Unsolicited replies are ours; xia-core's querier takes them like any reply.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from xiatb.errors import WireError
from xiatb.wire.xid import KEY_LEN
from xiatb.wire.xip import ETH_P_XIP, Buffer

REQUEST = 1
REPLY = 2
LEN = 68
BROADCAST_MAC = b"\xff" * 6
NO_MAC = bytes(6)

_FORMAT = struct.Struct(">HHBBH6s24s6s24s")


class Xarp(NamedTuple):
    """A message: operation, sender's MAC (6) and XID key (24), target's MAC and XID key."""

    op: int
    sha: bytes
    spa: bytes
    tha: bytes
    tpa: bytes


def pack(message: Xarp) -> bytes:
    """Return the 68 bytes of a message; WireError when a part has the wrong length."""
    op, sha, spa, tha, tpa = message
    if (len(sha), len(spa), len(tha), len(tpa)) != (6, KEY_LEN, 6, KEY_LEN):
        raise WireError("XARP addresses are MACs of 6 bytes and XID keys of 24")
    if not 0 <= op <= 0xFFFF:
        raise WireError(f"XARP operation {op} does not fit 16 bits")
    return _FORMAT.pack(1, ETH_P_XIP, 6, KEY_LEN, op, sha, spa, tha, tpa)


def parse(buf: Buffer, off: int = 0) -> Xarp:
    """Return the message at `off`; bytes behind it are padding. WireError for anything but XARP."""
    if len(buf) - off < LEN:
        raise WireError(f"XARP message of {len(buf) - off} bytes, {LEN} needed")
    hrd, pro, hln, pln, op, sha, spa, tha, tpa = _FORMAT.unpack_from(buf, off)
    if (hrd, pro, hln, pln) != (1, ETH_P_XIP, 6, KEY_LEN):
        raise WireError("XARP message for other than Ethernet and XIP")
    if op not in (REQUEST, REPLY):
        raise WireError(f"XARP operation {op}, neither request nor reply")
    return Xarp(op, sha, spa, tha, tpa)


def request(mac: bytes, hid: bytes, wanted: bytes) -> bytes:
    """Return the question of (mac, hid) who has the XID key `wanted`; it goes out as a broadcast."""
    return pack(Xarp(REQUEST, mac, hid, NO_MAC, wanted))


def reply(mac: bytes, hid: bytes, to_mac: bytes, to_hid: bytes) -> bytes:
    """Return the answer that `hid` is at `mac`, to the one who asked."""
    return pack(Xarp(REPLY, mac, hid, to_mac, to_hid))


def unsolicited(mac: bytes, hid: bytes) -> bytes:
    """Return the announcement, to be broadcast, that `hid` is at `mac` now (after a move)."""
    return pack(Xarp(REPLY, mac, hid, BROADCAST_MAC, hid))
