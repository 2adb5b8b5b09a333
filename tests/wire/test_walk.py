"""The walk: what forwarding does with a destination DAG."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.strategies import graphs, small_dags
from xiatb.errors import WireError
from xiatb.wire import walk as walking
from xiatb.wire import xip
from xiatb.wire.dag import DAG, ENTRY, NODE_LEN
from xiatb.wire.walk import DELIVER, DISCARD, FALLBACK, FORWARD, SELF, UNREACHABLE, Entry, walk
from xiatb.wire.xid import BROADCAST_FID, SID_XROUTE, XID, XidType


def xid(kind: int, number: int) -> XID:
    return XID(kind, number.to_bytes(20, "big"))


AD1, AD2 = xid(XidType.AD, 1), xid(XidType.AD, 2)
HID1, HID2 = xid(XidType.HID, 1), xid(XidType.HID, 2)
SID1, SID2, CID1 = xid(XidType.SID, 1), xid(XidType.SID, 2), xid(XidType.CID, 1)
UNKNOWN = xid(0x50, 1)
SOURCE = DAG.host(AD1, HID1)
HERE = Entry(SELF)


def packet(dag: DAG | bytes, last: int = ENTRY) -> bytearray:
    return bytearray(xip.build(xip.NXT_DATA, dag, SOURCE, b"data", last=last))


def edges_of(pkt: bytearray, node: int) -> bytes:
    at = xip.FIXED_LEN + NODE_LEN * node + 24
    return bytes(pkt[at : at + 4])


def test_first_edge_has_priority():
    pkt = packet(DAG.service(AD1, HID1, SID1))
    before = bytes(pkt)
    table = {SID1.key: Entry(3), AD1.key: Entry(1)}
    assert walk(pkt, 0, table, {}) == (FORWARD, Entry(3))
    assert bytes(pkt) == before


def test_fallback_when_the_intent_has_no_route():
    pkt = packet(DAG.service(AD1, HID1, SID1))
    before = bytes(pkt)
    assert walk(pkt, 0, {AD1.key: Entry(1, HID2.key)}, {}) == (FORWARD, Entry(1, HID2.key))
    assert bytes(pkt) == before, "plain forwarding marks nothing"


def test_unknown_principal_type_falls_back():
    """xia-core answers unreachable here; the architecture (and we) try the next edge."""
    pkt = packet(DAG.service(AD1, HID1, UNKNOWN))
    assert walk(pkt, 0, {AD1.key: Entry(1)}, {XidType.SID: Entry(2)}) == (FORWARD, Entry(1))


def test_default_of_a_type_is_used_behind_its_exact_routes():
    pkt = packet(DAG.host(AD2, HID1))
    table = {AD1.key: Entry(1)}
    assert walk(pkt, 0, table, {XidType.AD: Entry(7)}) == (FORWARD, Entry(7))
    assert walk(pkt, 0, {AD2.key: Entry(2)}, {XidType.AD: Entry(7)}) == (FORWARD, Entry(2))
    assert walk(pkt, 0, table, {XidType.AD: Entry(FALLBACK)}) == (UNREACHABLE, None)


def test_own_nodes_are_marked_and_the_walk_goes_on():
    pkt = packet(DAG.service(AD1, HID1, SID1))
    table = {AD1.key: HERE, HID1.key: Entry(4)}
    assert walk(pkt, 0, table, {}) == (FORWARD, Entry(4))
    assert pkt[7] == 0, "last is the AD now"
    assert edges_of(pkt, 2) == b"\x02\x80\x7f\x7f", "the entry's second edge is visited"
    assert edges_of(pkt, 0) == b"\x01\x7f\x7f\x7f"
    table = {AD1.key: HERE, HID1.key: HERE, SID1.key: Entry(SELF, deliver=0)}
    assert walk(pkt, 0, table, {}) == (DELIVER, Entry(SELF, deliver=0))
    assert pkt[7] == 2
    assert edges_of(pkt, 0) == b"\x81\x7f\x7f\x7f"
    assert edges_of(pkt, 1) == b"\x82\x7f\x7f\x7f"


def test_marking_is_what_xia_core_does(pair=("xcmp_echo_request_2ad", "xcmp_echo_request_2ad_at_dest")):
    """The golden frame after the second router has the AD visited and nothing else changed."""
    from tests.wire.golden import XIP_FRAMES

    before, after = (bytearray(XIP_FRAMES[name][14:]) for name in pair)
    ad_key, hid_key = bytes(before[8:32]), bytes(before[36:60])
    assert walk(before, 0, {ad_key: HERE, hid_key: Entry(1)}, {}) == (FORWARD, Entry(1))
    before[4] = after[4]
    assert before == after


def test_visited_nodes_are_not_left_again():
    """At the AD with no way on: no back-tracking to the entry's other edges."""
    dag = DAG([AD1, HID1, SID1], [(1,), (2,), ()], (0, 2))
    pkt = packet(dag)
    assert walk(pkt, 0, {AD1.key: HERE, SID1.key: Entry(1)}, {}) == (UNREACHABLE, None)
    assert pkt[7] == 0


def test_walk_starts_at_the_last_visited_node():
    pkt = packet(DAG.service(AD1, HID1, SID1), last=0)
    assert walk(pkt, 0, {AD1.key: Entry(1), HID1.key: Entry(2)}, {}) == (FORWARD, Entry(2))


