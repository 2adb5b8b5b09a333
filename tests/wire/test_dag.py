"""DAGs: golden vectors both ways, validation, equality, operators, locators."""

import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.golden import BAD_DAGS, DAGS
from tests.wire.strategies import dags, graphs, small_dags, xids
from xiatb.errors import WireError
from xiatb.wire.dag import DAG, NODE_LEN
from xiatb.wire.xid import XID, XidType


def xid(kind: XidType, number: int) -> XID:
    return XID(kind, number.to_bytes(20, "big"))


AD1, AD2 = xid(XidType.AD, 1), xid(XidType.AD, 2)
HID1, HID2 = xid(XidType.HID, 1), xid(XidType.HID, 2)
SID1, SID2 = xid(XidType.SID, 1), xid(XidType.SID, 2)
CID1 = xid(XidType.CID, 1)


@pytest.mark.parametrize("vector", DAGS, ids=lambda v: v["input"][:30])
def test_golden_text_to_wire_and_back(vector):
    dag = DAG.parse(vector["input"])
    assert dag.to_wire().hex() == vector["wire_nodes"]
    assert dag.dag_string() == vector["dag_string"]
    assert dag.url() == vector["url"]
    assert len(dag) == vector["num_nodes"]
    assert str(dag.intent) == vector["final_intent"]


@pytest.mark.parametrize("vector", DAGS, ids=lambda v: v["input"][:30])
def test_golden_wire_to_text_and_back(vector):
    dag = DAG.from_wire(bytes.fromhex(vector["wire_nodes"]))
    assert dag.dag_string() == vector["roundtrip_dag_string"]
    assert dag.to_wire().hex() == vector["wire_nodes"]
    for text in (vector["input"], vector["dag_string"], vector["url"], str(dag)):
        assert DAG.parse(text) == dag


@pytest.mark.parametrize("vector", BAD_DAGS, ids=lambda v: v["input"][:30])
def test_golden_errors_are_refused(vector):
    with pytest.raises(WireError):
        DAG.parse(vector["input"])


@given(dags)
def test_every_form_round_trips(dag):
    assert DAG.from_wire(dag.to_wire()).to_wire() == dag.to_wire()
    for text in (dag.dag_string(), dag.re_string(), dag.url()):
        again = DAG.parse(text)
        assert again == dag
        assert hash(again) == hash(dag)
    assert DAG.parse(dag.dag_string()).to_wire() == dag.to_wire()
    assert pickle.loads(pickle.dumps(dag)) == dag


@given(graphs(), st.randoms(use_true_random=False))
def test_node_order_does_not_matter(graph, rng: random.Random):
    nodes, edges, entry = graph
    order = list(range(len(nodes) - 1))
    rng.shuffle(order)
    order.append(len(nodes) - 1)
    rank = {old: new for new, old in enumerate(order)}
    shuffled = DAG(
        [nodes[i] for i in order],
        [[rank[t] for t in edges[i]] for i in order],
        [rank[t] for t in entry],
    )
    straight = DAG(nodes, edges, entry)
    assert shuffled == straight
    assert hash(shuffled) == hash(straight)


@given(dags)
def test_what_is_emitted_passes_xia_for_linux(dag):
    """net/xia/dag.c: topological edges, empties at the end, nothing chosen, entry edges last."""
    wire = dag.to_wire()
    count = len(wire) // NODE_LEN
    for index in range(count):
        row = wire[index * NODE_LEN + 24 : index * NODE_LEN + 28]
        used = [edge for edge in row if edge != 0x7F]
        assert bytes(used) + b"\x7f" * (4 - len(used)) == row
        assert all(edge < count for edge in used)
        if index < count - 1:
            assert all(edge > index for edge in used)
        else:
            assert used


@given(dags)
def test_visited_bits_are_ignored(dag):
    wire = bytearray(dag.to_wire())
    for at in range(24, len(wire), NODE_LEN):
        wire[at] |= 0x80
    assert DAG.from_wire(wire) == dag


@given(small_dags, small_dags)
def test_equality_is_that_of_ordered_paths(one, other):
    def paths(dag):
        found = []

        def follow(edges, path):
            if not edges:
                found.append(tuple(path))
            for target in edges:
                follow(dag.edges[target], [*path, dag.nodes[target]])

        follow(dag.entry, [])
        return found

    if one == other:
        assert paths(one) == paths(other)
        assert hash(one) == hash(other)
    assert (one == DAG.from_wire(one.to_wire())) is True


def test_sharing_a_node_or_writing_it_twice_is_the_same_address():
    shared = DAG([AD1, HID1, SID1], [(1, 2), (2,), ()], (0,))
    twice = DAG([AD1, HID1, SID1, SID1], [(1, 2), (3,), (), ()], (0,))
    assert [str(n) for n in shared.nodes] != [str(n) for n in twice.nodes]
    assert shared == twice
    assert hash(shared) == hash(twice)


