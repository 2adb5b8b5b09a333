"""Parts of the Scapy layers: address nodes, the bodies of MIGRATE, XSTREAM options.

Used by `scapy_layers`, which is the module to import.
"""

# mypy: allow-subclassing-any, allow-untyped-calls

from __future__ import annotations

from typing import Any

from scapy.fields import (
    ByteEnumField,
    ByteField,
    FieldLenField,
    FieldListField,
    IntEnumField,
    IntField,
    LongField,
    PacketListField,
    ShortField,
    StrLenField,
    XByteField,
    XStrFixedLenField,
)
from scapy.packet import Packet

from xiatb.wire import migrate, xstream
from xiatb.wire.dag import MAX_NODES, NO_EDGE, NODE_LEN
from xiatb.wire.xid import TYPE_NAMES


class Inner(Packet):
    """A part of a list in another header: what follows it belongs to that header."""

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """Say that there is no payload and all that follows is the next part's."""
        return b"", s


class XIPNode(Inner):
    """One node of an address: XID and four edge bytes."""

    name = "XIP node"
    fields_desc = [
        IntEnumField("type", 0x11, TYPE_NAMES),
        XStrFixedLenField("id", bytes(20), 20),
        FieldListField("edges", [NO_EDGE] * 4, XByteField("edge", NO_EDGE), count_from=lambda pkt: 4),
    ]


MIGRATE_BODY = [
    ByteField("version", migrate.VERSION),
    XByteField("flags", 0),
    FieldLenField("ndag", None, fmt="B", count_of="dag"),
    ByteField("reserved", 0),
    LongField("seq", 0),
    XStrFixedLenField("key", bytes(32), 32),
    XStrFixedLenField("signature", bytes(64), 64),
    PacketListField("dag", [], XIPNode, length_from=lambda pkt: NODE_LEN * pkt.ndag),
]
ACK_BODY = [
    ByteField("version", migrate.VERSION),
    XByteField("flags", 0),
    ShortField("reserved", 0),
    LongField("seq", 0),
    XStrFixedLenField("key", bytes(32), 32),
    XStrFixedLenField("signature", bytes(64), 64),
]


_OPTION_KINDS = {
    xstream.OPT_EOL: "EOL",
    xstream.OPT_NOP: "NOP",
    xstream.OPT_MSS: "MSS",
    xstream.OPT_WSCALE: "WSCALE",
    xstream.OPT_SACK_PERMITTED: "SACK_PERMITTED",
    xstream.OPT_SACK: "SACK",
    xstream.OPT_TIMESTAMP: "TIMESTAMP",
    xstream.OPT_MIGRATE: "MIGRATE",
    xstream.OPT_MIGRATEACK: "MIGRATEACK",
}


class XOption(Inner):
    """An option of unknown kind or unusual length: its value is left raw."""

    name = "option"
    fields_desc = [
        ByteEnumField("kind", 254, _OPTION_KINDS),
        ByteField("words", None),
        StrLenField("value", b"\0\0", length_from=lambda pkt: max(0, 4 * pkt.words - 2)),
    ]

    @classmethod
    def dispatch_hook(cls, _pkt: bytes = b"", *args: Any, **kargs: Any) -> type[Packet]:
        """Return the class that describes the option at the start of the bytes."""
        if len(_pkt) >= 2:
            if _pkt[0] in (xstream.OPT_EOL, xstream.OPT_NOP):
                return XOptionByte
            words, shape = _pkt[1], _SHAPES.get(_pkt[0])
            if shape is not None and shape[1](words, _pkt[2:]):
                return shape[0]
        return XOptionByte if _pkt and _pkt[0] < 2 else cls

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        """Pad to words and fill in the length."""
        pkt += bytes(-len(pkt) % 4)
        if self.words is None:
            pkt = pkt[:1] + bytes([len(pkt) // 4]) + pkt[2:]
        return pkt + pay


class XOptionByte(Inner):
    """EOL or NOP, a single byte."""

    name = "padding option"
    fields_desc = [ByteEnumField("kind", xstream.OPT_EOL, _OPTION_KINDS)]


def _option_head(kind: int) -> list[Any]:
    return [ByteEnumField("kind", kind, _OPTION_KINDS), ByteField("words", None)]


class XOptionMSS(XOption):
    """Largest XIP packet that the sender takes."""

    name = "MSS"
    fields_desc = [*_option_head(xstream.OPT_MSS), ShortField("mss", 1500)]


class XOptionWScale(XOption):
    """Window scale."""

    name = "WSCALE"
    fields_desc = [*_option_head(xstream.OPT_WSCALE), ByteField("pad", 0), ByteField("shift", 0)]


class XOptionSackPermitted(XOption):
    """Selective acknowledgements are understood."""

    name = "SACK_PERMITTED"
    fields_desc = [*_option_head(xstream.OPT_SACK_PERMITTED), ShortField("pad", 0)]


class XOptionSack(XOption):
    """Selective acknowledgements, left and right edge in turn."""

    name = "SACK"
    fields_desc = [
        *_option_head(xstream.OPT_SACK),
        ShortField("pad", 0),
        FieldListField("edges", [], IntField("edge", 0), length_from=lambda pkt: max(0, 4 * pkt.words - 4)),
    ]


class XOptionTimestamp(XOption):
    """Timestamp and echo."""

    name = "TIMESTAMP"
    fields_desc = [
        *_option_head(xstream.OPT_TIMESTAMP),
        ShortField("pad", 0),
        IntField("value", 0),
        IntField("echo", 0),
    ]


class XOptionMigrate(XOption):
    """Signed move, our version 2."""

    name = "MIGRATE"
    fields_desc = [*_option_head(xstream.OPT_MIGRATE), ShortField("pad", 0), *MIGRATE_BODY]


class XOptionMigrateAck(XOption):
    """Signed acknowledgement of a move, our version 2."""

    name = "MIGRATEACK"
    fields_desc = [*_option_head(xstream.OPT_MIGRATEACK), ShortField("pad", 0), *ACK_BODY]


_VERSION_2 = b"\0\0" + bytes([migrate.VERSION])


def _is_migrate(words: int, value: bytes) -> bool:
    if len(value) < 5 or value[:3] != _VERSION_2 or not 0 < value[4] <= MAX_NODES:
        return False
    return 4 * words == 4 + migrate.FIXED_LEN + NODE_LEN * value[4]


_SHAPES: dict[int, tuple[type[Packet], Any]] = {
    xstream.OPT_MSS: (XOptionMSS, lambda words, value: words == 1),
    xstream.OPT_WSCALE: (XOptionWScale, lambda words, value: words == 1),
    xstream.OPT_SACK_PERMITTED: (XOptionSackPermitted, lambda words, value: words == 1),
    xstream.OPT_SACK: (XOptionSack, lambda words, value: words % 2 == 1),
    xstream.OPT_TIMESTAMP: (XOptionTimestamp, lambda words, value: words == 3),
    xstream.OPT_MIGRATE: (XOptionMigrate, _is_migrate),
    xstream.OPT_MIGRATEACK: (
        XOptionMigrateAck,
        lambda words, value: value[:3] == _VERSION_2 and 4 * words == 4 + migrate.FIXED_LEN,
    ),
}
