"""An observer of one multifd channel of QEMU: enters its pages into the ledger of the main channel.

Format: QEMU 7.2 migration/multifd.c and multifd.h (reference/migration.md section 4), all big endian:
first 64 bytes of introduction (magic, version, UUID, number of the channel), then packets: a header of 320
bytes, an offset of 8 bytes for every page that a packet could hold, and the pages. It only looks, never
raises, and says in `off` what made it stop. Zero pages go over the main channel.
"""

from __future__ import annotations

import struct
from typing import Final

from xiatb.migration.pageledger import PAGE, Block, PageLedger

MAGIC: Final = 0x11223344
VERSION: Final = 1
MAX_PAGES: Final = 1024
"""Pages a packet may hold; QEMU's own are of 128 (MULTIFD_PACKET_SIZE)."""
MAX_WAITING: Final = 64 << 20
"""Bytes of a channel that are kept for the main channel to catch up."""
_COMPRESSION: Final = 7 << 1
_SYNC: Final = 1

_INTRODUCTION = struct.Struct(">II16sB7x32x")
_HEADER = struct.Struct(">IIIIIIQ32x256s")


class MultifdStream:
    """Feed it the bytes of one channel in order. `pages` counts what it entered, `syncs` the packets at which
    QEMU lets all channels meet: one for each end of a part of the main channel's RAM section."""

    def __init__(self, ledger: PageLedger) -> None:
        self.ledger = ledger
        self.off = ""
        self.pages = 0
        self.packets = 0
        self.syncs = 0
        self.waiting = False
        """The next packet is for a RAM block that the main channel has not declared yet: feed b"" when it
        has."""
        self._buffer = bytearray()
        self._offsets: list[int] = []
        self._block: Block | None = None
        self._introduced = False
        self._meets = False

    def feed(self, data: bytes) -> None:
        """Look at the next bytes of the channel. Never raises."""
        if self.off:
            return
        self._buffer += data
        try:
            while self._step():
                pass
        except (ValueError, KeyError, IndexError, struct.error) as error:
            self.off = f"parser: {error}"
        if len(self._buffer) > MAX_WAITING:
            self.off = "pages of a RAM block that was never declared"
        if self.off:
            self._buffer.clear()

    def _step(self) -> bool:
        """Take one thing off the buffer; False when it is not complete yet, or not to be understood."""
        if self._offsets:
            return self._page()
        if not self._introduced:
            return self._introduction()
        return self._packet()

    def _introduction(self) -> bool:
        if len(self._buffer) < _INTRODUCTION.size:
            return False
        magic, version, _, _ = _INTRODUCTION.unpack_from(self._buffer)
        if magic != MAGIC or version != VERSION:
            self.off = "not a multifd channel of version 1"
            return False
        del self._buffer[: _INTRODUCTION.size]
        self._introduced = True
        return True

    def _packet(self) -> bool:
        if len(self._buffer) < _HEADER.size:
            return False
        magic, version, flags, room, used, size, _, name = _HEADER.unpack_from(self._buffer)
        if magic != MAGIC or version != VERSION:
            self.off = "no multifd packet where one was due"
        elif room > MAX_PAGES or used > room:
            self.off = f"implausible packet of {used} pages in {room}"
        elif flags & _COMPRESSION or (used and size != used * PAGE):
            self.off = "compressed pages"  # the size in a packet without pages is that of the one before
        if self.off:
            return False
        end = _HEADER.size + 8 * room
        if len(self._buffer) < end:
            return False
        if used:
            self._block = self.ledger.blocks.get(name.split(b"\0", 1)[0].decode("ascii"))
            self.waiting = self._block is None
            if self._block is None:
                return False
            # Pages are taken from the end of a reversed list: a pop costs nothing there.
            self._offsets = list(struct.unpack_from(f">{used}Q", self._buffer, _HEADER.size))[::-1]
        del self._buffer[:end]
        self.packets += 1
        self._meets = bool(flags & _SYNC)
        self._met()
        return True

    def _met(self) -> None:
        """The pages of a packet with a SYNC are all here."""
        if self._meets and not self._offsets:
            self._meets = False
            self.syncs += 1

    def _page(self) -> bool:
        if len(self._buffer) < PAGE or self._block is None:
            return False
        whole = min(len(self._offsets), len(self._buffer) // PAGE)
        with memoryview(self._buffer) as view:
            for at in range(whole):
                with view[at * PAGE : (at + 1) * PAGE] as page:
                    self.ledger.whole(self._block, self._offsets.pop(), page)
        del self._buffer[: whole * PAGE]
        self.pages += whole
        self._met()
        return True
