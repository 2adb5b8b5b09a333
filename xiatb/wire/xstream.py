"""The XSTREAM header (xia-core's xtcp): a TCP header without ports, with 32-bit windows.

Layout (clicknet/xtcp.h:9-32), big-endian: nxt u8, off u8 (length in words), flags u16, seq u32,
ack u32, win u32, options. An option is kind u8, length u8 in 4-byte words, value, zero padded.
Order on the wire as xia-core has it: MSS, WSCALE, SACK_PERMITTED, TIMESTAMP, SACK, MIGRATE,
MIGRATEACK, then unknown ones.
"""

from __future__ import annotations

import struct

from xiatb.errors import WireError
from xiatb.wire.xip import NXT_DATA, Buffer

FIN = 0x001
SYN = 0x002
RST = 0x004
PUSH = 0x008
ACK = 0x010
ECE = 0x040
CWR = 0x080
NS = 0x100

OPT_EOL = 0
OPT_NOP = 1
OPT_MSS = 2
OPT_WSCALE = 3
OPT_SACK_PERMITTED = 4
OPT_SACK = 5
OPT_TIMESTAMP = 8
OPT_MIGRATE = 50
OPT_MIGRATEACK = 51

HEADER_LEN = 16
MAX_OPTIONS = 956
TIMESTAMP_LEN = 12

_FIXED = struct.Struct(">BBHIII")
_STAMP = struct.Struct(">BBHII")
_WORD = struct.Struct(">BBH")
_PAIR = struct.Struct(">II")
_MASK = 0xFFFFFFFF

Block = tuple[int, int]


class Options:
    """The options of a segment; what is absent is None, False or empty.

    `mss` u16 bytes of a whole XIP packet; `wscale` shift 0..255; `timestamp` (value, echo) u32;
    `sack` blocks (left, right) u32; `migrate` and `migrate_ack` the values as they stand behind
    kind and length (see `xiatb.wire.migrate`); `other` (kind, value) of unknown options.
    """

    __slots__ = ("mss", "wscale", "sack_permitted", "timestamp", "sack", "migrate", "migrate_ack", "other")

    def __init__(
        self,
        *,
        mss: int | None = None,
        wscale: int | None = None,
        sack_permitted: bool = False,
        timestamp: tuple[int, int] | None = None,
        sack: tuple[Block, ...] = (),
        migrate: bytes | None = None,
        migrate_ack: bytes | None = None,
        other: tuple[tuple[int, bytes], ...] = (),
    ) -> None:
        self.mss = mss
        self.wscale = wscale
        self.sack_permitted = sack_permitted
        self.timestamp = timestamp
        self.sack = sack
        self.migrate = migrate
        self.migrate_ack = migrate_ack
        self.other = other

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Options):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in Options.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Options(" + ", ".join(f"{n}={getattr(self, n)!r}" for n in Options.__slots__) + ")"


class Header:
    """One segment's header; `length` is its size in bytes, options included, when it was parsed."""

    __slots__ = ("flags", "seq", "ack", "win", "options", "nxt", "length")

    def __init__(
        self,
        flags: int,
        seq: int,
        ack: int,
        win: int,
        options: Options | None = None,
        *,
        nxt: int = NXT_DATA,
        length: int = 0,
    ) -> None:
        self.flags = flags
        self.seq = seq
        self.ack = ack
        self.win = win
        self.options = options if options is not None else Options()
        self.nxt = nxt
        self.length = length

    def pack(self) -> bytes:
        """Return the header's bytes; see `pack`."""
        return pack(self.flags, self.seq, self.ack, self.win, self.options, nxt=self.nxt)

    def __repr__(self) -> str:
        return f"Header({self.flags:#x}, seq={self.seq}, ack={self.ack}, win={self.win}, {self.options!r})"


