"""The rendezvous service and the addresses it rewrites: signatures, sequence, ageing, hostile bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.node.netsim import key
from xiatb.errors import WireError
from xiatb.identity.keys import verify
from xiatb.node.rendezvous import TTL, Rendezvous
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import behind, served
from xiatb.wire.rendezvous import Control, Verb, parse, redirected, sought, via, with_rendezvous
from xiatb.wire.xid import SID_RENDEZVOUS, XID, XidType

SERVER = key("server")
H1 = key("h1").xid(XidType.HID)
SID = key("svc").xid(XidType.SID)
MEETING = served(DAG.host(key("ad0").xid(XidType.AD), SERVER.xid(XidType.HID)), SID_RENDEZVOUS)


def place(ad: str, host: str = "h1") -> DAG:
    return DAG.host(key(ad).xid(XidType.AD), key(host).xid(XidType.HID))


def register(dag: DAG, seq: int, host: str = "h1", signer: str = "") -> bytes:
    keys = key(signer or host)
    bare = Control(Verb.REGISTER, key(host).xid(XidType.HID), str(dag), seq, keys.public)
    return bare.signed(keys.sign(bare.signed_bytes())).pack()


def told(service: Rendezvous, payload: bytes, now: float = 0.0) -> Control:
    reply = service.receive(payload, now)
    assert reply is not None
    answer = parse(reply)
    assert answer.public == SERVER.public and verify(answer.public, answer.signature, answer.signed_bytes())
    return answer


def test_registration_moves_and_runs_out() -> None:
    service = Rendezvous(SERVER)
    assert service.locate(H1.key, 0.0) is None
    assert told(service, register(place("ad1"), 5)) [:4] == (Verb.ACK, H1, "", 5)
    assert told(service, register(place("ad2"), 6), 10.0).verb is Verb.ACK
    assert told(service, register(place("ad2"), 6), 11.0).verb is Verb.ACK
    assert service.locate(H1.key, 12.0) == place("ad2")
    stale = told(service, register(place("ad1"), 5), 13.0)
    assert (stale.verb, stale.seq) == (Verb.STALE, 6)
    assert service.locate(H1.key, 10.0 + TTL) is None and service.listing(10.0 + TTL) == []
    assert told(service, register(place("ad1"), 5), 11.0 + TTL).verb is Verb.STALE


def test_only_the_hosts_own_key_may() -> None:
    service = Rendezvous(SERVER)
    assert told(service, register(place("ad1"), 5, signer="h2")).verb is Verb.REFUSED
    assert service.receive(register(place("ad1", "h2"), 5), 0.0) is None
    assert service.receive(register(served(place("ad1"), SID), 5), 0.0) is None
    assert service.stats["forged"] == 1 and service.stats["malformed"] == 2 and not service.listing(0.0)


def test_hosts_are_bounded() -> None:
    service = Rendezvous(SERVER, limit=1)
    assert told(service, register(place("ad1"), 1)).verb is Verb.ACK
    assert told(service, register(place("ad1", "h2"), 1, "h2")).verb is Verb.REFUSED
    assert told(service, register(place("ad1", "h2"), 1, "h2"), TTL).verb is Verb.ACK


def test_addresses() -> None:
    old, new = place("ad1"), place("ad2")
    published = with_rendezvous(old, MEETING)
    assert str(published).startswith("DAG ") or "SID:1110" in str(published)
    for address, there in (
        (published, new),
        (served(published, SID), new * SID),
        (via(MEETING, old), new),
        (via(MEETING, served(old, SID)), new * SID),
    ):
        assert address is not None
        at = address.nodes.index(SID_RENDEZVOUS)
        assert sought(address.to_wire(), at) == H1.key
        assert DAG.from_wire(redirected(address.to_wire(), at, new)) == there
    gateway = XID.parse("IP:192.0.2.1")
    wire = redirected(published.to_wire(), published.nodes.index(SID_RENDEZVOUS), behind(gateway, new))
    assert DAG.from_wire(wire) == behind(gateway, new)
    assert via(MEETING, DAG.chain(SID)) is None
    with pytest.raises(WireError):
        with_rendezvous(DAG.chain(SID), MEETING)


def test_service_address_has_the_locators_fallbacks() -> None:
    gateway = XID.parse("IP:192.0.2.1")
    address = served(behind(gateway, place("ad1")), SID)
    ad, hid = place("ad1").nodes
    assert address == DAG((gateway, ad, hid, SID), ((1,), (2,), (3,), ()), (3, 1, 0))
    assert served(place("ad1"), SID) == DAG.service(ad, hid, SID)


GOOD = register(place("ad1"), 5)


@given(st.binary(max_size=2100))
def test_any_bytes(payload: bytes) -> None:
    service = Rendezvous(SERVER)
    assert service.receive(payload, 0.0) is None and not service.listing(0.0)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_any_changed_byte(at: int, change: int) -> None:
    service = Rendezvous(SERVER)
    changed = bytearray(GOOD)
    changed[at] ^= change
    service.receive(bytes(changed), 0.0)
    assert not service.listing(0.0)


rows = st.binary(min_size=28, max_size=28)


@given(st.lists(rows, min_size=1, max_size=20), st.integers(0, 25), st.booleans())
def test_any_node_list(nodes: list[bytes], at: int, near: bool) -> None:
    if near:
        hid = XidType.HID.to_bytes(4, "big")
        nodes = [hid + one[4:24] + bytes(b % 21 for b in one[24:]) for one in nodes]
    wire = b"".join(nodes)
    try:
        if sought(wire, at) is not None:
            DAG.from_wire(redirected(wire, at, place("ad2")))
    except WireError:
        pass
