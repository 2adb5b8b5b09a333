"""The XIP header: 8 fixed bytes, the destination's nodes, the source's nodes, the payload.

Layout of xia-core V2 (click/include/clicknet/xia.h:84-97); all integers big-endian:

    0 ver=1   1 nxt   2 plen u16   4 hlim   5 dnode   6 snode   7 last   8 dnode*28 snode*28 ...

`last` is the index of the last visited destination node, 0x7e at the entry. Bytes behind
header + plen (Ethernet padding) are not part of the packet.
"""

from __future__ import annotations

import struct

from xiatb.errors import WireError
from xiatb.wire.dag import DAG, ENTRY, MAX_NODES, NODE_LEN

ETH_P_XIP = 0xC0DE
ETH_P_XARP = 0x9990
ETH_P_XJOIN = 0x9991

NXT_DATA = 0
NXT_XCMP = 1
NXT_XDGRAM = 2
NXT_XSTREAM = 3
NXT_FID = 4
NXT_MIGRATE = 50
NXT_MIGRATEACK = 51

VERSION = 1
HLIM_DEFAULT = 250
FIXED_LEN = 8
MAX_PAYLOAD = 0xFFFF

Buffer = bytes | bytearray | memoryview
Fields = tuple[int, int, int, int, int, int, int]

_FIXED = struct.Struct(">BBHBBBB")
_unpack = _FIXED.unpack_from

_CACHE_SIZE = 2048
_dags: dict[bytes, DAG] = {}


def dag_of(wire: bytes) -> DAG:
    """Return the DAG of a node list, from a bounded cache when it was seen lately; WireError if bad."""
    dag = _dags.get(wire)
    if dag is None:
        dag = DAG.from_wire(wire)
        if len(_dags) >= _CACHE_SIZE:
            _dags.clear()
        _dags[wire] = dag
    return dag


def _nodes(address: DAG | Buffer, what: str) -> bytes:
    wire = address.to_wire() if isinstance(address, DAG) else bytes(address)
    count, rest = divmod(len(wire), NODE_LEN)
    if rest or not 0 < count <= MAX_NODES:
        raise WireError(f"the {what} node list has {len(wire)} bytes, not 1 to {MAX_NODES} nodes of 28")
    return wire


def build_header(
    nxt: int, dst: DAG | Buffer, src: DAG | Buffer, plen: int, *, hlim: int = HLIM_DEFAULT, last: int = ENTRY
) -> bytes:
    """Return the XIP header for a payload of `plen` bytes; addresses as DAG or node list.

    Raises WireError when a field does not fit.
    """
    there, here = _nodes(dst, "destination"), _nodes(src, "source")
    if not 0 <= plen <= MAX_PAYLOAD:
        raise WireError(f"an XIP payload of {plen} bytes does not fit 65535")
    if not (0 <= nxt <= 255 and 0 <= hlim <= 255):
        raise WireError(f"next header {nxt} or hop limit {hlim} does not fit a byte")
    dnode, snode = len(there) // NODE_LEN, len(here) // NODE_LEN
    if last != ENTRY and not 0 <= last < dnode:
        raise WireError(f"last visited node {last} is out of range, there are {dnode}")
    return _FIXED.pack(VERSION, nxt, plen, hlim, dnode, snode, last) + there + here


def build(
    nxt: int,
    dst: DAG | Buffer,
    src: DAG | Buffer,
    payload: Buffer,
    *,
    hlim: int = HLIM_DEFAULT,
    last: int = ENTRY,
) -> bytes:
    """Return a whole XIP packet; `payload` is everything behind the node lists."""
    return build_header(nxt, dst, src, len(payload), hlim=hlim, last=last) + bytes(payload)


def parse_fast(buf: Buffer, off: int = 0) -> Fields:
    """Return (nxt, plen, hlim, dnode, snode, last, payload_off) of the packet at `off`.

    Lengths and counts are checked (the payload is wholly there, dnode and snode are 1..20, `last`
    is a node or the entry), edges are not. `payload_off` counts from the start of `buf`.
    Raises WireError.
    """
    try:
        ver, nxt, plen, hlim, dnode, snode, last = _unpack(buf, off)
    except struct.error:
        raise WireError("XIP header truncated in its fixed part") from None
    payload_off = off + 8 + 28 * (dnode + snode)
    if (
        payload_off + plen > len(buf)
        or ver != 1
        or not 0 < dnode <= 20
        or not 0 < snode <= 20
        or (last >= dnode and last != 0x7E)
    ):
        raise WireError(_complaint(len(buf) - off, ver, plen, dnode, snode, last))
    return nxt, plen, hlim, dnode, snode, last, payload_off


