"""XIARedirect in a router: packets for a host that has left go where it is, once, and nothing else does."""

from __future__ import annotations

import random

import pytest

from tests.click.support import Node, ad, frame, hid, sid, xcmp_in
from xiatb.node.control_protocol import ControlError
from xiatb.node.handover import behind_router
from xiatb.wire import xcmp, xip
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import behind
from xiatb.wire.xid import XID

GUEST = hid(9)
OLD = DAG.service(ad(1), GUEST, sid(7))
CLIENT = DAG.service(ad(1), hid(4), sid(8))


def router(to: DAG) -> Node:
    node = Node()
    node.know_neighbours()
    node["core/local/moved"].moved[GUEST.key] = to
    return node


def send(node: Node, destination: DAG, payload: bytes = b"x" * 8) -> None:
    packet = xip.build(xip.NXT_XDGRAM, destination, CLIENT, payload)
    node.eth0.deliver(frame(packet))


def test_to_another_ad_by_the_short_way() -> None:
    node = router(behind_router(DAG.host(ad(2), hid(3)), GUEST, ad(1)))
    send(node, OLD)
    (sent,) = node.eth1.sent
    header = xip.parse(sent, 14)
    assert header.dst() == DAG.chain(ad(2), GUEST, sid(7)) and header.src() == CLIENT
    assert len(header.dst_wire) == len(OLD.to_wire()), "packets of full size must pass"
    assert header.payload == b"x" * 8 and node["core/local/moved"].redirected == 1
    assert not node.eth0.sent


def test_within_the_ad_through_the_new_router() -> None:
    node = router(behind_router(DAG.host(ad(1), hid(5)), GUEST, ad(1)))
    send(node, OLD)
    (sent,) = node.eth1.sent
    assert xip.parse(sent, 14).dst() == DAG.chain(ad(1), hid(5), GUEST, sid(7))


def test_others_get_their_xcmp_error_and_a_route_goes_first() -> None:
    node = router(DAG.host(ad(2), GUEST))
    send(node, DAG.service(ad(1), hid(8), sid(7)))
    assert not node.eth1.sent and len(node.eth0.sent) == 1
    assert node["core/local/moved"].redirected == 0
    node.table("HID").set(GUEST.key, node.table("HID").table[hid(4).key])
    send(node, OLD)
    assert not node.eth1.sent and node["core/local/moved"].redirected == 0


def test_a_host_that_was_told_to_be_here_makes_no_circle() -> None:
    """Somebody wrong: redirected to this very AD, where it is not."""
    node = router(DAG.host(ad(1), GUEST))
    send(node, OLD)
    assert node["core/local/moved"].redirected == 1 and not node.eth1.sent
    assert xcmp_in(node.eth0.sent[-1])[1].type == xcmp.UNREACHABLE


def test_addresses_behind_a_router() -> None:
    far = behind(XID.parse("IP:192.0.2.1"), DAG.host(ad(2), hid(3)))
    assert behind_router(far, GUEST, ad(1)) == behind(XID.parse("IP:192.0.2.1"), DAG.host(ad(2), GUEST))
    for wrong in (DAG.chain(hid(3)), DAG.service(ad(2), hid(3), sid(1)), DAG.chain(ad(2))):
        with pytest.raises(ControlError):
            behind_router(wrong, GUEST, ad(1))


def test_damaged_addresses_are_left_alone() -> None:
    node = router(DAG.host(ad(2), GUEST))
    rng = random.Random(4)
    good = xip.build(xip.NXT_XDGRAM, OLD, CLIENT, b"x")
    for _ in range(400):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        node.eth0.deliver(frame(bytes(bad)))
    send(node, OLD)
    assert xip.parse(node.eth1.sent[-1], 14).dst() == DAG.chain(ad(2), GUEST, sid(7))
