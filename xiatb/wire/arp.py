"""ARP for IPv4 on Ethernet (RFC 826): 28 bytes behind the Ethernet header, type 0x0806."""

from __future__ import annotations

import struct
from typing import NamedTuple

from xiatb.errors import WireError
from xiatb.wire.xip import Buffer

ETH_P_ARP = 0x0806
REQUEST, REPLY = 1, 2
LEN = 28
_ARP = struct.Struct(">HHBBH6s4s6s4s")
_HEAD = (1, 0x0800, 6, 4)


class Arp(NamedTuple):
    """One message: `op`, then sender and target, each an Ethernet (6 bytes) and an IPv4 address (4)."""

    op: int
    sha: bytes
    spa: bytes
    tha: bytes
    tpa: bytes

    def pack(self) -> bytes:
        """Return the 28 bytes."""
        return _ARP.pack(*_HEAD, self.op, self.sha, self.spa, self.tha, self.tpa)


def parse(buf: Buffer, off: int = 0) -> Arp:
    """Return the message at `off`, padding behind it aside. Raises WireError for anything but IPv4's."""
    if len(buf) - off < LEN:
        raise WireError(f"an ARP message of {len(buf) - off} bytes, {LEN} needed")
    found = _ARP.unpack_from(buf, off)
    if found[:4] != _HEAD or found[4] not in (REQUEST, REPLY):
        raise WireError("an ARP message that is not of IPv4 on Ethernet")
    return Arp(*found[4:])
