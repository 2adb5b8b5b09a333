"""Extension headers: what stands between an XIP header and the data.

Every extension and transport header begins `nxt u8, off u8`, off being its length in 4-byte
words; the chain ends at nxt = DATA (xia-core xiadatagramheader.hh:24-62). XCMP is no part of it,
it has a layout of its own. The FID header (12 bytes, xiafidheader.hh:12-20) carries the sequence
and time by which floods are deduplicated.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from xiatb.errors import WireError
from xiatb.wire.xip import NXT_DATA, NXT_XCMP, Buffer

MAX_CHAIN = 8
FID_LEN = 12
_FID = struct.Struct(">BBHII")


class Extension(NamedTuple):
    """One header of the chain: its number and where it lies (`end` is the start of what follows)."""

    kind: int
    start: int
    end: int


def chain(nxt: int, buf: Buffer, start: int, end: int) -> tuple[list[Extension], int]:
    """Return the headers between `start` and `end` of `buf` and the offset of the data behind them.

    `nxt` is the XIP header's. An XCMP message ends the chain, it is left as data. Raises WireError
    when a header is cut, too short, or the chain has more than 8.
    """
    found: list[Extension] = []
    at = start
    while nxt not in (NXT_DATA, NXT_XCMP):
        if at + 2 > end:
            raise WireError(f"extension header {nxt} truncated")
        length = 4 * buf[at + 1]
        if length == 0 or at + length > end:
            raise WireError(f"extension header {nxt} of {length} bytes does not fit {end - at}")
        if len(found) == MAX_CHAIN:
            raise WireError(f"more than {MAX_CHAIN} extension headers")
        found.append(Extension(nxt, at, at + length))
        nxt = buf[at]
        at += length
    return found, at


class Fid(NamedTuple):
    """The FID extension header: next header, sequence u32, timestamp u32 (unix seconds)."""

    nxt: int
    seq: int
    timestamp: int


def pack_fid(nxt: int, seq: int, timestamp: int) -> bytes:
    """Return a FID header in front of header `nxt`; numbers are taken modulo 2**32."""
    return _FID.pack(nxt, FID_LEN // 4, 0, seq & 0xFFFFFFFF, timestamp & 0xFFFFFFFF)


def parse_fid(buf: Buffer, off: int = 0) -> Fid:
    """Return the FID header at `off`; WireError when cut or of another length."""
    if len(buf) - off < FID_LEN:
        raise WireError(f"FID header of {len(buf) - off} bytes, {FID_LEN} needed")
    nxt, words, _, seq, timestamp = _FID.unpack_from(buf, off)
    if words != FID_LEN // 4:
        raise WireError(f"FID header of {4 * words} bytes, not {FID_LEN}")
    return Fid(nxt, seq, timestamp)
