"""Packets from a capture file."""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

from xiatb.click.args import REQUIRED, Arg, to_bool, to_text
from xiatb.click.context import Context, Timer
from xiatb.click.element import Element, WriteHandler, shows
from xiatb.click.errors import ConfigError
from xiatb.click.packet import Packet

_FORMATS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1e-6), b"\xa1\xb2\xc3\xd4": (">", 1e-6),
    b"\x4d\x3c\xb2\xa1": ("<", 1e-9), b"\xa1\xb2\x3c\x4d": (">", 1e-9),
}  # fmt: skip
MAX_RECORD = 262_144
BURST = 64


class FromDump(Element):
    """Pushes the frames of FILE (pcap, Ethernet), with TIMING at the intervals at which they were
    captured, else as fast as they go. A file that ends in the middle of a record ends there;
    `malformed` tells.
    """

    __slots__ = (
        "active",
        "count",
        "file",
        "filename",
        "layout",
        "malformed",
        "start",
        "timer_",
        "timing",
        "unit",
    )
    PORTS = "0/1"
    PROCESSING = "push"
    ARGS = (
        Arg("FILENAME", to_text, "path of the file", REQUIRED),
        Arg("TIMING", to_bool, "keep the intervals of the capture", False),
        Arg("ACTIVE", to_bool, "whether it sends from the start", True, positional=False),
    )
    READ = {
        "count": shows("count", "packets pushed"),
        "malformed": shows("malformed", "1 when the file ended in the middle of a record"),
        "active": shows("active", "whether there is more to come"),
    }
    WRITE = {"active": WriteHandler("turn it on or off", lambda element, value: element.turn(value))}
    filename: str
    timing: bool
    active: bool

    def configure(self, args: dict[str, Any]) -> None:
        """Take the path."""
        super().configure(args)
        self.count = self.malformed = 0
        self.file: BinaryIO | None = None
        self.timer_: Timer | None = None
        self.start: float | None = None

    def initialize(self, ctx: Context) -> None:
        """Open the file and read its header."""
        try:
            self.file = open(self.filename, "rb")  # noqa: SIM115
            head = self.file.read(24)
        except OSError as error:
            raise ConfigError(f"cannot read {self.filename}: {error.strerror}") from None
        if len(head) < 24 or head[:4] not in _FORMATS:
            raise ConfigError(f"{self.filename} is not a pcap file")
        order, self.unit = _FORMATS[head[:4]]
        self.layout = struct.Struct(order + "IIII")
        if struct.unpack_from(order + "I", head, 20)[0] & 0xFFFF != 1:
            raise ConfigError(f"{self.filename} does not hold Ethernet frames")
        if self.active:
            self.sched.wake(self._run)

    def cleanup(self) -> None:
        """Close the file."""
        if self.timer_ is not None:
            self.timer_.cancel()
        if self.file is not None:
            self.file.close()
            self.file = None

    def turn(self, value: str) -> None:
        """Write handler `active`."""
        was, self.active = self.active, to_bool(value.strip())
        if self.active and not was:
            self.sched.wake(self._run)

    def _record(self) -> tuple[float, bytearray] | None:
        """The next record: its time and octets."""
        if self.file is None:
            return None
        head = self.file.read(16)
        if len(head) < 16:
            self.malformed = int(bool(head))
            return None
        seconds, fraction, size, _ = self.layout.unpack(head)
        data = bytearray(self.file.read(size)) if size <= MAX_RECORD else bytearray()
        if len(data) < size:
            self.malformed = 1
            return None
        return seconds + fraction * self.unit, data

    def _run(self) -> None:
        for _ in range(1 if self.timing else BURST):
            record = self._record() if self.active else None
            if record is None:
                self.active = False
                return
            moment, data = record
            if self.timing:
                self._later(moment, data)
                return
            self._push(data)
        self.sched.wake(self._run)

    def _later(self, moment: float, data: bytearray) -> None:
        if self.start is None:
            self.start = self.ctx.now() - moment
        delay = max(0.0, self.start + moment - self.ctx.now())

        def due() -> None:
            self.timer_ = None
            self._push(data)
            self._run()

        self.timer_ = self.timer(delay, due)

    def _push(self, data: bytearray) -> None:
        self.count += 1
        self.out0(Packet(data))
