"""RST in answer to segments of no known connection, at a limited rate."""

from __future__ import annotations

from xiatb.transport.packets import HeaderTemplate, Packet
from xiatb.wire.xstream import ACK, FIN, RST, SYN, Header

_RATE = 200.0
"""Resets a second."""
_MASK = 0xFFFFFFFF


class Resets:
    """The resets of one endpoint."""

    __slots__ = ("_at", "_credit")

    def __init__(self) -> None:
        self._credit = _RATE
        self._at = 0.0

    def answer(self, header: Header, size: int, template: HeaderTemplate, now: float) -> Packet | None:
        """The RST for a segment of `size` bytes, its header included (RFC 9293 3.10.7.1), towards
        `template`'s remote; None when none is due."""
        if header.flags & RST:
            return None
        self._credit = min(_RATE, self._credit + (now - self._at) * _RATE)
        self._at = now
        if self._credit < 1.0:
            return None
        self._credit -= 1.0
        if header.flags & ACK:
            flags, seq, ack = RST, header.ack, 0
        else:
            taken = size - header.length + bool(header.flags & SYN) + bool(header.flags & FIN)
            flags, seq, ack = RST | ACK, 0, (header.seq + taken) & _MASK
        return template.bare(template.head, 16, template.rest, 0, 4, flags, seq, ack, 0), b""