def test_priority_is_part_of_equality():
    assert DAG([AD1, SID1], [(1,), ()], (1, 0)) != DAG([AD1, SID1], [(1,), ()], (0, 1))


@pytest.mark.parametrize(
    ("nodes", "edges", "entry", "message"),
    [
        ([], [], [0], "1 to 20 nodes, not 0"),
        ([AD1] * 21, [(i + 1,) for i in range(20)] + [()], [0], "not 21"),
        ([AD1, HID1], [(1,), (0,)], [0], "node 1 is the final intent"),
        ([AD1, HID1, SID1], [(1,), (0, 2), ()], [0], "cycle"),
        ([AD1, SID1], [(0, 1), ()], [0], "cycle"),
        ([AD1, HID1, SID1], [(2,), (2,), ()], [0], "node 1 cannot be reached"),
        ([AD1, SID1], [(2,), ()], [0], "node 0 has an edge to node 2"),
        ([AD1, SID1], [(-1,), ()], [0], "node 0 has an edge to node -1"),
        ([AD1, SID1], [(1,), ()], [5], "the entry has an edge to node 5"),
        ([AD1, SID1], [(1,), ()], [], "the entry has no edges"),
        ([AD1, SID1], [(1,), ()], [0, 1, 0, 1, 0], "the entry has 5 edges"),
        ([AD1, SID1], [(1,)], [0], "2 nodes but 1 edge lists"),
    ],
)
def test_illegal_graphs_are_refused_with_the_node(nodes, edges, entry, message):
    with pytest.raises(WireError, match=message):
        DAG(nodes, edges, entry)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda wire: wire[:-1], "multiple of 28"),
        (lambda wire: b"", "not 0"),
        (lambda wire: wire * 7, "not 21"),
        (lambda wire: wire[:24] + b"\x7f\x01\x7f\x7f" + wire[28:], "node 0 has an edge behind an unused one"),
        (lambda wire: wire[:52] + b"\x02\x00\x7f\x7f" + wire[56:], "cycle"),
        (lambda wire: wire[:24] + b"\x03\x7f\x7f\x7f" + wire[28:], "node 0 has an edge to node 3"),
        (lambda wire: wire[:-4] + b"\x7f\x7f\x7f\x7f", "entry has no edges"),
    ],
)
def test_illegal_wire_forms_are_refused(change, message):
    wire = DAG.service(AD1, HID1, SID1).to_wire()
    with pytest.raises(WireError, match=message):
        DAG.from_wire(change(wire))


HEX1 = "0" * 39 + "1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "character 0: expected DAG, RE"),
        ("RE", "expected an XID at character 2"),
        ("REX", "expected RE at character 0"),
        (f"RE ( AD:{HEX1} )", "expected an XID behind the group at character 50"),
        (f"RE ( AD:{HEX1}", r"expected '\)' at character 48"),
        (f"RE ( ) AD:{HEX1}", "empty group at character 5"),
        (f"RE ( AD:{HEX1} ( HID:{HEX1} ) ) SID:{HEX1}", r"character 49, got '\('"),
        (f"RE ) AD:{HEX1}", r"character 3, got '\)'"),
        (f"RE AD:{HEX1} HID:12", "character 51 has 2 hex digits"),
        ("DAG", "expected '-' behind the entry edges at character 3"),
        ("DAG 0 -", "expected an XID at character 7"),
        (f"DAG x - AD:{HEX1}", "expected a node index or '-' at character 4"),
        (f"DAG 0 - AD:{HEX1} 1 -", "expected an XID at character"),
        (f"DAG 1 - AD:{HEX1}", "the entry has an edge to node 1"),
        (f"DAG 0 - AD:{HEX1} 0", "node 0 is the final intent"),
        ("http://", "expected DAG at character 7"),
        ("http://www.example.com/", "expected DAG at character 7"),
        (f"http://DAG.0.-.XX${HEX1}", "unknown XID type 'XX' at character 15"),
        ("RE " + "A" * 5000, "at most 4096"),
    ],
)
def test_bad_text_is_refused_with_its_place(text, message):
    with pytest.raises(WireError, match=message):
        DAG.parse(text)


def test_text_is_taken_with_any_white_space():
    dag = DAG.service(AD1, HID1, SID1)
    assert DAG.parse(f"  RE  ({AD1}\t{HID1})\n{SID1} ") == dag
    assert DAG.parse(dag.dag_string().replace("\n", "")) == dag
    assert DAG.parse(dag.dag_string().replace("\n", "\r\n")) == dag


