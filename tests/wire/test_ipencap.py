"""XIP in IPv4: the bytes, the checks, hostile datagrams; ARP beside it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiatb.errors import WireError
from xiatb.wire import arp, ipencap
from xiatb.wire.xid import XID, XidType, address_of, four_id

A, B = bytes((192, 0, 2, 1)), bytes((198, 51, 100, 2))
INNER = b"\x01" + bytes(99)


def packet(inner: bytes = INNER) -> bytes:
    return ipencap.headers(A, B, len(inner), 7) + inner


def test_bytes() -> None:
    wire = packet()
    assert wire[:2] == b"\x45\x00" and wire[2:4] == struct.pack(">H", 128) and wire[8:10] == b"\xfa\x11"
    assert ipencap.checksum(wire[:20]) == 0
    assert wire[20:28] == struct.pack(">HHHH", 13781, 13781, 108, 0)
    assert ipencap.parse(b"x" * 14 + wire + b"padding", 14) == (A, B, 42, 142)
    with pytest.raises(WireError):
        ipencap.headers(A, B, 65535, 0)


def test_options_and_udp_checksum() -> None:
    udp = struct.pack(">HHHH", 9999, 13781, 8 + len(INNER), 0) + INNER
    check = ipencap.checksum(A + B + struct.pack(">HH", 17, len(udp)) + udp)
    udp = udp[:6] + struct.pack(">H", check) + udp[8:]
    head = struct.pack(">BBHHHBBH4s4s", 0x46, 0, 24 + len(udp), 1, 0, 9, 17, 0, A, B) + bytes(4)
    head = head[:10] + struct.pack(">H", ipencap.checksum(head)) + head[12:]
    inside = ipencap.parse(head + udp)
    assert (head + udp)[inside.start : inside.end] == INNER
    with pytest.raises(WireError, match="UDP checksum"):
        ipencap.parse(head + udp[:-1] + b"\x01")


@pytest.mark.parametrize(
    ("at", "value"), [(0, b"\x65"), (0, b"\x44"), (2, b"\xff\xff"), (2, b"\x00\x14"),
                      (6, b"\x20\x00"), (6, b"\x00\x05"), (9, b"\x06"), (22, b"\x00\x09"),
                      (24, b"\x00\x07"), (24, b"\xff\xff")],
)  # fmt: skip
def test_broken_headers_are_refused(at: int, value: bytes) -> None:
    wire = bytearray(packet())
    wire[at : at + len(value)] = value
    wire[10:12] = b"\0\0"
    wire[10:12] = struct.pack(">H", ipencap.checksum(wire[: 4 * (wire[0] & 15)]))
    with pytest.raises(WireError):
        ipencap.parse(wire)


@given(st.binary(max_size=120), st.integers(0, 40))
def test_any_bytes(data: bytes, off: int) -> None:
    try:
        inside = ipencap.parse(data, off)
    except WireError:
        return
    assert off + 28 <= inside.start <= inside.end <= len(data)


@given(st.integers(0, 19), st.integers(1, 255))
def test_any_changed_byte_of_the_ip_header(at: int, change: int) -> None:
    wire = bytearray(packet())
    wire[at] ^= change
    with pytest.raises(WireError):
        ipencap.parse(wire)


@given(st.binary(min_size=4, max_size=4))
def test_four_ids(address: bytes) -> None:
    assert address_of(four_id(address).key) == address
    assert XID.parse(f"IP:{'.'.join(map(str, address))}") == four_id(address)
    assert address_of(XID(XidType.IP, bytes(20)).key) is None


@given(st.binary(max_size=60))
def test_any_arp(data: bytes) -> None:
    try:
        found = arp.parse(data)
    except WireError:
        return
    assert found.pack() == data[: arp.LEN]


def test_arp() -> None:
    message = arp.Arp(arp.REQUEST, b"\2" * 6, A, bytes(6), B)
    assert arp.parse(message.pack() + bytes(18)) == message
    with pytest.raises(WireError):
        arp.parse(b"\0\2" + message.pack()[2:])
