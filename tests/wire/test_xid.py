"""XIDs: text, keys, order, and errors that name the place."""

import copy
import pickle

import pytest
from hypothesis import given

from tests.wire.strategies import xids
from xiatb.errors import WireError
from xiatb.wire.xid import BROADCAST_FID, SID_DHCP, SID_NS, SID_XROUTE, XID, XidType

HEX = "0123456789abcdef0123456789abcdef01234567"


@given(xids)
def test_text_and_key_round_trip(xid):
    assert XID.parse(str(xid)) == xid
    assert XID.from_key(xid.key) == xid
    assert XID(xid.type, xid.id) == xid
    assert hash(XID.from_key(xid.key)) == hash(xid)
    assert pickle.loads(pickle.dumps(xid)) == copy.deepcopy(xid) == xid


@given(xids, xids)
def test_order_is_that_of_the_key(one, other):
    assert (one < other) == (one.key < other.key)
    assert (one >= other) == (one.key >= other.key)


@pytest.mark.parametrize("text", [f"sid:{HEX}", f"SID:{HEX.upper()}", f"Sid:{HEX}", f"0x13:{HEX}"])
def test_type_and_hex_in_any_case(text):
    assert str(XID.parse(text)) == f"SID:{HEX}"


def test_ipv4_text_is_the_4id_of_xia_core():
    xid = XID.parse("IP:128.2.208.168")
    assert xid.type == XidType.IP
    assert xid.id.hex() == "4500000000010000fafa0000000000008002d0a8"
    assert XID.parse(str(xid)) == xid


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected TYPE:ID at character 0"),
        ("AD", "expected TYPE:ID at character 0"),
        (f"XX:{HEX}", "unknown XID type 'XX' at character 0"),
        (f"0x100000000:{HEX}", "unknown XID type"),
        (f"AD:{HEX[:-1]}", "at character 3 has 39 hex digits"),
        (f"AD:{HEX}0", "at character 3 has 41 hex digits"),
        (f"AD:{HEX[:10]}g{HEX[11:]}", "'g', not a hex digit, at character 13"),
        ("IP:1.2.3.256", "octet above 255"),
        ("IP:1.2.3", "not a hex digit, at character 4"),
    ],
)
def test_bad_text_is_refused_with_its_place(text, message):
    with pytest.raises(WireError, match="(?s)" + message):
        XID.parse(text)


def test_place_counts_from_where_the_text_began():
    with pytest.raises(WireError, match="character 17"):
        XID.parse(f"XX:{HEX}", 17)


def test_wrong_sizes_are_refused():
    with pytest.raises(WireError):
        XID(XidType.AD, b"short")
    with pytest.raises(WireError):
        XID(2**32, bytes(20))
    with pytest.raises(WireError):
        XID(-1, bytes(20))
    with pytest.raises(WireError):
        XID.from_key(bytes(23))


def test_an_xid_does_not_change():
    xid = XID(XidType.AD, bytes(20))
    with pytest.raises(AttributeError):
        xid.key = bytes(24)
    with pytest.raises(AttributeError):
        xid.extra = 1


def test_well_known_ids():
    assert str(BROADCAST_FID) == "FID:" + "ff" * 20
    assert str(SID_DHCP) == "SID:1110000000000000000000000000000000001111"
    assert str(SID_XROUTE) == "SID:1110000000000000000000000000000000001112"
    assert str(SID_NS) == "SID:1110000000000000000000000000000000001113"
