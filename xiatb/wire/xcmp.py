"""XCMP, the control messages of XIP: echo, unreachable, time exceeded, too big.

Layout of xia-core V2 (xia.h:143-181, elements/xia/xcmp.cc), big-endian: type u8, code u8,
checksum u16 (RFC 1071 over the whole message), four bytes that depend on the type, data. Errors
quote the offending XIP header with all nodes and eight bytes of its payload. "Too big" is ours:
unreachable with code 4 and the MTU in the four bytes, as in ICMP (RFC 1191).
"""

from __future__ import annotations

import struct

from xiatb.errors import WireError
from xiatb.wire import xip
from xiatb.wire.dag import ENTRY
from xiatb.wire.xid import XidType

ECHO_REPLY = 0
UNREACHABLE = 3
REDIRECT = 5
ECHO_REQUEST = 8
TIME_EXCEEDED = 11

# Codes of UNREACHABLE.
CODE_NET = 0
CODE_HOST = 1
CODE_INTENT = 3
CODE_TOO_BIG = 4
CODE_UNSPECIFIED = 16

HEADER_LEN = 8
QUOTED_PAYLOAD = 8
_ERRORS = frozenset((UNREACHABLE, REDIRECT, TIME_EXCEEDED))

_CODE_OF_TYPE: dict[int, int] = {XidType.AD: CODE_NET, XidType.HID: CODE_HOST}

_HEAD = struct.Struct(">BBH")
_ECHO = struct.Struct(">HH")


def checksum(data: xip.Buffer) -> int:
    """Return the RFC 1071 checksum of `data` (odd lengths as if padded by a zero byte).

    Over a message that holds its checksum the result is 0 when the message is whole. The one's
    complement sum is the remainder modulo 65535 of the bytes read as one big-endian number.
    """
    number = int.from_bytes(data, "big")
    if len(data) % 2:
        number <<= 8
    if number == 0:
        return 0xFFFF
    return 0xFFFF - (number % 0xFFFF or 0xFFFF)


def _message(kind: int, code: int, rest: bytes, data: bytes) -> bytes:
    body = rest + data
    total = checksum(_HEAD.pack(kind, code, 0) + body)
    return _HEAD.pack(kind, code, total) + body


def echo(request: bool, ident: int, seq: int, data: bytes = b"") -> bytes:
    """Return an echo request, or its reply, with u16 `ident` and `seq`; WireError if they do not fit."""
    if not (0 <= ident <= 0xFFFF and 0 <= seq <= 0xFFFF):
        raise WireError(f"echo identifier {ident} or sequence {seq} does not fit 16 bits")
    return _message(ECHO_REQUEST if request else ECHO_REPLY, 0, _ECHO.pack(ident, seq), bytes(data))


def reply_to(request: xip.Buffer) -> bytes:
    """Return the echo reply to a whole echo request message: the same bytes with the type changed."""
    return _message(ECHO_REPLY, 0, bytes(request[4:8]), bytes(request[8:]))


def quote(original: xip.Buffer) -> bytes:
    """Return what an error quotes of a packet: the XIP header and eight payload bytes. WireError."""
    header = xip.parse_partial(original)
    return bytes(original[: min(header.end, header.payload_off + QUOTED_PAYLOAD)])


def unreachable(code: int, original: xip.Buffer) -> bytes:
    """Return "unreachable" about the packet `original` (from its XIP header on)."""
    return _message(UNREACHABLE, code, b"\0\0\0\0", quote(original))


def time_exceeded(original: xip.Buffer) -> bytes:
    """Return "hop limit exceeded" about the packet `original`."""
    return _message(TIME_EXCEEDED, 0, b"\0\0\0\0", quote(original))


def too_big(mtu: int, original: xip.Buffer) -> bytes:
    """Return "too big": the link takes XIP packets of at most `mtu` bytes (u32, header included)."""
    if not 0 <= mtu <= 0xFFFFFFFF:
        raise WireError(f"an MTU of {mtu} does not fit 32 bits")
    return _message(UNREACHABLE, CODE_TOO_BIG, mtu.to_bytes(4, "big"), quote(original))


def unreachable_code(packet: xip.Buffer, off: int = 0) -> int:
    """Return the code for a packet that `walk` found unreachable.

    xcmp.cc:233-264: by the type of the first edge target not visited yet at the current node, AD
    to CODE_NET, HID to CODE_HOST, anything else CODE_INTENT. The packet has passed
    `xip.parse_fast`.
    """
    count, last = packet[off + 5], packet[off + 7]
    base = off + xip.FIXED_LEN
    at = base + 28 * (count - 1 if last == ENTRY else last)
    for slot in range(at + 24, at + 28):
        edge = packet[slot]
        if edge < count:
            kind = int.from_bytes(packet[base + 28 * edge : base + 28 * edge + 4], "big")
            return _CODE_OF_TYPE.get(kind, CODE_INTENT)
    return CODE_INTENT


class Message:
    """A parsed XCMP message: `rest` are the four type-dependent bytes, `data` what follows."""

    __slots__ = ("type", "code", "rest", "data")

    def __init__(self, type: int, code: int, rest: bytes, data: bytes) -> None:
        self.type = type
        self.code = code
        self.rest = rest
        self.data = data

    @property
    def is_error(self) -> bool:
        """Whether this is an error about another packet; nobody answers those with an error."""
        return self.type in _ERRORS

    @property
    def ident(self) -> int:
        """Identifier of an echo."""
        return int.from_bytes(self.rest[:2], "big")

    @property
    def seq(self) -> int:
        """Sequence number of an echo."""
        return int.from_bytes(self.rest[2:], "big")

    @property
    def mtu(self) -> int | None:
        """The MTU in bytes of a "too big", None for other messages."""
        if (self.type, self.code) != (UNREACHABLE, CODE_TOO_BIG):
            return None
        return int.from_bytes(self.rest, "big")

    def intent_is_gone(self) -> bool:
        """Whether the host itself tells that it does not have the intent: the quoted packet had got as far as
        a HID, and its next edge leads to what is unreachable. WireError as `original`."""
        if (self.type, self.code) != (UNREACHABLE, CODE_INTENT):
            return False
        header = self.original()
        at = header.off + xip.FIXED_LEN + 28 * header.last
        return header.last < header.dnode and int.from_bytes(header.buf[at : at + 4], "big") == XidType.HID

    def original(self) -> xip.Header:
        """Return the quoted XIP header (its `payload` is the quoted bytes). WireError if broken."""
        if not self.is_error:
            raise WireError(f"XCMP type {self.type} quotes no packet")
        return xip.parse_partial(self.data)


def parse(payload: xip.Buffer) -> Message:
    """Return the message of an XIP payload; WireError when it is short or its checksum is wrong."""
    if len(payload) < HEADER_LEN:
        raise WireError(f"XCMP message of {len(payload)} bytes, at least {HEADER_LEN} needed")
    raw = bytes(payload)
    if checksum(raw) != 0:
        raise WireError("XCMP checksum is wrong")
    return Message(raw[0], raw[1], raw[4:8], raw[8:])


def is_error(payload: xip.Buffer) -> bool:
    """Say without parsing whether an XCMP payload is an error message (an empty one counts as one)."""
    return len(payload) == 0 or payload[0] in _ERRORS
