"""The XIP header: golden frames, padding, truncation, caches."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.golden import FRAMES, XIP_FRAMES
from tests.wire.strategies import dags, small_dags, u8
from xiatb.errors import WireError
from xiatb.wire import xip
from xiatb.wire.dag import DAG, ENTRY
from xiatb.wire.xid import XID, XidType

AD = XID(XidType.AD, bytes(20))
HID = XID(XidType.HID, bytes(20))


@pytest.mark.parametrize("name", XIP_FRAMES)
def test_golden_frames_both_ways(name):
    frame = XIP_FRAMES[name]
    header = xip.parse(frame, 14)
    assert header.end == len(frame)
    again = xip.build(
        header.nxt, header.dst_wire, header.src_wire, header.payload, hlim=header.hlim, last=header.last
    )
    assert again == frame[14:]
    assert header.src().to_wire() == header.src_wire
    assert header.dst().intent.key == header.intent_key
    assert header.src().intent.key == header.src_intent_key
    if header.last == ENTRY:
        assert header.dst().to_wire() == header.dst_wire


def test_worked_example_of_the_reference():
    header = xip.parse(FRAMES["xstream_syn"], 14)
    assert (header.ver, header.nxt, header.plen, header.hlim) == (1, xip.NXT_XSTREAM, 36, 249)
    assert (header.dnode, header.snode, header.last, header.header_len) == (3, 3, ENTRY, 176)
    assert str(header.dst().intent) == "SID:e588f1d7ca0715f14c28a4b833fac254f9de00b7"


@given(dags, dags, u8, u8, st.binary(max_size=100), st.binary(max_size=50), st.integers(0, 20), st.data())
def test_round_trip_with_padding_at_any_offset(dst, src, nxt, hlim, payload, padding, off, data):
    last = data.draw(st.sampled_from([ENTRY, *range(len(dst))]))
    built = xip.build(nxt, dst, src, payload, hlim=hlim, last=last)
    buf = bytes(off) + built + padding
    header = xip.parse(buf, off)
    assert (header.nxt, header.hlim, header.last) == (nxt, hlim, last)
    assert header.dst() == dst
    assert header.src() == src
    assert bytes(header.payload) == payload
    assert bytes(buf[off : header.end]) == built
    assert header.intent_key == dst.intent.key
    assert header.src_intent_key == src.intent.key
    assert xip.parse_fast(memoryview(bytearray(buf)), off) == (
        nxt,
        len(payload),
        hlim,
        len(dst),
        len(src),
        last,
        off + header.header_len,
    )


@given(small_dags, small_dags, st.binary(max_size=20))
def test_every_truncation_is_refused(dst, src, payload):
    packet = xip.build(xip.NXT_DATA, dst, src, payload)
    for length in range(len(packet)):
        with pytest.raises(WireError):
            xip.parse_fast(packet[:length])


def fixed(ver=1, plen=0, dnode=1, snode=1, last=ENTRY, nodes=2) -> bytes:
    return struct.pack(">BBHBBBB", ver, 0, plen, 250, dnode, snode, last) + bytes(28 * nodes)


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (b"", "truncated in its fixed part"),
        (bytes(7), "truncated in its fixed part"),
        (fixed(ver=0), "version 0"),
        (fixed(dnode=0, nodes=1), "destination of 0 nodes"),
        (fixed(dnode=21, nodes=22), "destination of 21 nodes"),
        (fixed(snode=0, nodes=1), "source of 0 nodes"),
        (fixed(snode=255, nodes=1), "source of 255 nodes"),
        (fixed(nodes=1), "header truncated: 36 bytes of 64"),
        (fixed(plen=1), "payload truncated: 0 bytes of 1"),
        (fixed(last=1), "last visited node 1"),
        (fixed(last=0xFF), "last visited node 255"),
    ],
)
def test_complaints(packet, message):
    with pytest.raises(WireError, match=message):
        xip.parse(packet)


def test_partial_packets_of_xcmp_errors():
    packet = xip.build(xip.NXT_XDGRAM, DAG.host(AD, HID), DAG.host(AD, HID), bytes(100))
    header = xip.parse_partial(packet[:130])
    assert (header.plen, len(header.payload)) == (100, 130 - header.header_len)
    for cut in (0, 7, 8, 100, header.header_len - 1):
        with pytest.raises(WireError):
            xip.parse_partial(packet[:cut])
    with pytest.raises(WireError, match="last visited"):
        xip.parse_partial(fixed(last=9))


def test_build_refuses_what_does_not_fit():
    dag = DAG.host(AD, HID)
    for arguments in (
        (256, dag, dag, b""),
        (-1, dag, dag, b""),
        (0, b"", dag, b""),
        (0, dag, bytes(27), b""),
        (0, dag, bytes(28 * 21), b""),
        (0, dag, dag, bytes(65536)),
    ):
        with pytest.raises(WireError):
            xip.build(*arguments)
    with pytest.raises(WireError):
        xip.build(0, dag, dag, b"", hlim=256)
    with pytest.raises(WireError):
        xip.build(0, dag, dag, b"", last=2)


def test_the_dag_cache_is_bounded():
    one = DAG.host(AD, HID).to_wire()
    assert xip.dag_of(one) is xip.dag_of(bytes(bytearray(one)))
    for number in range(3000):
        xip.dag_of(DAG.host(AD, XID(XidType.HID, number.to_bytes(20, "big"))).to_wire())
    assert len(xip._dags) <= xip._CACHE_SIZE
    assert xip.dag_of(one) == DAG.host(AD, HID)