def test_rendezvous_address_keeps_both_nodes_of_one_xid():
    text = f"RE {AD1} ( {AD2} {HID2} {SID2} ) {HID1}"
    assert str(DAG.parse(text)) == text
    twice = f"RE {AD1} ( {AD1} {HID2} ) {HID1}"
    assert str(DAG.parse(twice)) == twice
    assert len(DAG.parse(twice)) == 4


def test_constructors():
    assert str(DAG.host(AD1, HID1)) == f"RE {AD1} {HID1}"
    assert str(DAG.service(AD1, HID1, SID1)) == f"RE ( {AD1} {HID1} ) {SID1}"
    assert DAG.chain(AD1, HID1, SID1) == DAG.parse(f"RE {AD1} {HID1} {SID1}")


def test_append_connects_every_sink():
    assert DAG.chain(AD1) * HID1 * SID1 == DAG.chain(AD1, HID1, SID1)
    both = (DAG.chain(AD1, HID1) + DAG.chain(AD2, HID2)) * SID1
    assert both == DAG([AD1, HID1, AD2, HID2, SID1], [(1,), (4,), (3,), (4,), ()], (0, 2))
    assert both.intent == SID1


def test_append_of_an_address_with_fallback():
    made = DAG.chain(AD1) * DAG.service(AD2, HID2, SID1)
    assert made == DAG.parse(f"RE {AD1} ( {AD2} {HID2} ) {SID1}")


def test_union_is_the_fallback_idiom_of_xia_core():
    """dagaddr.hpp: `src * (cid + (ad*hid*cid))` is the address of content with a fallback."""
    assert DAG.chain(CID1) + DAG.chain(AD1, HID1, CID1) == DAG.service(AD1, HID1, CID1)
    three = DAG.chain(CID1) + DAG.chain(HID1, CID1) + DAG.chain(AD1, HID1, CID1)
    assert three == DAG([AD1, HID1, CID1], [(1,), (2,), ()], (2, 1, 0))


def test_union_shares_what_both_have():
    made = DAG.chain(AD1, HID1) + DAG.chain(AD1, HID2)
    assert [str(n) for n in made.nodes].count(str(AD1)) == 1
    assert made.intent == HID1
    longer = DAG.chain(AD1, HID1) + DAG.chain(AD1, HID1, SID1)
    assert longer == DAG.chain(AD1, HID1, SID1)


def test_union_that_would_be_a_circle_or_too_wide_is_refused():
    with pytest.raises(WireError, match="cycle"):
        DAG.chain(AD1, HID1, SID1) + DAG.chain(HID1, AD1, SID1)
    wide = DAG.chain(SID1)
    with pytest.raises(WireError, match="5 edges"):
        for number in range(4):
            wide = wide + DAG.chain(xid(XidType.AD, 10 + number), SID1)


@given(small_dags, small_dags)
def test_operators_give_legal_addresses_or_say_why_not(one, other):
    for operator in (lambda: one * other, lambda: one + other):
        try:
            made = operator()
        except WireError:
            continue
        assert DAG.from_wire(made.to_wire()) == made
    assert (one * SID1).intent == SID1 if len(one) < 20 else True


@given(small_dags)
def test_union_with_itself_changes_nothing(dag):
    assert dag + dag == dag


def test_intent_location_is_the_last_on_the_fallback_path():
    dag = DAG.parse(f"RE ( {AD1} {HID1} ) {SID1}")
    assert (dag.intent_ad, dag.intent_hid) == (AD1, HID1)
    assert DAG.chain(SID1).intent_ad is None
    rendezvous = DAG.parse(f"RE {AD1} ( {AD2} {HID2} {SID2} ) {HID1}")
    assert (rendezvous.intent_ad, rendezvous.intent_hid) == (AD2, HID1)


def test_with_locator_moves_the_location_and_keeps_the_shape():
    assert DAG.service(AD1, HID1, SID1).with_locator(AD2, HID2) == DAG.service(AD2, HID2, SID1)
    assert DAG.chain(AD1, HID1, SID1).with_locator(AD2, HID1) == DAG.chain(AD2, HID1, SID1)
    assert DAG.host(AD1, HID1).with_locator(AD2, HID1) == DAG.host(AD2, HID1)
    assert DAG.chain(SID1).with_locator(AD2, HID2) == DAG.service(AD2, HID2, SID1)
    chunk = DAG.chain(AD1, HID1, SID1, CID1)
    assert chunk.with_locator(AD2, HID2) == DAG.chain(AD2, HID2, SID1, CID1)


@given(dags, xids)
def test_with_intent_replaces_the_sink(dag, new):
    moved = dag.with_intent(new)
    assert moved.intent == new
    assert moved.nodes[:-1] == dag.nodes[:-1]


def test_a_dag_does_not_change():
    dag = DAG.host(AD1, HID1)
    with pytest.raises(AttributeError):
        dag.nodes = ()
