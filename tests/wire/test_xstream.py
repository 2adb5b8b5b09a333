"""The stream header: golden frames, options, refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.golden import FRAMES, XIP_FRAMES
from tests.wire.strategies import stream_headers, u32
from xiatb.errors import WireError
from xiatb.wire import xip, xstream
from xiatb.wire.xstream import ACK, SYN, Header, Options

STREAM_FRAMES = [name for name, frame in XIP_FRAMES.items() if frame[15] == xip.NXT_XSTREAM]


@pytest.mark.parametrize("name", STREAM_FRAMES)
def test_golden_frames_both_ways(name):
    frame = XIP_FRAMES[name]
    outer = xip.parse(frame, 14)
    header = xstream.parse(frame, outer.payload_off, outer.end)
    assert header.pack() == frame[outer.payload_off : outer.payload_off + header.length]


def test_golden_syn_in_detail():
    outer = xip.parse(FRAMES["xstream_syn"], 14)
    header = xstream.parse(outer.payload)
    assert (header.flags, header.seq, header.ack, header.win) == (SYN, 0x86F1C6A2, 0, 65535)
    assert header.options == Options(mss=1500, wscale=4, timestamp=(0x2014, 0))
    assert header.length == 36


def test_golden_data_in_detail():
    outer = xip.parse(FRAMES["xstream_data_300B"], 14)
    header = xstream.parse(outer.payload)
    assert header.flags == ACK
    assert len(outer.payload) - header.length == 300
    stamp, echo = header.options.timestamp
    assert xstream.pack_plain(ACK, header.seq, header.ack, header.win, stamp, echo) == bytes(
        outer.payload[: header.length]
    )


def test_golden_migrate_option_is_kept_as_it_is():
    outer = xip.parse(FRAMES["xstream_migrate"], 14)
    header = xstream.parse(outer.payload)
    assert len(header.options.migrate) == 744 - 2
    assert header.options.migrate.startswith(b"\x03\x00\x4c\x01")


@given(stream_headers(), st.binary(max_size=30), st.integers(0, 8))
def test_round_trip(header, data, off):
    built = header.pack()
    buf = bytes(off) + built + data
    again = xstream.parse(buf, off)
    assert (again.flags, again.seq, again.ack, again.win) == (
        header.flags,
        header.seq,
        header.ack,
        header.win,
    )
    assert again.options == header.options
    assert again.length == len(built)
    assert len(built) % 4 == 0
    assert again.pack() == built
    assert xstream.parse(memoryview(buf), off, off + len(built)).length == len(built)


@given(u32, u32, u32, u32, u32)
def test_quick_header_is_the_general_one(seq, ack, win, stamp, echo):
    general = xstream.pack(ACK, seq, ack, win, Options(timestamp=(stamp, echo)))
    assert xstream.pack_plain(ACK, seq, ack, win, stamp, echo) == general
    assert xstream.pack_plain(ACK, seq + 2**32, ack - 2**32, win, stamp + 2**32, echo) == general


def test_end_of_list_and_no_operation():
    options = xstream.parse_options(b"\x01\x01\x02\x01\x05\xdc\x00\xff\xff\xff")
    assert options == Options(mss=1500)


@given(stream_headers())
def test_every_truncation_is_refused(header):
    built = header.pack()
    for length in range(0, len(built), 3):
        with pytest.raises(WireError):
            xstream.parse(built[:length])
        with pytest.raises(WireError):
            xstream.parse(built, 0, length)


def with_options(raw: bytes) -> bytes:
    raw = raw.ljust(-(-len(raw) // 4) * 4, b"\0")
    return bytes((0, 4 + len(raw) // 4)) + bytes(14) + raw


@pytest.mark.parametrize(
    "raw",
    [
        b"\x02\x00\x05\xdc",
        b"\x02\x02\x05\xdc",
        b"\x02\x02\x05\xdc\x00\x00\x00\x00",
        b"\x03\x02\x00\x04\x00\x00\x00\x00",
        b"\x05\x02\x00\x00\x00\x00\x00\x00",
        b"\x08\x01\x00\x00",
        b"\x08\x02\x00\x00\x00\x00\x00\x00",
        b"\x08\x03\x00\x00\x00\x00\x00\x00",
        b"\x32\xff\x00\x00",
        b"\x01\x01\x01\xfe",
    ],
)
def test_bad_options_are_refused(raw):
    with pytest.raises(WireError, match="option"):
        xstream.parse(with_options(raw))


def test_what_does_not_fit_is_refused():
    for options in (
        Options(mss=65536),
        Options(wscale=256),
        Options(migrate=bytes(1100)),
        Options(sack=((0, 1),) * 130),
        Options(other=((300, b""),)),
        Options(other=((1, b""),)),
        Options(migrate=bytes(700), migrate_ack=bytes(300)),
    ):
        with pytest.raises(WireError):
            Header(ACK, 0, 0, 0, options).pack()
    with pytest.raises(WireError):
        xstream.pack(0x10000, 0, 0, 0)
    with pytest.raises(WireError):
        xstream.pack(0, 0, 0, 2**32)
    with pytest.raises(WireError):
        xstream.parse(bytes((0, 3)) + bytes(14))
    assert "seq=1" in repr(Header(ACK, 1, 2, 3))
