"""XIDs: the typed 160-bit identifiers that every XIA address is made of.

Formats and numbers are those of xia-core V2 (click/include/clicknet/xia.h and
api/dagaddr/cpp/dagaddr.cpp). The 24-byte `key` (type u32 big-endian, then the 20-byte id)
is at once the wire form, the sort order and the key of every route table.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import total_ordering
from typing import Any

from xiatb.errors import WireError

KEY_LEN = 24
ID_LEN = 20


class XidType(IntEnum):
    """Principal types of xia-core V2 (xia.h:12-34); any other u32 is a legal, unknown type."""

    AD = 0x10
    HID = 0x11
    CID = 0x12
    SID = 0x13
    IP = 0x14
    FID = 0x30
    NCID = 0x31
    ICID = 0x32
    DUMMY = 0xFF


TYPE_NAMES: dict[int, str] = {int(t): t.name for t in XidType}
TYPE_NUMBERS: dict[str, int] = {t.name: int(t) for t in XidType}

_HEX_ID = re.compile(r"[0-9A-Fa-f]{40}")
_NOT_HEX = re.compile(r"[^0-9A-Fa-f]")
_QUAD = re.compile(r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})")
_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]{1,8}")
# dagaddr.cpp:330-342: a 4ID looks like the head of an IPv4 header with the address at its end.
_IP_PREFIX = bytes.fromhex("4500000000010000fafa000000000000")

_IP_TYPE = int(XidType.IP).to_bytes(4, "big")


def type_name(number: int) -> str:
    """Return the text name of a type number; a type without a name is written as 0x-hex."""
    return TYPE_NAMES.get(number) or f"0x{number:x}"


def parse_type(text: str, at: int = 0) -> int:
    """Return the type number of a name (any case) or of a 0x-hex number.

    `at` is the offset of `text` in what the user wrote, for the message.
    Raises WireError for an unknown name.
    """
    number = TYPE_NUMBERS.get(text.upper())
    if number is not None:
        return number
    if _NUMBER.fullmatch(text):
        return int(text, 16)
    raise WireError(f"unknown XID type {text!r} at character {at}")


def four_id(address: bytes) -> XID:
    """Return the 4ID (type IP) of an IPv4 address of 4 bytes; WireError on another length."""
    return XID(XidType.IP, _IP_PREFIX + address)


def address_of(key: bytes) -> bytes | None:
    """Return the IPv4 address (4 bytes) in the 24-byte key of a 4ID, None when it is none."""
    if key[:4] != _IP_TYPE or key[4:20] != _IP_PREFIX:
        return None
    return key[20:]


def _parse_id(kind: int, text: str, at: int) -> bytes:
    """Return the 20-byte id of the part behind the colon, which starts at character `at`."""
    if kind == XidType.IP:
        quad = _QUAD.fullmatch(text)
        if quad is not None:
            octets = [int(part) for part in quad.groups()]
            if max(octets) > 255:
                raise WireError(f"IPv4 address {text!r} at character {at} has an octet above 255")
            return _IP_PREFIX + bytes(octets)
    if _HEX_ID.fullmatch(text):
        return bytes.fromhex(text)
    bad = _NOT_HEX.search(text)
    if bad is not None:
        raise WireError(f"XID id has {bad.group()!r}, not a hex digit, at character {at + bad.start()}")
    raise WireError(f"XID id at character {at} has {len(text)} hex digits, not 40")


@total_ordering
class XID:
    """One immutable identifier: hashable, ordered by its 24-byte key."""

    __slots__ = ("key",)
    key: bytes

    def __init__(self, type: int, id: bytes) -> None:
        """Make an XID of a type number (u32) and a 20-byte id; WireError if either does not fit."""
        if len(id) != ID_LEN:
            raise WireError(f"an XID id has 20 bytes, not {len(id)}")
        if not 0 <= type <= 0xFFFFFFFF:
            raise WireError(f"XID type {type} does not fit 32 bits")
        object.__setattr__(self, "key", int(type).to_bytes(4, "big") + bytes(id))

    @classmethod
    def from_key(cls, key: bytes) -> XID:
        """Return the XID of a 24-byte key (type u32 big-endian + id); WireError on another length."""
        if len(key) != KEY_LEN:
            raise WireError(f"an XID key has 24 bytes, not {len(key)}")
        xid = cls.__new__(cls)
        object.__setattr__(xid, "key", bytes(key))
        return xid

    @classmethod
    def parse(cls, text: str, at: int = 0) -> XID:
        """Return the XID of `TYPE:40hex` or `IP:a.b.c.d`; type and hex in any case.

        `at` is where `text` starts in what the user wrote; WireError names the character.
        """
        name, colon, rest = text.partition(":")
        if not colon:
            raise WireError(f"expected TYPE:ID at character {at}, got {text[:60]!r}")
        kind = parse_type(name, at)
        return cls(kind, _parse_id(kind, rest, at + len(name) + 1))

    @property
    def type(self) -> int:
        """The principal type number."""
        return int.from_bytes(self.key[:4], "big")

    @property
    def id(self) -> bytes:
        """The 20-byte id."""
        return self.key[4:]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("an XID does not change")

    def __reduce__(self) -> tuple[Any, ...]:
        return (XID.from_key, (self.key,))

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, XID) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return self.key < other.key if isinstance(other, XID) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        return f"{type_name(self.type)}:{self.id.hex()}"

    def __repr__(self) -> str:
        return f"XID({str(self)!r})"


def _well_known(last_digit: int) -> XID:
    """Return the well-known SID "111" + 33 zeros + 111x (etc/click/xia_address.click)."""
    return XID(XidType.SID, bytes.fromhex("111" + "0" * 33 + f"111{last_digit}"))


BROADCAST_FID = XID(XidType.FID, b"\xff" * ID_LEN)
SID_DHCP = _well_known(1)
SID_XROUTE = _well_known(2)
SID_NS = _well_known(3)
SID_RENDEZVOUS_CONTROL = _well_known(5)
"""Where hosts tell a rendezvous service where they are; ours, as is the next (xia-core's come from a
file)."""
SID_RENDEZVOUS = _well_known(6)
"""Packets that arrive here are sent on to where the HID behind it in their DAG is now."""