def test_a_service_in_the_middle_takes_the_packet():
    """Rendezvous and chunk servers are SIDs that are not the final intent."""
    pkt = packet(DAG.chain(AD1, HID1, SID2, CID1))
    table = {AD1.key: HERE, HID1.key: HERE, SID2.key: Entry(SELF, deliver=0), CID1.key: Entry(1)}
    assert walk(pkt, 0, table, {}) == (DELIVER, Entry(SELF, deliver=0))
    assert pkt[7] == 2


def test_a_host_address_ends_at_the_host():
    pkt = packet(DAG.host(AD1, HID1))
    assert walk(pkt, 0, {AD1.key: HERE, HID1.key: HERE}, {}) == (DELIVER, HERE)


def test_routing_messages_on_the_broadcast_fid_are_delivered():
    pkt = packet(DAG.chain(BROADCAST_FID, SID_XROUTE))
    assert walk(pkt, 0, {BROADCAST_FID.key: HERE, SID_XROUTE.key: HERE}, {}) == (DELIVER, HERE)


def test_special_ports():
    pkt = packet(DAG.service(AD1, HID1, SID1))
    assert walk(pkt, 0, {SID1.key: Entry(DISCARD), AD1.key: Entry(1)}, {}) == (DISCARD, Entry(DISCARD))
    assert walk(pkt, 0, {SID1.key: Entry(FALLBACK), AD1.key: Entry(1)}, {}) == (FORWARD, Entry(1))
    assert walk(pkt, 0, {SID1.key: Entry(UNREACHABLE), AD1.key: Entry(1)}, {}) == (FORWARD, Entry(1))
    assert walk(pkt, 0, {}, {}) == (UNREACHABLE, None)


def cyclic() -> bytes:
    """Return the node list AD1 -> HID1 -> AD1 with an unreachable way out to SID1."""
    return AD1.key + b"\x01\x7f\x7f\x7f" + HID1.key + b"\x00\x02\x7f\x7f" + SID1.key + b"\x00\x7f\x7f\x7f"


def test_a_cyclic_address_is_refused_and_does_not_hang_the_walk():
    with pytest.raises(WireError, match="cycle"):
        DAG.from_wire(cyclic())
    pkt = packet(cyclic())
    assert walk(pkt, 0, {AD1.key: HERE, HID1.key: HERE}, {}) == (UNREACHABLE, None)


def test_offset_and_memoryview():
    frame = bytearray(14) + packet(DAG.service(AD1, HID1, SID1))
    table = {AD1.key: HERE, HID1.key: Entry(4)}
    assert walk(memoryview(frame), 14, table, {}) == (FORWARD, Entry(4))
    assert frame[14 + 7] == 0


def test_fifth_to_last_edges_are_all_tried():
    dag = DAG([AD1, AD2, HID1, SID1], [(3,), (3,), (3,), ()], (3, 0, 1, 2))
    assert walk(packet(dag), 0, {HID1.key: Entry(9)}, {}) == (FORWARD, Entry(9))


def model(dag: DAG, last: int, table, defaults):
    """Return (verdict, entry, last, visited edges) by the words of design.md, on the object."""
    edges = dag.entry if last == ENTRY else dag.edges[last]
    owner = len(dag) - 1 if last == ENTRY else last
    visited = []
    while True:
        for slot, target in enumerate(edges):
            name = dag.nodes[target]
            entry = table.get(name.key) or defaults.get(name.type)
            if entry is None or (entry.port < 0 and entry.port not in (SELF, DISCARD)):
                continue
            if entry.port != SELF:
                return (FORWARD if entry.port >= 0 else DISCARD), entry, last, visited
            visited.append((owner, slot))
            last = owner = target
            if target == len(dag) - 1 or name.type in (
                XidType.SID,
                XidType.CID,
                XidType.NCID,
                XidType.ICID,
            ):
                return DELIVER, entry, last, visited
            edges = dag.edges[target]
            break
        else:
            return UNREACHABLE, None, last, visited


few_xids = st.sampled_from([AD1, AD2, HID1, HID2, SID1, SID2, CID1, UNKNOWN])
entries = st.builds(Entry, st.sampled_from([SELF, SELF, SELF, 0, 1, 2, DISCARD, FALLBACK, UNREACHABLE]))


@settings(max_examples=300)
@given(
    graphs(nodes=few_xids).map(lambda graph: DAG(*graph)),
    st.dictionaries(few_xids.map(lambda x: x.key), entries),
    st.dictionaries(st.sampled_from([0x10, 0x11, 0x13, 0x50]), entries),
    st.data(),
)
def test_walk_agrees_with_the_model(dag, table, defaults, data):
    last = data.draw(st.sampled_from([ENTRY, *range(len(dag) - 1)]))
    pkt = packet(dag, last)
    expected = bytearray(pkt)
    verdict, entry, at, visited = model(dag, last, table, defaults)
    expected[7] = at
    for owner, slot in visited:
        expected[xip.FIXED_LEN + NODE_LEN * owner + 24 + slot] |= 0x80
    assert walk(pkt, 0, table, defaults) == (verdict, entry)
    assert pkt == expected


@given(small_dags, st.binary(min_size=1, max_size=80), st.integers(0, 300))
def test_walk_takes_anything_that_parses(dag, noise, where):
    pkt = packet(dag)
    where %= len(pkt)
    pkt[where : where + len(noise)] = noise[: len(pkt) - where]
    try:
        xip.parse_fast(pkt)
    except WireError:
        return
    keys = [bytes(pkt[at : at + 24]) for at in range(8, len(pkt) - 24, NODE_LEN)]
    verdict, _ = walking.walk(pkt, 0, dict.fromkeys(keys, HERE), {})
    assert verdict in (DELIVER, UNREACHABLE)
