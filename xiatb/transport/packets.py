"""Packets on their way out: header templates that are made once for each pair of addresses.

An outgoing packet is (header, payload): the XIP header, the transport header and its options are one
`bytes`, the payload is a view of what the application wrote, so that the sender can hand both to
`sendmsg` without copying.
"""

from __future__ import annotations

import struct

from xiatb.wire import xip
from xiatb.wire.dag import DAG

Out = tuple[bytes, bytes | memoryview]

STREAM_HEADER = 16
STAMPED_HEADER = 28
"""XSTREAM header with the timestamp option, which every segment but RST carries."""


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
