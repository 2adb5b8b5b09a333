"""Reading a capture of a link: what crossed it, by protocol and by time.

Works on the pcapng that `xiatb capture` writes; only the first bytes of each frame are needed (a capture
with a snap length is fine), lengths are the original ones on the wire.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xiatb.errors import XiatbError
from xiatb.wire.xip import ETH_P_XARP, ETH_P_XIP, ETH_P_XJOIN

XIA_ETHERTYPES = {ETH_P_XIP: "xip", ETH_P_XARP: "xarp", ETH_P_XJOIN: "xjoin"}
_ETHERTYPE = slice(12, 14)


class CaptureFileError(XiatbError):
    """A capture file can't be read."""


@dataclass(frozen=True)
class Frame:
    """One captured frame: wall-clock seconds, length on the wire in bytes, the bytes that were kept."""

    time: float
    length: int
    data: bytes

    @property
    def ethertype(self) -> int:
        """The Ethernet type, 0 for a frame too short to have one."""
        return int.from_bytes(self.data[_ETHERTYPE], "big") if len(self.data) >= 14 else 0


def read_frames(path: Path) -> Iterator[Frame]:
    """All frames of a pcapng or pcap file in order; raises CaptureFileError for anything else."""
    from scapy.error import Scapy_Exception
    from scapy.utils import RawPcapNgReader, RawPcapReader

    try:
        with RawPcapReader(str(path)) as reader:
            for data, meta in reader:
                if isinstance(reader, RawPcapNgReader):
                    ticks = (meta.tshigh << 32) | meta.tslow
                    yield Frame(ticks / float(meta.tsresol), meta.wirelen, data)
                else:
                    yield Frame(meta.sec + meta.usec / 1e6, meta.wirelen, data)
    except (Scapy_Exception, OSError, EOFError) as exc:
        raise CaptureFileError(f"{path}: not a readable capture: {exc}") from exc


@dataclass
class LinkBytes:
    """Bytes and frames that crossed a link, by protocol name; `other` is what is not XIA at all."""

    bytes: Counter[str] = field(default_factory=Counter)
    frames: Counter[str] = field(default_factory=Counter)

    def add(self, frame: Frame) -> None:
        """Count one frame."""
        name = XIA_ETHERTYPES.get(frame.ethertype, "other")
        self.bytes[name] += frame.length
        self.frames[name] += 1

    @property
    def total(self) -> int:
        """All bytes, Ethernet headers included, frame check sequences not."""
        return sum(self.bytes.values())

    @property
    def non_xia(self) -> int:
        """Bytes of frames that are neither XIP nor XARP nor XIA joins."""
        return self.bytes["other"]


def count_link_bytes(path: Path, spans: Sequence[tuple[float, ...]]) -> tuple[LinkBytes, list[LinkBytes]]:
    """Count a capture: the whole of it, and each span (start, end) of wall-clock seconds, end exclusive."""
    whole = LinkBytes()
    parts = [LinkBytes() for _ in spans]
    for frame in read_frames(path):
        whole.add(frame)
        for part, (start, end) in zip(parts, spans, strict=True):
            if start <= frame.time < end:
                part.add(frame)
    return whole, parts