def _complaint(length: int, ver: int, plen: int, dnode: int, snode: int, last: int) -> str:
    """Return what is wrong with a header that `parse_fast` refused."""
    if ver != VERSION:
        return f"XIP version {ver}, not 1"
    if not 0 < dnode <= MAX_NODES:
        return f"XIP destination of {dnode} nodes, not 1 to {MAX_NODES}"
    if not 0 < snode <= MAX_NODES:
        return f"XIP source of {snode} nodes, not 1 to {MAX_NODES}"
    need = FIXED_LEN + NODE_LEN * (dnode + snode)
    if need > length:
        return f"XIP header truncated: {length} bytes of {need}"
    if need + plen > length:
        return f"XIP payload truncated: {length - need} bytes of {plen}"
    return f"XIP last visited node {last} is out of range, there are {dnode}"


class Header:
    """A parsed XIP header over a buffer that it does not own; offsets count from the buffer's start."""

    __slots__ = ("buf", "off", "ver", "nxt", "plen", "hlim", "dnode", "snode", "last", "payload_off")

    def __init__(self, buf: Buffer, off: int, fields: Fields) -> None:
        self.buf = buf
        self.off = off
        self.ver = VERSION
        self.nxt, self.plen, self.hlim, self.dnode, self.snode, self.last, self.payload_off = fields

    @property
    def header_len(self) -> int:
        """Bytes of the fixed part and both node lists."""
        return self.payload_off - self.off

    @property
    def end(self) -> int:
        """Offset behind the payload; what follows is Ethernet padding."""
        return self.payload_off + self.plen

    @property
    def payload(self) -> memoryview:
        """The payload without padding, not copied. For a partial packet, as much as is there."""
        return memoryview(self.buf)[self.payload_off : self.end]

    @property
    def dst_wire(self) -> bytes:
        """The destination's node list as it is, visited bits included."""
        at = self.off + FIXED_LEN
        return bytes(self.buf[at : at + NODE_LEN * self.dnode])

    @property
    def src_wire(self) -> bytes:
        """The source's node list as it is."""
        return bytes(self.buf[self.payload_off - NODE_LEN * self.snode : self.payload_off])

    def dst(self) -> DAG:
        """Return the destination; WireError when its graph is not legal."""
        return dag_of(self.dst_wire)

    def src(self) -> DAG:
        """Return the source; WireError when its graph is not legal."""
        return dag_of(self.src_wire)

    @property
    def intent_key(self) -> bytes:
        """The 24-byte key of the destination's final intent."""
        at = self.off + NODE_LEN * self.dnode - 20
        return bytes(self.buf[at : at + 24])

    @property
    def src_intent_key(self) -> bytes:
        """The 24-byte key of the source's final intent."""
        return bytes(self.buf[self.payload_off - 28 : self.payload_off - 4])


def parse(buf: Buffer, off: int = 0) -> Header:
    """Return the header of the whole packet at `off`; padding behind it is fine. Raises WireError."""
    return Header(buf, off, parse_fast(buf, off))


def parse_partial(buf: Buffer, off: int = 0) -> Header:
    """Return the header of a packet whose payload may be cut, as XCMP errors quote it.

    `plen` stays what the header says. Raises WireError when the header itself is not whole.
    """
    try:
        ver, nxt, plen, hlim, dnode, snode, last = _unpack(buf, off)
    except struct.error:
        raise WireError("XIP header truncated in its fixed part") from None
    payload_off = off + FIXED_LEN + NODE_LEN * (dnode + snode)
    if payload_off > len(buf) or ver != VERSION or not 0 < dnode <= MAX_NODES or not 0 < snode <= MAX_NODES:
        raise WireError(_complaint(len(buf) - off, ver, 0, dnode, snode, last))
    if last >= dnode and last != ENTRY:
        raise WireError(_complaint(len(buf) - off, ver, 0, dnode, snode, last))
    return Header(buf, off, (nxt, plen, hlim, dnode, snode, last, payload_off))
