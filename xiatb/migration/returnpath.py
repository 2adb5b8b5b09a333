"""An observer of QEMU's return path (destination to source): the page requests of a post-copy.

Messages are be16 type, be16 length, data (QEMU 7.2 migration/migration.c; reference/migration.md section 4).
Each request goes into the ledger, which measures the time until the page passes: the latency of a fault.
"""

from __future__ import annotations

import struct
from typing import Final

from xiatb.migration.pageledger import PageLedger

_REQ_PAGES_ID: Final = 3
_REQ_PAGES: Final = 4
_RECV_BITMAP: Final = 5
_KINDS: Final = range(1, 7)
_RANGE = struct.Struct(">QI")


class ReturnPath:
    """Feed it the bytes of the memory channel from destination to source, in order. `shut` is the status of
    the SHUT message (0: the destination has loaded everything), None before it."""

    def __init__(self, ledger: PageLedger) -> None:
        self.ledger = ledger
        self.off = ""
        self.requests = 0
        self.shut: int | None = None
        self._buffer = bytearray()
        self._block = ""

    def feed(self, data: bytes) -> None:
        """Look at the next bytes. Never raises."""
        if self.off:
            return
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= 4 and not self.off:
            kind, size = struct.unpack_from(">HH", self._buffer, at)
            if kind not in _KINDS:
                self.off = f"unknown message {kind}"
                break
            if len(self._buffer) - at < 4 + size:
                break
            self._message(kind, bytes(self._buffer[at + 4 : at + 4 + size]))
            at += 4 + size
        del self._buffer[:at]

    def resumed(self) -> None:
        """The next bytes come from a new channel: part of a message from the old one is forgotten."""
        self._buffer.clear()
        self.off = ""

    def _message(self, kind: int, body: bytes) -> None:
        if kind == 1 and len(body) == 4:
            self.shut = int.from_bytes(body, "big")
        elif kind == _RECV_BITMAP:
            # The bitmap itself follows without a length that we could check: nothing to be measured in it.
            self.off = "a bitmap of received pages follows"
        elif kind in (_REQ_PAGES, _REQ_PAGES_ID) and len(body) >= _RANGE.size:
            offset, size = _RANGE.unpack_from(body)
            if kind == _REQ_PAGES_ID and len(body) > _RANGE.size:
                name = body[_RANGE.size + 1 : _RANGE.size + 1 + body[_RANGE.size]]
                self._block = name.decode("ascii", "replace")
            self.requests += 1
            self.ledger.requested(self._block, offset, size)
