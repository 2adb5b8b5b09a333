"""XARP: the golden frame, round trips, refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.golden import FRAMES
from tests.wire.strategies import keys, macs
from xiatb.errors import WireError
from xiatb.wire import xarp
from xiatb.wire.xarp import Xarp


def test_golden_request_both_ways():
    frame = FRAMES["xarp_request"]
    message = xarp.parse(frame, 14)
    assert message.op == xarp.REQUEST
    assert message.sha.hex() == "020000000101"
    assert xarp.pack(message) == frame[14:]
    assert xarp.request(message.sha, message.spa, message.tpa) == frame[14:]


@given(st.sampled_from([xarp.REQUEST, xarp.REPLY]), macs, keys, macs, keys, st.binary(max_size=20))
def test_round_trip_with_padding(op, sha, spa, tha, tpa, padding):
    message = Xarp(op, sha, spa, tha, tpa)
    assert xarp.parse(xarp.pack(message) + padding) == message


@given(macs, keys, macs, keys)
def test_forms(mac, hid, other_mac, other_hid):
    assert xarp.parse(xarp.reply(mac, hid, other_mac, other_hid)) == Xarp(2, mac, hid, other_mac, other_hid)
    assert xarp.parse(xarp.unsolicited(mac, hid)) == Xarp(2, mac, hid, b"\xff" * 6, hid)


def test_refusals():
    good = FRAMES["xarp_request"][14:]
    for length in range(len(good)):
        with pytest.raises(WireError):
            xarp.parse(good[:length])
    for at in range(8):
        bad = bytearray(good)
        bad[at] ^= 0x80
        with pytest.raises(WireError):
            xarp.parse(bad)
    with pytest.raises(WireError):
        xarp.pack(Xarp(1, b"", bytes(24), bytes(6), bytes(24)))
    with pytest.raises(WireError):
        xarp.pack(Xarp(65536, bytes(6), bytes(24), bytes(6), bytes(24)))
