"""Trains: stream segments that lie behind each other, handled as one.

On the way out a train is the header of its first segment and a payload longer than one segment (as in generic
segmentation offload); on the way in, neighbouring segments become one header and one payload. This is the
specification of what batch.c does, and what runs where batch.c has not been compiled.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence

from xiatb.errors import WireError
from xiatb.wire import xip
from xiatb.wire.xstream import ACK, OPT_TIMESTAMP, PUSH

Buffer = bytes | bytearray | memoryview
Train = tuple[memoryview, bytes, int]
"""(XIP and XSTREAM header, payload, segments). A lone packet is (whole packet, b"", 1). `plen`, sequence and
timestamp are those of the first segment (RFC 7323 4.3: its timestamp is to be echoed); acknowledgement,
window and echo those of the last; PSH is set if any had it. Every segment but the last has the first one's
size."""

MAX_JOINED = 65536
"""Most payload bytes of a train on its way in: larger pieces cost page faults in malloc."""
MAX_SEGMENTS = 1024
"""Most segments of a train on its way out."""
_ETHERNET = 14
_STAMP = bytes((OPT_TIMESTAMP, 3, 0, 0))
_LENGTHS = (16, 28)
"""Stream header without options, and with a timestamp."""
_PLEN = struct.Struct(">H")
_WORD = struct.Struct(">I")
_FIXED = struct.Struct(">BBHII")
_HALF = 1 << 31
_MASK = (1 << 32) - 1


def stream_offset(header: Buffer) -> int:
    """Where the XSTREAM header begins in an XIP packet."""
    return 8 + 28 * (header[5] + header[6])


def cut(header: bytes, payload: Buffer, mss: int, number: int) -> tuple[bytes, memoryview]:
    """Header and payload of segment `number` (from 0) of a train; PSH is left to the last."""
    share = memoryview(payload)[number * mss : (number + 1) * mss]
    own = bytearray(header)
    at = stream_offset(header)
    _PLEN.pack_into(own, 2, len(header) - at + len(share))
    _WORD.pack_into(own, at + 4, (_WORD.unpack_from(header, at + 4)[0] + number * mss) & _MASK)
    if (number + 1) * mss < len(payload):
        own[at + 3] &= ~PUSH & 0xFF
    return bytes(own), share


def count(payload: Buffer, mss: int) -> int:
    """Segments of a train."""
    return -(-len(payload) // mss)


class _Run:
    """A segment, or what several have become. Raises WireError when the frame is none that can be joined."""

    def __init__(self, frame: memoryview) -> None:
        if len(frame) < _ETHERNET or bytes(frame[12:14]) != b"\xc0\xde":
            raise WireError("no XIP frame")
        packet = frame[_ETHERNET:]
        nxt, plen, _, _, _, _, at = xip.parse_fast(packet)
        if nxt != xip.NXT_XSTREAM or plen < _FIXED.size:
            raise WireError("no XSTREAM segment")
        follows, words, flags, self.seq, self.ack = _FIXED.unpack_from(packet, at)
        length = 4 * words
        if follows or length not in _LENGTHS or length >= plen or flags & ~PUSH != ACK:
            raise WireError("a segment that stays alone")
        self.stamp = 0
        if length == 28:
            if bytes(packet[at + 16 : at + 20]) != _STAMP:
                raise WireError("other options than a timestamp")
            self.stamp = _WORD.unpack_from(packet, at + 20)[0]
        self.packet = packet
        self.address = bytes(packet[:2]) + bytes(packet[4:at])
        self.at = at
        self.header = bytearray(packet[: at + length])
        self.parts = [packet[at + length : at + plen]]
        self.size = self.full = plen - length

    def take(self, other: _Run) -> bool:
        """Joins the segment that follows this one; False when `other` is not that."""
        if (
            self.size % self.full
            or other.size > self.full
            or self.size + other.size > MAX_JOINED
            or other.seq != (self.seq + self.size) & _MASK
            or (other.address, len(other.header)) != (self.address, len(self.header))
            or (other.ack - self.ack) & _MASK >= _HALF
            or (other.stamp - self.stamp) & _MASK >= _HALF
        ):
            return False
        self.header[self.at + 8 : self.at + 16] = other.header[self.at + 8 : self.at + 16]
        self.header[self.at + 24 :] = other.header[self.at + 24 :]
        self.header[self.at + 3] |= other.header[self.at + 3] & PUSH
        self.parts += other.parts
        self.size += other.size
        self.ack, self.stamp = other.ack, other.stamp
        return True

    def train(self) -> Train:
        """What has become of it."""
        if len(self.parts) == 1:
            return self.packet, b"", 1
        return memoryview(self.header), b"".join(self.parts), len(self.parts)


def join(frames: Sequence[memoryview]) -> list[Train]:
    """What Ethernet frames, in the order of their arrival, become: segments of a stream in a row one train.

    Only segments of the same addresses that follow each other without a gap, carry payload, no flag but ACK
    and PSH and no option but the timestamp are joined.
    """
    if len(frames) == 1:
        return [(frames[0][_ETHERNET:], b"", 1)]
    trains: list[Train] = []
    run: _Run | None = None
    for frame in frames:
        segment: _Run | None = None
        with contextlib.suppress(WireError):
            segment = _Run(frame)
        if run is not None and segment is not None and run.take(segment):
            continue
        if run is not None:
            trains.append(run.train())
        run = segment
        if segment is None:
            trains.append((frame[_ETHERNET:], b"", 1))
    if run is not None:
        trains.append(run.train())
    return trains


def all_segments(header: bytes, payload: Buffer, mss: int) -> Iterator[tuple[bytes, memoryview]]:
    """The segments of a train, in order."""
    return (cut(header, payload, mss, number) for number in range(count(payload, mss)))