def pack(
    flags: int, seq: int, ack: int, win: int, options: Options | None = None, *, nxt: int = NXT_DATA
) -> bytes:
    """Return the header; `seq` and `ack` are taken modulo 2**32.

    Raises WireError when flags, window or an option do not fit, or the options exceed 956 bytes.
    """
    tail = pack_options(options) if options is not None else b""
    if not (0 <= flags <= 0xFFFF and 0 <= win <= _MASK):
        raise WireError(f"XSTREAM flags {flags:#x} or window {win} do not fit")
    return _FIXED.pack(nxt, (HEADER_LEN + len(tail)) // 4, flags, seq & _MASK, ack & _MASK, win) + tail


def pack_plain(flags: int, seq: int, ack: int, win: int, stamp: int, echo: int) -> bytes:
    """Return a header with the timestamp option alone, the quick way for data and bare ACKs.

    All but `flags` (u16) and `win` (u32, checked by struct) are taken modulo 2**32.
    """
    return _FIXED.pack(NXT_DATA, 7, flags, seq & _MASK, ack & _MASK, win) + _STAMP.pack(
        OPT_TIMESTAMP, 3, 0, stamp & _MASK, echo & _MASK
    )


def pack_options(options: Options) -> bytes:
    """Return the options' bytes, a whole number of words; WireError when something does not fit."""
    parts: list[bytes] = []
    if options.mss is not None:
        parts.append(_WORD.pack(OPT_MSS, 1, _fit(options.mss, 0xFFFF, "MSS")))
    if options.wscale is not None:
        parts.append(_WORD.pack(OPT_WSCALE, 1, _fit(options.wscale, 0xFF, "window scale")))
    if options.sack_permitted:
        parts.append(_WORD.pack(OPT_SACK_PERMITTED, 1, 0))
    if options.timestamp is not None:
        value, echo = options.timestamp
        parts.append(_STAMP.pack(OPT_TIMESTAMP, 3, 0, value & _MASK, echo & _MASK))
    if options.sack:
        blocks = b"".join(_PAIR.pack(left & _MASK, right & _MASK) for left, right in options.sack)
        parts.append(_option(OPT_SACK, b"\0\0" + blocks))
    if options.migrate is not None:
        parts.append(_option(OPT_MIGRATE, options.migrate))
    if options.migrate_ack is not None:
        parts.append(_option(OPT_MIGRATEACK, options.migrate_ack))
    parts += [_option(kind, value) for kind, value in options.other]
    out = b"".join(parts)
    if len(out) > MAX_OPTIONS:
        raise WireError(f"XSTREAM options of {len(out)} bytes, at most {MAX_OPTIONS} fit")
    return out


def _fit(value: int, limit: int, what: str) -> int:
    if not 0 <= value <= limit:
        raise WireError(f"{what} {value} does not fit its option")
    return value


def _option(kind: int, value: bytes) -> bytes:
    words = (len(value) + 5) // 4
    if words > 255 or not 1 < kind <= 255:
        raise WireError(f"option {kind} with {len(value)} bytes does not fit")
    return (bytes((kind, words)) + value).ljust(4 * words, b"\0")


def parse(buf: Buffer, off: int = 0, end: int | None = None) -> Header:
    """Return the header at `off` of `buf`; data begins at `off + header.length`.

    `end` is where the packet ends in `buf` (default its length). Raises WireError.
    """
    end = len(buf) if end is None else min(end, len(buf))
    if end - off < HEADER_LEN:
        raise WireError(f"XSTREAM header of {end - off} bytes, at least {HEADER_LEN} needed")
    nxt, words, flags, seq, ack, win = _FIXED.unpack_from(buf, off)
    length = 4 * words
    if not HEADER_LEN <= length <= end - off:
        raise WireError(f"XSTREAM header length {length} is not in {HEADER_LEN}..{end - off}")
    if words == 4:
        options = Options()
    elif words == 7 and buf[off + 16] == OPT_TIMESTAMP and buf[off + 17] == 3:
        options = Options(timestamp=_PAIR.unpack_from(buf, off + 20))
    else:
        options = parse_options(bytes(buf[off + HEADER_LEN : off + length]))
    return Header(flags, seq, ack, win, options, nxt=nxt, length=length)


def parse_options(raw: bytes) -> Options:
    """Return the options of an option area. Raises WireError for a bad length; the last of a kind wins."""
    options = Options()
    at = 0
    while at < len(raw):
        kind = raw[at]
        if kind == OPT_EOL:
            break
        if kind == OPT_NOP:
            at += 1
            continue
        length = 4 * raw[at + 1] if at + 1 < len(raw) else 0
        if length == 0 or at + length > len(raw):
            raise WireError(f"XSTREAM option {kind} at byte {at} has a bad length")
        _set(options, kind, raw[at + 2 : at + length])
        at += length
    return options


def _set(options: Options, kind: int, value: bytes) -> None:
    """Put one option into `options`; `value` is what stands behind kind and length."""
    words = (len(value) + 2) // 4
    if kind == OPT_MSS and words == 1:
        options.mss = int.from_bytes(value, "big")
    elif kind == OPT_WSCALE and words == 1:
        options.wscale = value[1]
    elif kind == OPT_SACK_PERMITTED:
        options.sack_permitted = True
    elif kind == OPT_TIMESTAMP and words == 3:
        options.timestamp = _PAIR.unpack_from(value, 2)
    elif kind == OPT_SACK and words % 2:
        options.sack = tuple(_PAIR.iter_unpack(value[2:]))
    elif kind == OPT_MIGRATE:
        options.migrate = value
    elif kind == OPT_MIGRATEACK:
        options.migrate_ack = value
    elif kind in (OPT_MSS, OPT_WSCALE, OPT_TIMESTAMP, OPT_SACK):
        raise WireError(f"XSTREAM option {kind} has {words} words")
    else:
        options.other = (*options.other, (kind, value))
