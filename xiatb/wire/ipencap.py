"""XIP in IPv4: the headers in front of an XIP packet that crosses an IP network between two 4IDs.

IPv4 without options (TTL 250, DF set), UDP with port 13781 on both sides and no checksum, then the XIP packet
(xia-core elements/xia/xiaipencap.cc, xia.md 1.9). What is received may have IPv4 options and a UDP checksum,
which then must hold; fragments are refused, since nothing here puts them together.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from xiatb.errors import WireError
from xiatb.wire.xip import Buffer

PORT = 13781
TTL = 250
OVERHEAD = 28
"""Bytes of both headers."""
ETH_P_IP = 0x0800
_UDP = 17
_DF = 0x4000
_FRAGMENT = 0x3FFF
_IP = struct.Struct(">BBHHHBBH4s4s")
_HEADERS = struct.Struct(">BBHHHBBH4s4sHHHH")


class Inside(NamedTuple):
    """Where the XIP packet of a datagram lies (`start` to `end`), from and to whom it is (4 bytes each)."""

    src: bytes
    dst: bytes
    start: int
    end: int


def checksum(data: Buffer) -> int:
    """Return the Internet checksum (RFC 1071) of `data`; 0 when it holds a checksum that is right."""
    raw = bytes(data)
    if len(raw) % 2:
        raw += b"\0"
    total: int = sum(struct.unpack(f">{len(raw) // 2}H", raw))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def headers(src: bytes, dst: bytes, length: int, ident: int) -> bytes:
    """Return the 28 bytes in front of an XIP packet of `length` bytes; `ident` is IPv4's, 16 bits.

    Raises WireError when the packet does not fit.
    """
    if length + OVERHEAD > 0xFFFF:
        raise WireError(f"an XIP packet of {length} bytes does not fit IPv4")
    total, words = length + OVERHEAD, (0x4500, (TTL << 8) | _UDP)
    rest = sum(struct.unpack(">HHHH", src + dst)) + sum(words) + total + ident + _DF
    rest = (rest & 0xFFFF) + (rest >> 16)
    rest = ~((rest & 0xFFFF) + (rest >> 16)) & 0xFFFF
    return _HEADERS.pack(
        0x45, 0, total, ident, _DF, TTL, _UDP, rest, src, dst, PORT, PORT, length + 8, 0
    )  # fmt: skip


def parse(buf: Buffer, off: int = 0) -> Inside:
    """Return what is in the IPv4 packet at `off` of `buf`, padding behind it aside. Raises WireError."""
    if len(buf) - off < OVERHEAD:
        raise WireError(f"an IPv4 packet of {len(buf) - off} bytes")
    first, _, total, _, flags, _, protocol, _, src, dst = _IP.unpack_from(buf, off)
    size = 4 * (first & 15)
    if first >> 4 != 4 or size < 20 or off + total > len(buf) or total < size + 8:
        raise WireError("an IPv4 header of wrong version or length")
    if flags & _FRAGMENT:
        raise WireError("a fragment")
    if protocol != _UDP:
        raise WireError(f"IP protocol {protocol}, not UDP")
    if checksum(buf[off : off + size]):
        raise WireError("IPv4 checksum does not hold")
    start = off + size
    _, port, length, check = struct.unpack_from(">HHHH", buf, start)
    if port != PORT or length < 8 or size + length > total:
        raise WireError(f"UDP port {port} or length {length}")
    if check:
        pseudo = src + dst + struct.pack(">HH", _UDP, length)
        if checksum(pseudo + bytes(buf[start : start + length])):
            raise WireError("UDP checksum does not hold")
    return Inside(src, dst, start + 8, start + length)
