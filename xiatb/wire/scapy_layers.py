"""Scapy layers of the same headers that the plain codec reads and writes.

For people at a prompt and for tests that hold the codec against a second description. Bound to
ethertypes 0xC0DE and 0x9990 and to the next-header numbers. Node processes must not import this:
Scapy costs seconds of start-up in a guest. Formats as in `xip`, `xcmp`, `xarp`, `extension`,
`xdgram`, `xstream` and `migrate`.
"""

# mypy: allow-subclassing-any, allow-untyped-calls

from __future__ import annotations

from scapy.fields import (
    ByteEnumField,
    ByteField,
    ConditionalField,
    FieldLenField,
    FlagsField,
    IntField,
    MACField,
    PacketListField,
    ShortEnumField,
    ShortField,
    StrLenField,
    XByteField,
    XIntField,
    XShortField,
    XStrFixedLenField,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw, bind_layers

from xiatb.errors import WireError
from xiatb.wire import xarp, xcmp, xip, xstream
from xiatb.wire.dag import DAG, ENTRY, NODE_LEN
from xiatb.wire.scapy_parts import (
    ACK_BODY,
    MIGRATE_BODY,
    XIPNode,
    XOption,
    XOptionByte,
    XOptionMigrate,
    XOptionMigrateAck,
    XOptionMSS,
    XOptionSack,
    XOptionSackPermitted,
    XOptionTimestamp,
    XOptionWScale,
)

__all__ = [
    "FID",
    "MIGRATE",
    "MIGRATEACK",
    "XARP",
    "XCMP",
    "XDGRAM",
    "XIP",
    "XIPNode",
    "XIPerror",
    "XOption",
    "XOptionByte",
    "XOptionMSS",
    "XOptionMigrate",
    "XOptionMigrateAck",
    "XOptionSack",
    "XOptionSackPermitted",
    "XOptionTimestamp",
    "XOptionWScale",
    "XSTREAM",
    "dag_of_nodes",
    "nodes_of",
]

NEXT_HEADERS = {
    xip.NXT_DATA: "DATA",
    xip.NXT_XCMP: "XCMP",
    xip.NXT_XDGRAM: "XDGRAM",
    xip.NXT_XSTREAM: "XSTREAM",
    xip.NXT_FID: "FID",
    xip.NXT_MIGRATE: "MIGRATE",
    xip.NXT_MIGRATEACK: "MIGRATEACK",
}
_STREAM_FLAGS = ["FIN", "SYN", "RST", "PUSH", "ACK", "URG", "ECE", "CWR", "NS"] + [
    f"b{i}" for i in range(9, 16)
]


def nodes_of(address: DAG | str | bytes) -> list[XIPNode]:
    """Return the node layers of an address given as DAG, text or node list; WireError if illegal."""
    if isinstance(address, str):
        address = DAG.parse(address)
    wire = address.to_wire() if isinstance(address, DAG) else bytes(address)
    return [XIPNode(wire[at : at + NODE_LEN]) for at in range(0, len(wire), NODE_LEN)]


def dag_of_nodes(nodes: list[XIPNode]) -> DAG:
    """Return the DAG of node layers; WireError if illegal."""
    return DAG.from_wire(b"".join(bytes(node) for node in nodes))


class XIP(Packet):
    """The XIP header; `plen`, `dnode` and `snode` are filled in when left out."""

    name = "XIP"
    fields_desc = [
        ByteField("ver", xip.VERSION),
        ByteEnumField("nxt", xip.NXT_DATA, NEXT_HEADERS),
        ShortField("plen", None),
        ByteField("hlim", xip.HLIM_DEFAULT),
        FieldLenField("dnode", None, fmt="B", count_of="dst"),
        FieldLenField("snode", None, fmt="B", count_of="src"),
        XByteField("last", ENTRY),
        PacketListField("dst", [], XIPNode, length_from=lambda pkt: NODE_LEN * pkt.dnode),
        PacketListField("src", [], XIPNode, length_from=lambda pkt: NODE_LEN * pkt.snode),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        """Fill in the payload length."""
        if self.plen is None:
            pkt = pkt[:2] + (len(pay) & 0xFFFF).to_bytes(2, "big") + pkt[4:]
        return pkt + pay

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """Split payload and Ethernet padding."""
        return (s, b"") if self.plen is None else (s[: self.plen], s[self.plen :])

    def mysummary(self) -> str:
        """Return one line with both addresses in text."""
        try:
            return f"XIP {dag_of_nodes(self.src)} > {dag_of_nodes(self.dst)}"
        except WireError as error:
            return f"XIP ({error})"


class XIPerror(XIP):
    """An XIP header quoted in an XCMP error; its payload is cut, so it stays raw."""

    name = "XIP in XCMP"

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        """Leave the eight quoted bytes alone."""
        raw: type[Packet] = Raw
        return raw


def _is_echo(pkt: Packet) -> bool:
    return pkt.type in (xcmp.ECHO_REQUEST, xcmp.ECHO_REPLY)


def _is_too_big(pkt: Packet) -> bool:
    return (pkt.type, pkt.code) == (xcmp.UNREACHABLE, xcmp.CODE_TOO_BIG)


class XCMP(Packet):
    """A control message; the checksum is filled in when left out."""

    name = "XCMP"
    fields_desc = [
        ByteEnumField(
            "type",
            xcmp.ECHO_REQUEST,
            {0: "echo-reply", 3: "unreachable", 5: "redirect", 8: "echo-request", 11: "time-exceeded"},
        ),
        ByteField("code", 0),
        XShortField("chksum", None),
        ConditionalField(XShortField("ident", 0), _is_echo),
        ConditionalField(ShortField("seq", 0), _is_echo),
        ConditionalField(IntField("mtu", 0), _is_too_big),
        ConditionalField(XIntField("unused", 0), lambda pkt: not _is_echo(pkt) and not _is_too_big(pkt)),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        """Fill in the checksum."""
        if self.chksum is None:
            pkt = pkt[:2] + xcmp.checksum(pkt[:2] + b"\0\0" + pkt[4:] + pay).to_bytes(2, "big") + pkt[4:]
        return pkt + pay

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        """Errors quote an XIP header."""
        quoted: type[Packet] = Raw if _is_echo(self) else XIPerror
        return quoted


class XARP(Packet):
    """A XARP request or reply."""

    name = "XARP"
    fields_desc = [
        ShortField("hrd", 1),
        XShortField("pro", xip.ETH_P_XIP),
        ByteField("hln", 6),
        ByteField("pln", 24),
        ShortEnumField("op", xarp.REQUEST, {xarp.REQUEST: "request", xarp.REPLY: "reply"}),
        MACField("sha", "00:00:00:00:00:00"),
        XStrFixedLenField("spa", bytes(24), 24),
        MACField("tha", "00:00:00:00:00:00"),
        XStrFixedLenField("tpa", bytes(24), 24),
    ]

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """What follows is Ethernet padding."""
        return b"", s


class _WordHeader(Packet):
    """An extension header whose length byte is filled in."""

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        """Fill in the length in words."""
        if self.off is None:
            pkt = pkt[:1] + bytes([len(pkt) // 4]) + pkt[2:]
        return pkt + pay


class FID(_WordHeader):
    """The FID extension header of flooded packets."""

    name = "FID"
    fields_desc = [
        ByteEnumField("nxt", xip.NXT_DATA, NEXT_HEADERS),
        ByteField("off", None),
        ShortField("pad", 0),
        IntField("seq", 0),
        IntField("timestamp", 0),
    ]


class XDGRAM(_WordHeader):
    """The datagram header."""

    name = "XDGRAM"
    fields_desc = [
        ByteEnumField("nxt", xip.NXT_DATA, NEXT_HEADERS),
        ByteField("off", None),
        ShortField("pad", 0),
        StrLenField("extra", b"", length_from=lambda pkt: max(0, 4 * pkt.off - 4)),
    ]


class MIGRATE(_WordHeader):
    """The MIGRATE extension header."""

    name = "MIGRATE"
    fields_desc = [
        ByteEnumField("nxt", xip.NXT_DATA, NEXT_HEADERS),
        ByteField("off", None),
        ShortField("pad", 0),
        *MIGRATE_BODY,
    ]


class MIGRATEACK(_WordHeader):
    """The MIGRATEACK extension header."""

    name = "MIGRATEACK"
    fields_desc = [
        ByteEnumField("nxt", xip.NXT_DATA, NEXT_HEADERS),
        ByteField("off", None),
        ShortField("pad", 0),
        *ACK_BODY,
    ]


class XSTREAM(_WordHeader):
    """The stream header; `off` is filled in when left out."""

    name = "XSTREAM"
    fields_desc = [
        ByteEnumField("nxt", xip.NXT_DATA, NEXT_HEADERS),
        ByteField("off", None),
        FlagsField("flags", 0, 16, _STREAM_FLAGS),
        IntField("seq", 0),
        IntField("ack", 0),
        IntField("win", 0),
        PacketListField(
            "options", [], XOption, length_from=lambda pkt: max(0, 4 * pkt.off - xstream.HEADER_LEN)
        ),
    ]


bind_layers(Ether, XIP, type=xip.ETH_P_XIP)
bind_layers(Ether, XARP, type=xip.ETH_P_XARP)
bind_layers(XIP, XCMP, nxt=xip.NXT_XCMP)
for _lower in (XIP, FID, MIGRATE, MIGRATEACK, XDGRAM):
    for _nxt, _upper in (
        (xip.NXT_XDGRAM, XDGRAM),
        (xip.NXT_XSTREAM, XSTREAM),
        (xip.NXT_FID, FID),
        (xip.NXT_MIGRATE, MIGRATE),
        (xip.NXT_MIGRATEACK, MIGRATEACK),
    ):
        bind_layers(_lower, _upper, nxt=_nxt)
