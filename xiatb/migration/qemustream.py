"""An observer of QEMU's migration stream: counts pages as they pass (format: reference/migration.md section
4).

It only looks. Anything that it does not understand switches it off for the rest of the stream, and the
reason is kept; it never raises. Sources of the format: QEMU 7.2 migration/savevm.c and migration/ram.c.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

PAGE: Final = 4096
SETTLE_NS: Final = 200_000_000
"""How long after a pass's event its first part may be seen at the latest."""
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


@dataclass
class Part:
    """Where a part of the RAM section begins: when it was seen, what was counted before, whether the page
    order jumped back there. Passes begin at parts, because QEMU takes a new dirty bitmap only between
    them."""

    t: int
    before: tuple[int, int, int]
    wrapped: bool = False


class QemuStream:
    """Feed it the bytes of the memory channel in order; read the counters at any time.

    `tail` counts the bytes after the RAM section: device state and vmdesc. `off` says why counting has
    stopped ("tail" at its proper end). `clock` gives monotonic nanoseconds.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.zero = self.normal = self.xbzrle = 0
        self.blocks = Blocks()
        self.parts: list[Part] = []
        self.events: list[int] = []
        self.tail = 0
        self.off = ""
        self._clock = clock
        self._buffer = bytearray()
        self._at = 0
        self._step: Callable[[], None] = self._header
        self._ram_section = -1
        self._mem_left = 0
        self._fresh = False

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

    def next_pass(self, t: int) -> None:
        """QEMU's own event: a pass after the first began at `t` (monotonic nanoseconds)."""
        self.events.append(t)

    def passes(self) -> list[Pass]:
        """Pages of each pass.

        A pass begins at the first part seen after its event at which the page order jumps back, at the latest
        `SETTLE_NS` after the event; a stream without events is cut at every jump.
        """
        cuts: list[tuple[int, int, int]] = []
        for t in self.events:
            later = [part for part in self.parts if part.t >= t and (not cuts or part.before > cuts[-1])]
            wrapped = [part for part in later if part.wrapped and part.t <= t + SETTLE_NS]
            chosen = (wrapped or later)[:1]
            cuts.append(chosen[0].before if chosen else self._counts())
        if not self.events:
            cuts = [part.before for part in self.parts if part.wrapped]
        edges = [(0, 0, 0), *cuts, self._counts()]
        return [
            Pass(*(b - a for a, b in zip(low, high, strict=True)))
            for low, high in zip(edges, edges[1:], strict=False)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Totals, passes and device tail for the result file; `off` says why counting stopped early."""
        return {
            **Pass(*self._counts()).as_dict(),
            "passes": [one.as_dict() for one in self.passes()],
            "device_tail_bytes": self.tail,
            "off": "" if self.off == "tail" else self.off,
        }

    def _counts(self) -> tuple[int, int, int]:
        return self.zero, self.normal, self.xbzrle

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
            self._ram_section = number
            self._begin_part()
        elif kind in (0x02, 0x03):
            number = self._u32()
            if number != self._ram_section:
                raise _Stop(f"part of unknown section {number}")
            self._begin_part()
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
            self._place(word)
            self.normal += 1
        elif flags & _ZERO:
            self._block(flags)
            self._u8()
            self._place(word)
            self.zero += 1
        elif flags & _FULL:
            self._block(flags)
            self._skip(PAGE)
            self._place(word)
            self.normal += 1
        elif flags & _XBZRLE:
            self._block(flags)
            self._u8()
            self._skip(self._u16())
            self._place(word)
            self.xbzrle += 1
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

    def _begin_part(self) -> None:
        self.parts.append(Part(self._clock(), self._counts()))
        self._fresh = True
        self._step = self._ram

    def _place(self, word: int) -> None:
        """Note where a page lies; the first page of a part tells whether the order jumped back."""
        place = (self.blocks.order[self.blocks.current], word & ~0xFFF)
        if self._fresh:
            self._fresh = False
            self.parts[-1].wrapped = place <= self.blocks.last
        self.blocks.last = place

    def _bounded(self, size: int) -> int:
        if size > MAX_WAITING:
            raise _Stop(f"implausible length {size}")
        return size
