"""The observer of QEMU's stream, on synthetic streams and on garbage."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xiatb.migration.qemustream import QemuStream

HEAD = b"QEVM\x00\x00\x00\x03"
RAM = b"pc.ram"


def u32(n: int) -> bytes:
    return struct.pack(">I", n)


def u64(n: int) -> bytes:
    return struct.pack(">Q", n)


def name(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def configuration() -> bytes:
    return (
        b"\x07"
        + u32(10)
        + b"pc-q35-7.2"
        + b"\x05"
        + name(b"configuration/capabilities")
        + u32(1)
        + u32(2)
        + name(b"events")
        + name(b"return-path")
        + b"\x05"
        + name(b"configuration/target-page-bits")
        + u32(1)
        + u32(12)
        + b"\x08\x00\x01\x00\x00"
        + b"\x08\x00\x02\x00\x04"
        + u32(1)
    )


def page(addr: int, kind: str, block: bytes = b"") -> bytes:
    flag = {"zero": 0x02, "normal": 0x08, "xbzrle": 0x40}[kind] | (0 if block else 0x20)
    body = {"zero": b"\0", "normal": bytes(4096), "xbzrle": b"\x01\x00\x03abc"}[kind]
    return u64(addr | flag) + (name(block) if block else b"") + body


def section(kind: int, records: bytes) -> bytes:
    start = bytes((kind,)) + u32(2)
    if kind == 1:
        start += name(b"ram") + u32(0) + u32(4)
        start += u64(0x30000 | 4) + name(RAM) + u64(0x20000) + name(b"pc.bios") + u64(0x10000)
    return start + records + u64(0x10) + b"\x7e" + u32(2)


def stream() -> bytes:
    first = page(0, "normal", RAM) + page(0x1000, "zero") + page(0x2000, "normal")
    second = page(0x0, "zero", b"pc.bios") + page(0x1000, "normal")
    again = page(0x1000, "normal", RAM) + page(0x3000, "xbzrle")
    return (
        HEAD
        + configuration()
        + section(1, b"")
        + section(2, first)
        + section(2, second)
        + section(3, again)
        + b"\x04device state of unknown length\x00\x06"
    )


@pytest.mark.parametrize("size", [1, 2, 7, 100, 4096, 1 << 20])
def test_counts_do_not_depend_on_how_the_stream_is_cut(size: int) -> None:
    data, watched = stream(), QemuStream(lambda: 0)
    for at in range(0, len(data), size):
        watched.feed(data[at : at + size])
    report = watched.as_dict()
    assert (report["zero"], report["normal"], report["xbzrle"]) == (2, 4, 1)
    assert report["passes"] == [
        {"zero": 2, "normal": 3, "xbzrle": 0, "repeated": 2, "resent": 0, "unchanged": 0},
        {"zero": 0, "normal": 1, "xbzrle": 1, "repeated": 1, "resent": 1, "unchanged": 1},
    ]
    assert report["off"] == ""
    assert report["device_tail_bytes"] == len(b"\x04device state of unknown length\x00\x06")
    assert {name: block.size for name, block in watched.ledger.blocks.items()} == {
        "pc.ram": 0x20000,
        "pc.bios": 0x10000,
    }


def test_events_place_the_cuts() -> None:
    """Without a jump in the page order a pass begins at the first part after its event."""
    clock = iter(range(0, 10_000, 1000))
    watched = QemuStream(lambda: next(clock))
    watched.feed(HEAD + section(1, page(0, "normal", RAM)))
    watched.next_pass(500)
    watched.feed(section(2, page(0x1000, "normal")) + section(3, page(0x2000, "zero")))
    assert [(one.zero, one.normal) for one in watched.ledger.passes()] == [(0, 1), (1, 1)]


def test_a_pass_without_pages_is_empty() -> None:
    watched = QemuStream(lambda: 0)
    watched.feed(HEAD + section(1, page(0, "normal", RAM)))
    watched.next_pass(10)
    assert [one.normal for one in watched.ledger.passes()] == [1, 0]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        HEAD + b"\x09",
        HEAD + b"\x01" + u32(1) + name(b"dirty-bitmap") + bytes(8),
        HEAD + b"\x02" + u32(7),
        HEAD + section(1, page(0, "normal", b"unknown")),
        HEAD + section(1, u64(0x800)),
        HEAD + b"\x07" + u32(1 << 30),
        HEAD + section(1, page(0, "normal")),
    ],
)
def test_unknown_things_switch_it_off(data: bytes) -> None:
    watched = QemuStream(lambda: 0)
    watched.feed(data)
    watched.feed(b"more")
    assert watched.off not in ("", "tail")
    assert watched.as_dict()["off"] == watched.off


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 4000), st.integers(1, 255))
def test_it_never_raises(noise: bytes, at: int, mask: int) -> None:
    QemuStream(lambda: 0).feed(noise)
    watched = QemuStream(lambda: 0)
    data = bytearray(stream())
    data[at % len(data)] ^= mask
    watched.feed(bytes(data[: len(data) // 2]))
    watched.feed(noise)
    watched.feed(bytes(data[len(data) // 2 :]))
    watched.as_dict()
