"""Writes packets to a capture file."""

from __future__ import annotations

import struct
import time
from typing import Any, BinaryIO

from xiatb.click.args import REQUIRED, Arg, to_bool, to_positive, to_text
from xiatb.click.context import Context
from xiatb.click.element import Element, WriteHandler, shows
from xiatb.click.errors import ConfigError
from xiatb.click.packet import Packet

PCAP_NANOSECONDS = 0xA1B23C4D
LINKTYPE_ETHERNET = 1


class ToDump(Element):
    """Writes every packet to FILE in pcap format (nanoseconds, Ethernet), at most SNAPLEN octets of
    each, for Wireshark. With an output it lets packets through. UNBUFFERED false leaves data in memory
    until 64 KiB have gathered or the handler `flush` is written.
    """

    __slots__ = ("count", "file", "filename", "offset", "snaplen", "unbuffered")
    PORTS = "1/0-1"
    ARGS = (
        Arg("FILENAME", to_text, "path of the file, replaced if there is one", REQUIRED),
        Arg("SNAPLEN", to_positive, "octets of each packet", 262_144, positional=False),
        Arg("UNBUFFERED", to_bool, "write every packet at once", True, positional=False),
    )
    READ = {"count": shows("count", "packets written"), "filename": shows("filename", "path of the file")}
    WRITE = {"flush": WriteHandler("write what is in memory", lambda element, _: element.flush())}
    filename: str
    snaplen: int
    unbuffered: bool

    def configure(self, args: dict[str, Any]) -> None:
        """Take the path."""
        super().configure(args)
        self.count = 0
        self.file: BinaryIO | None = None

    def initialize(self, ctx: Context) -> None:
        """Create the file."""
        try:
            self.file = open(self.filename, "wb", 0 if self.unbuffered else 65536)  # noqa: SIM115
        except OSError as error:
            raise ConfigError(f"cannot write {self.filename}: {error.strerror}") from None
        self.offset = time.time() - ctx.now()
        self.file.write(
            struct.pack("<IHHiIII", PCAP_NANOSECONDS, 2, 4, 0, 0, self.snaplen, LINKTYPE_ETHERNET)
        )

    def cleanup(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def flush(self) -> None:
        """Write handler `flush`."""
        if self.file is not None:
            self.file.flush()

    def simple_action(self, p: Packet) -> Packet | None:
        """Write a record."""
        if self.file is not None:
            moment = self.ctx.now() + self.offset
            seconds = int(moment)
            kept = p.data[: self.snaplen]
            head = struct.pack("<IIII", seconds, int((moment - seconds) * 1e9), len(kept), len(p.data))
            self.file.write(head + kept)
            self.count += 1
        return p
