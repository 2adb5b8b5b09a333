"""XDGRAM, the datagram header: four bytes, `nxt u8, off u8=1, pad u16` (xia-core xiadatagramheader.hh).

There are no ports (the SIDs are the ends), no length (XIP's plen) and no checksum.
"""

from __future__ import annotations

from xiatb.errors import WireError
from xiatb.wire.xip import NXT_DATA, Buffer

LEN = 4
HEADER = b"\x00\x01\x00\x00"
"""The header in front of plain data."""


def pack(payload: Buffer, nxt: int = NXT_DATA) -> bytes:
    """Return header and payload."""
    return bytes((nxt, 1, 0, 0)) + bytes(payload)


def parse(buf: Buffer, off: int = 0) -> tuple[int, int]:
    """Return (nxt, offset of what follows) of the header at `off`; WireError when it is cut."""
    if len(buf) - off < LEN:
        raise WireError(f"XDGRAM header of {len(buf) - off} bytes, {LEN} needed")
    words = buf[off + 1]
    if words < 1 or off + 4 * words > len(buf):
        raise WireError(f"XDGRAM header of {4 * words} bytes does not fit {len(buf) - off}")
    return buf[off], off + 4 * words
