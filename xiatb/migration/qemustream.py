"""An observer of QEMU's migration stream: counts pages as they pass (format: reference/migration.md section
4).

It only looks. Anything that it does not understand switches it off for the rest of the stream, and the
reason is kept; it never raises. Sources of the format: QEMU 7.2 migration/savevm.c and migration/ram.c.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

PAGE: Final = 4096
MAX_WAITING: Final = 1 << 20
"""A record longer than this is not one of ours: give up rather than store it."""

_U64 = struct.Struct(">Q")
_U32 = struct.Struct(">I")
_U16 = struct.Struct(">H")

_ZERO, _MEM_SIZE, _FULL, _EOS, _CONTINUE, _XBZRLE = 0x02, 0x04, 0x08, 0x10, 0x20, 0x40
_PAGE_CONT = _FULL | _CONTINUE


class _Need(Exception):  # noqa: N818 - control flow inside this module, not an error
    """The record is not complete yet."""


class _Stop(Exception):  # noqa: N818 - control flow inside this module
    """The stream has something unknown, or its opaque tail begins."""


@dataclass
class Pass:
    """Pages of one pass over memory: zero, whole, and as a difference (xbzrle)."""

    zero: int = 0
    normal: int = 0
    xbzrle: int = 0

    def as_dict(self) -> dict[str, int]:
        """For the result file."""
        return {"zero": self.zero, "normal": self.normal, "xbzrle": self.xbzrle}


@dataclass
class Blocks:
    """RAM blocks in stream order with their sizes, and where the last page lay."""

    sizes: dict[str, int] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)
    current: str = ""
    last: tuple[int, int] = (-1, -1)


class QemuStream:
    """Feed it the bytes of the memory channel in order; read the counters at any time.

    `passes` grows when the page order wraps back (QEMU scans in block and address order) or when
    `next_pass` is told by an event. `tail` counts the bytes after the RAM section: device state and vmdesc.
    """

    def __init__(self) -> None:
        self.passes: list[Pass] = [Pass()]
        self.blocks = Blocks()
        self.tail = 0
        self.off = ""
        self.told = False
        self._buffer = bytearray()
        self._at = 0
        self._step: Callable[[], None] = self._header
        self._section = -1
        self._ram_section = -1
        self._mem_left = 0

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
                self.tail = len(self._buffer) - start
            self._buffer.clear()
            return
        except (ValueError, struct.error, IndexError, KeyError) as error:
            self._give_up(f"parser: {error}")
            return
        del self._buffer[: self._at]
        self._at = 0
        if len(self._buffer) > MAX_WAITING:
            self._give_up("a record is too long")

    def next_pass(self) -> None:
        """QEMU's own event says that a new pass begins; from now on only events count."""
        self.told = True
        last = self.passes[-1]
        if last.zero or last.normal or last.xbzrle:
            self.passes.append(Pass())

    def as_dict(self) -> dict[str, Any]:
        """Totals, passes and device tail for the result file; `off` says why counting stopped early, if it
        did."""
        total = Pass(
            sum(p.zero for p in self.passes),
            sum(p.normal for p in self.passes),
            sum(p.xbzrle for p in self.passes),
        )
        return {
            **total.as_dict(),
            "passes": [p.as_dict() for p in self.passes],
            "device_tail_bytes": self.tail,
            "off": "" if self.off == "tail" else self.off,
        }

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
            self._u16()
            self._take(self._u16())
        elif kind == 0x01:
            number, name = self._u32(), self._string()
            self._take(8)
            if name != "ram":
                raise _Stop(f"iterable section {name!r}")
            self._section = self._ram_section = number
            self._step = self._ram
        elif kind in (0x02, 0x03):
            self._section = self._u32()
            if self._section != self._ram_section:
                raise _Stop(f"part of unknown section {self._section}")
            self._step = self._ram
        elif kind == 0x7E:
            self._u32()
        elif kind in (0x04, 0x00):
            raise _Stop("tail")
        else:
            raise _Stop(f"unknown section type {kind:#x}")

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
        """One record of the RAM section, with a quick way through runs of whole pages."""
        word = self._u64()
        flags = word & 0xFFF
        if flags == _PAGE_CONT:
            self._skip(PAGE)
            self._page(word, "normal")
        elif flags & _ZERO:
            self._block(flags)
            self._u8()
            self._page(word, "zero")
        elif flags & _FULL:
            self._block(flags)
            self._skip(PAGE)
            self._page(word, "normal")
        elif flags & _XBZRLE:
            self._block(flags)
            self._u8()
            self._skip(self._u16())
            self._page(word, "xbzrle")
        elif flags & _MEM_SIZE:
            self._mem_left = word & ~0xFFF
            self._step = self._mem_block
        elif flags & _EOS:
            self._step = self._outer
        else:
            raise _Stop(f"unknown RAM record {flags:#x}")

    def _mem_block(self) -> None:
        """One entry of the block list at the start of the RAM section."""
        if self._mem_left <= 0:
            self._step = self._ram
            return
        name, size = self._string(), self._u64()
        self.blocks.order[name] = len(self.blocks.sizes)
        self.blocks.sizes[name] = size
        self._mem_left -= size

    def _block(self, flags: int) -> None:
        if not flags & _CONTINUE:
            name = self._string()
            if name not in self.blocks.order:
                raise _Stop(f"unknown RAM block {name!r}")
            self.blocks.current = name

    def _skip(self, size: int) -> None:
        if self._at + size > len(self._buffer):
            raise _Need
        self._at += size

    def _page(self, word: int, what: str) -> None:
        place = (self.blocks.order[self.blocks.current], word & ~0xFFF)
        if not self.told and place <= self.blocks.last:
            self.passes.append(Pass())
        self.blocks.last = place
        current = self.passes[-1]
        setattr(current, what, getattr(current, what) + 1)

    def _bounded(self, size: int) -> int:
        if size > MAX_WAITING:
            raise _Stop(f"implausible length {size}")
        return size
