"""Extension headers, FID and XDGRAM: golden frames and refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.golden import FRAMES
from tests.wire.strategies import acks, migrates, u8, u32
from xiatb.errors import WireError
from xiatb.wire import extension, migrate, xdgram, xip
from xiatb.wire.extension import Extension, Fid


def test_golden_routing_hello_has_fid_then_xdgram():
    frame = FRAMES["xroute_hello_fid"]
    header = xip.parse(frame, 14)
    found, data = extension.chain(header.nxt, frame, header.payload_off, header.end)
    assert [one.kind for one in found] == [xip.NXT_FID, xip.NXT_XDGRAM]
    fid = extension.parse_fid(frame, found[0].start)
    assert fid == Fid(xip.NXT_XDGRAM, 0x9B7EFE03, 0x6B02B1BA)
    assert extension.pack_fid(*fid) == frame[found[0].start : found[0].end]
    assert xdgram.pack(frame[data : header.end]) == frame[found[1].start : header.end]


@pytest.mark.parametrize("name", ["xdgram_100B", "ns_query"])
def test_golden_datagrams_both_ways(name):
    frame = FRAMES[name]
    header = xip.parse(frame, 14)
    nxt, data = xdgram.parse(frame, header.payload_off)
    assert nxt == xip.NXT_DATA
    assert xdgram.pack(frame[data : header.end]) == bytes(header.payload)
    assert xdgram.HEADER + frame[data : header.end] == bytes(header.payload)
    assert extension.chain(header.nxt, frame, header.payload_off, header.end)[1] == data


def test_golden_name_query_says_what_it_asks():
    frame = FRAMES["ns_query"]
    header = xip.parse(frame, 14)
    assert (
        frame[xdgram.parse(frame, header.payload_off)[1] : header.end]
        == b"\x02\x00www_s.dgram_echo.aaa.xia\0"
    )


@given(u8, u32, u32)
def test_fid_round_trip(nxt, seq, timestamp):
    built = extension.pack_fid(nxt, seq, timestamp)
    assert len(built) == extension.FID_LEN
    assert extension.parse_fid(b"xx" + built, 2) == Fid(nxt, seq, timestamp)


@given(st.lists(migrates | acks, max_size=3), st.booleans(), st.binary(max_size=20))
def test_chains_of_moves_in_front_of_a_datagram(messages, flood, data):
    """XIP -> [FID] -> MIGRATE* -> XDGRAM -> data."""
    kinds = [migrate.number_of(message) for message in messages] + [xip.NXT_XDGRAM]
    parts = [migrate.pack_header(m, nxt) for m, nxt in zip(messages, kinds[1:], strict=True)]
    if flood:
        parts.insert(0, extension.pack_fid(kinds[0], 1, 2))
        kinds.insert(0, xip.NXT_FID)
    buf = b"".join(parts) + xdgram.HEADER + data
    found, end = extension.chain(kinds[0], buf, 0, len(buf))
    assert [one.kind for one in found] == kinds
    assert buf[end:] == data
    moves = [one for one in found if one.kind in (xip.NXT_MIGRATE, xip.NXT_MIGRATEACK)]
    assert [migrate.parse_header(one.kind, buf, one.start, one.end) for one in moves] == messages


def test_data_and_xcmp_have_no_extension_headers():
    assert extension.chain(xip.NXT_DATA, b"abc", 1, 3) == ([], 1)
    assert extension.chain(xip.NXT_XCMP, b"abc", 1, 3) == ([], 1)
    assert extension.chain(xip.NXT_XDGRAM, xdgram.HEADER, 0, 4) == ([Extension(xip.NXT_XDGRAM, 0, 4)], 4)


@pytest.mark.parametrize(
    ("buf", "message"),
    [
        (b"", "truncated"),
        (b"\x00", "truncated"),
        (b"\x00\x00\x00\x00", "0 bytes does not fit"),
        (b"\x00\x02\x00\x00", "8 bytes does not fit 4"),
        (b"\x02\x01\x00\x00" * 9, "more than 8"),
        (b"\x02\x01\x00\x00" * 3, "truncated"),
    ],
)
def test_broken_chains_are_refused(buf, message):
    with pytest.raises(WireError, match=message):
        extension.chain(xip.NXT_XDGRAM, buf, 0, len(buf))


def test_broken_headers_are_refused():
    with pytest.raises(WireError):
        extension.parse_fid(bytes(11))
    with pytest.raises(WireError):
        extension.parse_fid(b"\x02\x04" + bytes(14))
    for bad in (b"", b"\x00\x01\x00", b"\x00\x00\x00\x00", b"\x00\x02\x00\x00"):
        with pytest.raises(WireError):
            xdgram.parse(bad)
