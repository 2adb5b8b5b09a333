"""XCMP: golden frames, checksums, quoted packets."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.golden import FRAMES
from tests.wire.strategies import small_dags, u16, u32
from xiatb.errors import WireError
from xiatb.wire import xcmp, xip
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID, XidType

ECHOES = ["xcmp_echo_request_2ad", "xcmp_echo_request_2ad_at_dest", "xcmp_echo_reply"]


def payload_of(name: str) -> bytes:
    return bytes(xip.parse(FRAMES[name], 14).payload)


def xid(kind: XidType, number: int) -> XID:
    return XID(kind, number.to_bytes(20, "big"))


AD, HID, SID = xid(XidType.AD, 1), xid(XidType.HID, 1), xid(XidType.SID, 1)


@pytest.mark.parametrize("name", ECHOES)
def test_golden_echoes_both_ways(name):
    payload = payload_of(name)
    message = xcmp.parse(payload)
    assert not message.is_error
    assert message.ident == 0x583F
    request = message.type == xcmp.ECHO_REQUEST
    assert xcmp.echo(request, message.ident, message.seq, message.data) == payload


def test_golden_reply_is_made_from_the_request():
    assert xcmp.reply_to(payload_of("xcmp_echo_request_2ad")) == payload_of("xcmp_echo_reply")


def test_golden_unreachable_both_ways():
    payload = payload_of("xcmp_unreach_host")
    message = xcmp.parse(payload)
    assert (message.type, message.code, message.mtu) == (xcmp.UNREACHABLE, xcmp.CODE_HOST, None)
    header = message.original()
    assert (header.nxt, header.plen, len(header.payload)) == (xip.NXT_XCMP, 64, 8)
    assert xcmp.unreachable(xcmp.CODE_HOST, message.data) == payload
    assert xcmp.unreachable(xcmp.CODE_HOST, message.data + bytes(56)) == payload
    assert xcmp.unreachable_code(message.data) == xcmp.CODE_HOST, "as xia-core decided"


def slow_checksum(data: bytes) -> int:
    """RFC 1071 in its own words."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@given(
    st.binary(max_size=300) | st.integers(0, 40).map(lambda n: b"\xff" * n) | st.integers(0, 40).map(bytes)
)
def test_checksum_is_rfc_1071(data):
    assert xcmp.checksum(data) == slow_checksum(data)


@given(st.booleans(), u16, u16, st.binary(max_size=200))
def test_echo_round_trip(request_, ident, seq, data):
    built = xcmp.echo(request_, ident, seq, data)
    message = xcmp.parse(built)
    assert (message.ident, message.seq, message.data) == (ident, seq, data)
    assert message.type == (xcmp.ECHO_REQUEST if request_ else xcmp.ECHO_REPLY)
    if request_:
        assert xcmp.reply_to(built) == xcmp.echo(False, ident, seq, data)


@given(small_dags, small_dags, st.binary(max_size=40), u32)
def test_errors_quote_header_and_eight_bytes(dst, src, payload, mtu):
    packet = xip.build(xip.NXT_XDGRAM, dst, src, payload)
    quoted = packet[: len(packet) - len(payload) + min(8, len(payload))]
    for built, kind, code in (
        (xcmp.unreachable(xcmp.CODE_INTENT, packet + b"padding"), xcmp.UNREACHABLE, xcmp.CODE_INTENT),
        (xcmp.time_exceeded(packet), xcmp.TIME_EXCEEDED, 0),
        (xcmp.too_big(mtu, packet), xcmp.UNREACHABLE, xcmp.CODE_TOO_BIG),
    ):
        message = xcmp.parse(built)
        assert (message.type, message.code, message.data) == (kind, code, quoted)
        assert message.is_error
        assert xcmp.is_error(built)
        assert message.original().dst() == dst
        assert message.mtu == (mtu if code == xcmp.CODE_TOO_BIG else None)


@given(st.binary(max_size=100), st.integers(0, 10_000))
def test_a_flipped_bit_is_noticed(data, where):
    built = bytearray(xcmp.echo(True, 1, 2, data))
    bit = where % (8 * len(built))
    built[bit // 8] ^= 1 << bit % 8
    with pytest.raises(WireError, match="checksum"):
        xcmp.parse(built)


def test_unreachable_code_is_that_of_the_first_unvisited_edge():
    source = DAG.host(AD, HID)
    dag = DAG.service(AD, HID, SID)
    assert xcmp.unreachable_code(xip.build(0, dag, source, b"")) == xcmp.CODE_INTENT
    assert xcmp.unreachable_code(xip.build(0, DAG.host(AD, HID), source, b"")) == xcmp.CODE_NET
    assert xcmp.unreachable_code(xip.build(0, dag, source, b"", last=0)) == xcmp.CODE_HOST
    assert xcmp.unreachable_code(b"\0\0" + xip.build(0, dag, source, b"", last=0), 2) == xcmp.CODE_HOST


def test_refusals():
    with pytest.raises(WireError, match="at least 8"):
        xcmp.parse(bytes(7))
    with pytest.raises(WireError, match="quotes no packet"):
        xcmp.parse(xcmp.echo(True, 0, 0)).original()
    with pytest.raises(WireError):
        xcmp.echo(True, 65536, 0)
    with pytest.raises(WireError):
        xcmp.too_big(2**32, xip.build(0, DAG.host(AD, HID), DAG.host(AD, HID), b""))
    with pytest.raises(WireError):
        xcmp.time_exceeded(b"short")
    assert xcmp.is_error(b"")
