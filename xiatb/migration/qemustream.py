"""An observer of QEMU's migration stream: enters pages into a ledger as they pass (format:
reference/migration.md section 4).

It only looks. Anything that it does not understand switches it off for the rest of the stream, and the
reason is kept; it never raises. Sources of the format: QEMU 7.2 migration/savevm.c and migration/ram.c.

Pre-copy and post-copy streams are read to their ends: in the latter the device state lies in one PACKAGED
command, whose length is known, and pages go on behind it. A channel that takes a broken post-copy up again
begins with commands; `resumed` makes ready for it.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import Any, Final

from xiatb.migration.pageledger import PAGE, Block, PageLedger, report

MAX_WAITING: Final = 1 << 20
"""A record longer than this is not one of ours: give up rather than store it."""

_U64 = struct.Struct(">Q")
_U32 = struct.Struct(">I")
_U16 = struct.Struct(">H")

_ZERO, _MEM_SIZE, _FULL, _EOS, _CONTINUE, _XBZRLE = 0x02, 0x04, 0x08, 0x10, 0x20, 0x40
_PAGE_CONT = _FULL | _CONTINUE
_PACKAGED = 7
"""Command with a nested stream (the device state of a post-copy) behind it: be32 length, bytes."""
MAX_BLOCKS: Final = 256
MAX_RAM: Final = 1 << 36
"""Bytes; a stream that declares more is not believed, since a ledger takes 16 bytes a page."""
MAX_PACKAGE: Final = 1 << 25
"""More than QEMU lets a package have (savevm.c, MAX_VM_CMD_PACKAGED_SIZE)."""


class _Need(Exception):  # noqa: N818 - control flow inside this module, not an error
    """The record is not complete yet."""


class _Stop(Exception):  # noqa: N818 - control flow inside this module
    """The stream has something unknown, or its opaque tail begins."""


class QemuStream:
    """Feed it the bytes of the memory channel in order; `ledger` has the pages.

    `tail` counts the bytes that are not RAM: the device state and vmdesc behind a pre-copy's RAM section, or
    the package of a post-copy. `off` says why reading has stopped ("tail" at a pre-copy's proper end, "end"
    at a post-copy's). `clock` gives monotonic nanoseconds to a ledger made here.
    """

    def __init__(
        self, clock: Callable[[], int] = time.monotonic_ns, ledger: PageLedger | None = None
    ) -> None:
        self.ledger = PageLedger(clock) if ledger is None else ledger
        self.tail = 0
        self.off = ""
        self.postcopy = False
        """A package has been seen: from here on pages follow the device state."""
        self.ends = 0
        """Ends of parts of the RAM section; multifd channels carry a SYNC for each."""
        self._buffer = bytearray()
        self._at = 0
        self._step: Callable[[], None] = self._header
        self._ram_section = -1
        self._mem_left = 0
        self._package = 0
        self._block: Block | None = None

    def feed(self, data: bytes) -> None:
        """Look at the next bytes of the stream. Never raises."""
        if self.off:
            if self.off == "tail":
                self.tail += len(data)
            return
        self._buffer += data
        try:
            while True:
                start = self._at
                self._step()
        except _Need:
            self._at = start
        except _Stop as stop:
            self.off = str(stop)
            if self.off == "tail":
                self.tail += len(self._buffer) - start
            self._buffer.clear()
            return
        except (ValueError, struct.error, IndexError, KeyError) as error:
            self._give_up(f"parser: {error}")
            return
        del self._buffer[: self._at]
        self._at = 0
        if len(self._buffer) > MAX_WAITING:
            self._give_up("a record is too long")

    def resumed(self) -> None:
        """The next bytes come from a new channel that takes a broken post-copy up again (commands, no
        header). Part of a record from the old channel is forgotten, as QEMU forgets it."""
        if self.off not in ("", "end"):
            return
        self.off = ""
        self._buffer.clear()
        self._at = 0
        self._step = self._outer

    def next_pass(self, t: int) -> None:
        """QEMU's own event: a pass after the first began at `t` (monotonic nanoseconds)."""
        self.ledger.begin_pass(t)

    def as_dict(self) -> dict[str, Any]:
        """Totals, passes and device tail for the result file; `off` says why counting stopped early."""
        return report(self.ledger, self.tail, self.trouble)

    @property
    def trouble(self) -> str:
        """Why reading stopped before the stream's proper end; "" when it did not."""
        return "" if self.off in ("tail", "end") else self.off

    def _give_up(self, reason: str) -> None:
        self.off = reason
        self._buffer.clear()

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._buffer):
            raise _Need
        data = bytes(self._buffer[self._at : end])
        self._at = end
        return data

    def _u8(self) -> int:
        return self._take(1)[0]

    def _u16(self) -> int:
        return int(_U16.unpack(self._take(2))[0])

    def _u32(self) -> int:
        return int(_U32.unpack(self._take(4))[0])

    def _u64(self) -> int:
        return int(_U64.unpack(self._take(8))[0])

    def _string(self) -> str:
        return self._take(self._u8()).decode("ascii")

    def _header(self) -> None:
        if self._take(8) != b"QEVM\x00\x00\x00\x03":
            raise _Stop("not a QEMU stream of version 3")
        self._step = self._outer

    def _outer(self) -> None:
        """One section of the stream."""
        kind = self._u8()
        if kind == 0x07:
            self._take(self._bounded(self._u32()))
            self._step = self._configuration
        elif kind == 0x08:
            self._command()
        elif kind == 0x01:
            number, name = self._u32(), self._string()
            self._take(8)
            if name != "ram":
                raise _Stop(f"iterable section {name!r}")
            self._ram_section = number
            self._begin_part()
        elif kind in (0x02, 0x03):
            number = self._u32()
            if number != self._ram_section:
                raise _Stop(f"part of unknown section {number}")
            self._begin_part()
        elif kind == 0x7E:
            self._u32()
        elif kind == 0x00 and self.postcopy:
            raise _Stop("end")
        elif kind in (0x04, 0x00):
            raise _Stop("tail")
        else:
            raise _Stop(f"unknown section type {kind:#x}")

    def _command(self) -> None:
        """A command: be16 number, be16 length, data; a package has its bytes behind that."""
        number = self._u16()
        data = self._take(self._u16())
        if number != _PACKAGED:
            return
        self._package = int(_U32.unpack(data)[0])
        if self._package > MAX_PACKAGE:
            raise _Stop(f"implausible package of {self._package} bytes")
        self.postcopy = True
        self._step = self._packaged

    def _packaged(self) -> None:
        """Pass over what is left of the package; its inside is device state."""
        if not self._package:
            self._step = self._outer
            return
        size = min(self._package, len(self._buffer) - self._at)
        if not size:
            raise _Need
        self._at += size
        self.tail += size
        self._package -= size

    def _configuration(self) -> None:
        """Subsections of the configuration; a section type is never 0x05, so one byte tells."""
        if self._u8() != 0x05:
            self._at -= 1
            self._step = self._outer
            return
        name = self._string()
        self._u32()
        if name == "configuration/target-page-bits":
            self._u32()
        elif name == "configuration/capabilities":
            for _ in range(self._bounded(self._u32())):
                self._string()
        elif name == "configuration/uuid":
            self._take(16)
        else:
            raise _Stop(f"unknown subsection {name!r}")

    def _ram(self) -> None:
        """One record of the RAM section: be64 of offset and flags, block name unless it continues, body."""
        word = self._u64()
        flags = word & 0xFFF
        if flags == _PAGE_CONT or flags & _FULL and not flags & (_ZERO | _MEM_SIZE | _EOS):
            block = self._of(flags)
            at = self._at
            self._skip(PAGE)
            with memoryview(self._buffer) as view, view[at : at + PAGE] as page:
                self.ledger.whole(block, word & ~0xFFF, page)
        elif flags & _ZERO:
            block = self._of(flags)
            self._u8()
            self.ledger.zero(block, word & ~0xFFF)
        elif flags & _XBZRLE:
            block = self._of(flags)
            self._u8()
            self.ledger.delta(block, word & ~0xFFF, self._take(self._u16()))
        elif flags & _MEM_SIZE:
            self._mem_left = word & ~0xFFF
            if self._mem_left > MAX_RAM:
                raise _Stop(f"implausible guest memory of {self._mem_left} bytes")
            self._step = self._mem_block
        elif flags & _EOS:
            self.ends += 1
            self._step = self._outer
        else:
            raise _Stop(f"unknown RAM record {flags:#x}")

    def _mem_block(self) -> None:
        """One entry of the block list at the start of the RAM section."""
        if self._mem_left <= 0:
            self._step = self._ram
            return
        name, size = self._string(), self._u64()
        blocks = self.ledger.blocks.values()  # of all lists: there may be several
        known = sum(block.size for block in blocks if block.name != name)
        if not 0 < size <= min(self._mem_left, MAX_RAM - known) or len(blocks) >= MAX_BLOCKS:
            raise _Stop(f"implausible RAM block {name!r} of {size} bytes")
        self.ledger.declare(name, size)
        self._mem_left -= size

    def _of(self, flags: int) -> Block:
        """The block that a record is about."""
        if not flags & _CONTINUE:
            name = self._string()
            if name not in self.ledger.blocks:
                raise _Stop(f"unknown RAM block {name!r}")
            self._block = self.ledger.blocks[name]
        if self._block is None:
            raise _Stop("a record continues nothing")
        return self._block

    def _skip(self, size: int) -> None:
        if self._at + size > len(self._buffer):
            raise _Need
        self._at += size

    def _begin_part(self) -> None:
        self.ledger.begin_part()
        self._step = self._ram

    def _bounded(self, size: int) -> int:
        if size > MAX_WAITING:
            raise _Stop(f"implausible length {size}")
        return size
