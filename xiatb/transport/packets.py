"""Packets on their way out: header templates that are made once for each pair of addresses.

An outgoing packet is (header, payload): the XIP header, the transport header and its options are one
`bytes`, the payload is a view of what the application wrote, so that the sender can hand both to
`sendmsg` without copying.  A train is (header, payload, mss): stream segments in a row that are cut only
where they are sent (segmentation offload).  The header is that of the first; segment i of the train,
payload[i * mss : (i + 1) * mss], has its own `plen` and sequence number, and PSH is the last one's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from xiatb.wire import xip
from xiatb.wire.dag import DAG, NODE_LEN
from xiatb.wire.xstream import PUSH

Packet = tuple[bytes, bytes | memoryview]
Out = Packet | tuple[bytes, bytes | memoryview, int]

STREAM_HEADER = 16
STAMPED_HEADER = 28
"""XSTREAM header with the timestamp option, which every segment but RST carries."""


def payload_offset(header: bytes | bytearray | memoryview) -> int:
    """Where the transport header begins behind an XIP header that has been checked."""
    return xip.FIXED_LEN + NODE_LEN * (header[5] + header[6])


def segments(header: bytes, payload: bytes | memoryview, mss: int) -> Iterator[Packet]:
    """The packets of a train, in order; the payloads are views."""
    view = memoryview(payload)
    at = payload_offset(header)
    first = int.from_bytes(header[at + 4 : at + 8], "big")
    for start in range(0, len(view), mss):
        share = view[start : start + mss]
        own = bytearray(header)
        own[2:4] = (len(header) - at + len(share)).to_bytes(2, "big")
        own[at + 4 : at + 8] = ((first + start) & 0xFFFFFFFF).to_bytes(4, "big")
        if start + mss < len(view):
            own[at + 3] &= ~PUSH & 0xFF
        yield bytes(own), share


def lone_packets(outs: Iterable[Out]) -> Iterator[Packet]:
    """What goes over the wire of what `transmit` gave: trains cut into their packets."""
    for out in outs:
        if len(out) == 2:
            yield out
        else:
            yield from segments(*out)


def stretches(packets: Iterable[Packet]) -> list[tuple[bytes, int, int, int]]:
    """(destination intent, wire sequence, payload bytes, packets) of packets that follow each other."""
    found: list[tuple[bytes, int, int, int]] = []
    for header, payload in packets:
        at = xip.FIXED_LEN + NODE_LEN * header[5]
        peer = bytes(header[at - NODE_LEN : at - 4])
        at += NODE_LEN * header[6]
        seq = int.from_bytes(header[at + 4 : at + 8], "big")
        if found:
            last, begin, size, count = found[-1]
            if last == peer and (begin + size) & 0xFFFFFFFF == seq:
                found[-1] = (peer, begin, size + len(payload), count + 1)
                continue
        found.append((peer, seq, len(payload), 1))
    return found


class HeaderTemplate:
    """The constant parts of a stream's packets from one DAG to another.

    `stamped(head, plen, rest, 0, 7, flags, seq, ack, win, 8, 3, 0, tsval, tsecr)` and
    `bare(head, plen, rest, 0, words, flags, seq, ack, win)` give whole headers (xia.md 1.2, 4.1).
    """

    __slots__ = ("bare", "head", "length", "rest", "stamped")

    def __init__(self, local: DAG, remote: DAG) -> None:
        """`local` becomes the source address, `remote` the destination."""
        whole = xip.build_header(xip.NXT_XSTREAM, remote, local, 0)
        self.head = whole[:2]
        self.rest = whole[4:]
        self.length = len(whole)
        layout = f">2sH{len(self.rest)}sBBHIII"
        self.bare = struct.Struct(layout).pack
        self.stamped = struct.Struct(layout + "BBHII").pack
