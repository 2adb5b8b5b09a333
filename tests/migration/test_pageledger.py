"""Pages of a migration: counts, digests of both sides, streams of post-copy and multifd."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.migration.test_qemustream import HEAD, RAM, configuration, name, page, section, stream, u32, u64
from xiatb.migration import pageledger, qemustream
from xiatb.migration.multifdstream import MultifdStream
from xiatb.migration.pageledger import PAGE, PageLedger, Pass, differences
from xiatb.migration.qemustream import QemuStream
from xiatb.migration.returnpath import ReturnPath


def full(addr: int, fill: int, block: bytes = b"") -> bytes:
    return u64(addr | 0x08 | (0 if block else 0x20)) + (name(block) if block else b"") + bytes([fill]) * PAGE


def watched(data: bytes, size: int = 1 << 16) -> QemuStream:
    stream = QemuStream(lambda: 0)
    for at in range(0, len(data), size):
        stream.feed(data[at : at + size])
    return stream


def test_resent_unchanged_and_repeated_pages() -> None:
    first = full(0, 1, RAM) + full(0x1000, 1) + full(0x2000, 2) + page(0x3000, "zero")
    again = full(0, 1, RAM) + full(0x1000, 3) + page(0x3000, "zero")
    ledger = watched(HEAD + section(1, first) + section(2, again)).ledger
    assert ledger.passes() == [
        Pass(zero=1, normal=3, repeated=1),
        Pass(zero=1, normal=2, repeated=1, resent=3, unchanged=2),
    ]


def test_both_sides_agree_and_a_changed_page_is_found() -> None:
    sent = bytearray(stream())
    ours = watched(bytes(sent)).ledger.summary()
    assert differences(ours, watched(bytes(sent), 100).ledger.summary()) == []
    sent[sent.index(bytes(4096))] ^= 1
    assert differences(ours, watched(bytes(sent)).ledger.summary()) == ["pc.ram at 0x0"]


def test_a_lost_page_and_a_lost_version_are_found() -> None:
    start = section(1, b"")
    both = watched(HEAD + start + section(2, full(0, 1, RAM)) + section(2, full(0, 2, RAM))).ledger.summary()
    for one in (1, 2):
        assert differences(both, watched(HEAD + start + section(2, full(0, one, RAM))).ledger.summary())


def test_the_order_of_channels_does_not_matter() -> None:
    a, b = PageLedger(), PageLedger()
    for ledger in (a, b):
        ledger.declare("pc.ram", 4 * PAGE)
    versions = [bytes([n]) * PAGE for n in range(3)]
    for data in versions:
        a.whole(a.blocks["pc.ram"], PAGE, data)
    for data in reversed(versions):
        b.whole(b.blocks["pc.ram"], PAGE, data)
    assert differences(a.summary(), b.summary()) == []


@pytest.mark.parametrize("theirs", [{}, {"pc.ram": "00"}, {"pc.ram": 7}, {"other": "00" * 8}])
def test_what_a_peer_says_may_be_anything(theirs: dict[str, str]) -> None:
    ledger = PageLedger()
    ledger.declare("pc.ram", PAGE)
    assert "pc.ram" in differences(ledger.summary(), theirs)


def postcopy() -> bytes:
    package = b"\x04" + bytes(300) + b"\x08\x00\x05\x00\x00"
    return (
        HEAD
        + configuration()
        + b"\x08\x00\x03\x00\x10"
        + bytes(16)
        + section(1, full(0, 1, RAM))
        + b"\x08\x00\x07\x00\x04"
        + u32(len(package))
        + package
        + section(2, full(0x1000, 2, RAM))
        + section(3, full(0x2000, 3, RAM))
        + b"\x00"
    )


@pytest.mark.parametrize("size", [1, 13, 1 << 16])
def test_a_postcopy_stream_is_read_to_its_end(size: int) -> None:
    seen = watched(postcopy(), size)
    assert (seen.off, seen.trouble, seen.ledger.totals.normal, seen.postcopy) == ("end", "", 3, True)
    assert seen.tail == 306


def test_a_broken_postcopy_goes_on_over_a_new_channel() -> None:
    whole = postcopy()
    seen = watched(whole[:-5000])
    seen.resumed()
    seen.feed(b"\x08\x00\x0a\x00\x07" + name(RAM) + b"\x08\x00\x09\x00\x00")
    seen.feed(section(2, full(0x1000, 2, RAM)) + section(3, full(0x2000, 3, RAM)) + b"\x00")
    assert seen.trouble == "" and seen.ledger.totals.normal >= 3


def packet(offsets: list[int], fill: int, flags: int = 0, room: int = 4) -> bytes:
    fixed = struct.pack(
        ">IIIIIIQ32x256s", 0x11223344, 1, flags, room, len(offsets), len(offsets) * PAGE, 0, b"pc.ram"
    )
    padded = offsets + [0] * (room - len(offsets))
    return fixed + struct.pack(f">{room}Q", *padded) + bytes([fill]) * PAGE * len(offsets)


INTRODUCTION = struct.pack(">II16sB7x32x", 0x11223344, 1, bytes(16), 1)


@pytest.mark.parametrize("size", [1, 1000, 1 << 16])
def test_multifd_pages_enter_the_same_ledger(size: int) -> None:
    main = watched(HEAD + section(1, b""))
    channel = MultifdStream(main.ledger)
    data = INTRODUCTION + packet([0, 0x3000], 5) + packet([], 0, flags=1) + packet([0x1000], 6)
    for at in range(0, len(data), size):
        channel.feed(data[at : at + size])
    assert (channel.off, channel.pages, channel.packets) == ("", 3, 3)
    assert main.ledger.totals == Pass(normal=3, repeated=1)


@pytest.mark.parametrize(
    "data",
    [
        bytes(64),
        INTRODUCTION + bytes(320),
        INTRODUCTION + packet([0x20000], 1),
        INTRODUCTION + packet([0], 1, flags=2),
        INTRODUCTION + packet([0], 1).replace(b"pc.ram", b"pc.rom"),
    ],
)
def test_unknown_things_switch_a_multifd_channel_off(data: bytes) -> None:
    channel = MultifdStream(watched(HEAD + section(1, b"")).ledger)
    channel.feed(data)
    channel.feed(b"more")
    assert channel.off or channel.waiting


def test_the_wait_for_a_requested_page_is_measured() -> None:
    clock = iter(range(0, 10_000_000_000, 1_000_000))
    ledger = PageLedger(lambda: next(clock))
    block = ledger.declare("pc.ram", 4 * PAGE)
    back = ReturnPath(ledger)
    back.feed(b"\x00\x02\x00\x04\x00\x00\x00\x01")
    back.feed(
        b"\x00\x03\x00\x13" + struct.pack(">QI", PAGE, PAGE) + name(RAM) + b"\x00\x01\x00\x04" + bytes(4)
    )
    ledger.whole(block, PAGE, bytes(PAGE))
    assert (back.requests, back.shut, back.off) == (1, 0, "")
    assert ledger.fault_summary() == {"count": 1, "p50_ms": 1.0, "p99_ms": 1.0, "max_ms": 1.0}


def test_a_stream_that_never_ends_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts without pages, which QEMU takes, and one list of blocks after the other."""
    monkeypatch.setattr(pageledger, "MAX_PARTS", 50)
    seen = watched(HEAD + section(1, b"") + 500 * section(2, b"") + section(2, page(0x1000, "zero", RAM)))
    assert (seen.off, len(seen.ledger.parts), seen.ledger.totals.zero) == ("", 50, 1)
    assert sum(one.zero for one in seen.ledger.passes()) == 1
    monkeypatch.setattr(qemustream, "MAX_RAM", 0x100000)
    lists = b"".join(u64(0x90000 | 4) + name(b"more%d" % n) + u64(0x90000) for n in range(3))
    seen = watched(HEAD + section(1, lists))
    assert seen.off == "implausible RAM block 'more1' of 589824 bytes"
    assert sum(block.size for block in seen.ledger.blocks.values()) <= 0x100000


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 20_000), st.integers(1, 255))
def test_observers_never_raise(noise: bytes, at: int, mask: int) -> None:
    ledger = watched(HEAD + section(1, b"")).ledger
    data = bytearray(INTRODUCTION + packet([0, 0x3000], 5) + packet([0x1000], 6))
    data[at % len(data)] ^= mask
    channel = MultifdStream(ledger)
    channel.feed(bytes(data) + noise)
    back = ReturnPath(ledger)
    back.feed(noise)
    broken = bytearray(postcopy())
    broken[at % len(broken)] ^= mask
    seen = watched(bytes(broken))
    seen.resumed()
    seen.feed(noise)
    seen.as_dict()
    ledger.summary()
