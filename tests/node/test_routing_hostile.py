"""Routing messages that are forged, replayed, of the wrong AD, or no messages at all."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.node.netsim import Host, Router, Sim, key, path
from xiatb.errors import IdentityError, WireError
from xiatb.identity.keys import KeyPair
from xiatb.node import effects as fx
from xiatb.node import join_messages as jm
from xiatb.node import membership
from xiatb.node import routing_messages as rm
from xiatb.node.control_plane import ControlPlane
from xiatb.node.lsa import (
    AdLink,
    Link,
    Lsa,
    LsaType,
    LsaVerifier,
    fragment,
    make,
    pack_adlinks,
    pack_links,
)
from xiatb.wire.xid import XID, XidType

ROGUE, ROGUE_AD = key("rogue"), key("rogue-ad")
MAC = b"\2\0\0\0\0\7"


def credentials_of(router_key: KeyPair, ad_key: KeyPair, signer: KeyPair | None = None) -> bytes:
    hid = router_key.xid(XidType.HID)
    body = membership.DOMAIN + ad_key.xid(XidType.AD).key + hid.key
    return membership.pack_credentials(router_key.public, ad_key.public, (signer or ad_key).sign(body))


def pair() -> tuple[Sim, Router, Router]:
    sim = Sim()
    a, b = Router(sim, "a"), Router(sim, "b")
    sim.connect(a, b)
    sim.run(1, lambda: path(a, b.hid) is not None and path(b, a.hid) is not None)
    return sim, a, b


def lsa_of(
    signer: KeyPair,
    kind: LsaType = LsaType.LINKS,
    body: bytes = b"",
    *,
    credentials: bytes,
    origin: bytes | None = None,
    obj: bytes | None = None,
    seq: int = 1 << 62,
) -> Lsa:
    return make(
        signer,
        kind,
        origin=origin or signer.xid(XidType.HID).id,
        obj=obj or fragment(0),
        seq=seq,
        lifetime=300,
        credentials=credentials,
        body=body,
    )


def tell(sim: Sim, router: Router, neighbour: Router, lsa: Lsa, age_ms: int = 0) -> None:
    for message in rm.pack_updates(neighbour.hid.id, [(age_ms, lsa)]):
        router.arrive(0, "routing", MAC, message)


def forged(router: Router) -> int:
    return int(router.plane.routing.stats["forged"])


def test_a_router_without_a_certificate_of_its_ad_is_no_neighbour() -> None:
    sim, a, _ = pair()
    for credentials in (
        credentials_of(ROGUE, a.ad_key, ROGUE_AD),  # an AD that did not sign
        credentials_of(key("b"), a.ad_key),  # somebody else's credentials
    ):
        hello = rm.pack_hello(
            ROGUE,
            sender=ROGUE.xid(XidType.HID).id,
            credentials=credentials,
            instance=1,
            seq=1,
            interval_ms=1000,
            digest_ad=0,
            digest_global=0,
            heard={a.hid.id: a.plane.routing._adjacencies.instance},
        )
        before = forged(a)
        a.arrive(0, "routing", MAC, hello)
        assert forged(a) == before + 1
    sim.run(1)
    assert len(a.plane.routing.status(sim.now)["neighbours"]) == 1


def test_replayed_and_altered_hellos_change_nothing() -> None:
    sim, a, b = pair()
    hellos = [e.payload for e in b.seen(fx.SendRouting) if e.payload[1] == rm.RoutingType.HELLO]
    for hello in hellos:  # among them the first ones, which do not name a
        a.arrive(0, "routing", MAC, hello)
    assert a.plane.routing.status(sim.now)["stale"] >= len(hellos)
    assert path(a, b.hid)
    altered = bytearray(hellos[-1])
    altered[160] = 0x7F  # a later sequence number
    a.arrive(0, "routing", MAC, bytes(altered))
    altered[3] |= rm.FLAG_BYE
    a.arrive(0, "routing", MAC, bytes(altered))
    assert forged(a) == 2 and path(a, b.hid)


def test_a_hello_replayed_to_a_router_that_restarted_makes_no_adjacency() -> None:
    sim, a, b = pair()
    old = [e.payload for e in b.seen(fx.SendRouting) if e.payload[1] == rm.RoutingType.HELLO][-1]
    b.alive = False
    a.start()
    a.arrive(0, "routing", MAC, old)
    sim.run(0.5)
    neighbours = a.plane.routing.status(sim.now)["neighbours"]
    assert [n["up"] for n in neighbours] == [False], "it names an instance of ours that is gone"


def test_forged_advertisements_are_refused_and_not_passed_on() -> None:
    sim, a, b = pair()
    c = Router(sim, "c")
    sim.connect(a, c)
    sim.run(1, lambda: path(a, c.hid) is not None)
    good = credentials_of(b.key, b.ad_key)
    links = pack_links([Link(ROGUE.xid(XidType.HID).id, 1)])
    cases = [
        lsa_of(ROGUE, body=links, credentials=credentials_of(ROGUE, a.ad_key, ROGUE_AD)),
        lsa_of(ROGUE, body=links, credentials=credentials_of(ROGUE, ROGUE_AD)),  # true, but of another AD
        lsa_of(ROGUE, body=links, credentials=good, origin=b.hid.id),
        lsa_of(ROGUE, body=links, credentials=good),
    ]
    altered = bytearray(lsa_of(b.key, body=links, credentials=good).raw)
    altered[16] ^= 1
    cases.append(Lsa(bytes(altered)))
    size = len(a.plane.routing.lsdb)
    sent = len(a.seen(fx.SendRouting))
    for number, lsa in enumerate(cases):
        before = forged(a)
        tell(sim, a, b, lsa)
        assert forged(a) == before + 1, number
    assert len(a.plane.routing.lsdb) == size
    assert len(a.seen(fx.SendRouting)) == sent, "neither acknowledged nor passed on"
    assert path(a, b.hid) and path(a, c.hid)


def test_an_ad_cannot_claim_to_be_next_to_another_one_alone() -> None:
    sim, a, b = pair()
    liar = credentials_of(ROGUE, ROGUE_AD)
    claim = pack_adlinks([AdLink(a.ad.id, a.hid.id, 1)])
    tell(sim, a, b, lsa_of(ROGUE, LsaType.ADLINKS, claim, credentials=liar))
    sim.run(0.2)
    assert ROGUE_AD.xid(XidType.AD).key not in a.routes
    assert ROGUE_AD.xid(XidType.AD).key not in b.routes


def test_inner_advertisements_do_not_cross_the_border() -> None:
    sim = Sim()
    a, b = Router(sim, "a", "ad1"), Router(sim, "b", "ad2")
    sim.connect(a, b)
    sim.run(1, lambda: path(a, b.ad) is not None)
    kinds = {
        lsa.type
        for e in a.seen(fx.SendRouting)
        if e.payload[1] == rm.RoutingType.UPDATE
        for _, lsa in rm.parse(e.payload).items  # type: ignore[union-attr]
    }
    assert kinds == {LsaType.ADLINKS}
    before = forged(a)
    tell(sim, a, b, lsa_of(b.key, body=b"", credentials=credentials_of(b.key, b.ad_key)))
    assert forged(a) == before + 1


def test_only_neighbours_are_listened_to() -> None:
    sim, a, b = pair()
    stranger = ROGUE.xid(XidType.HID).id
    lsa = lsa_of(b.key, credentials=credentials_of(b.key, b.ad_key))
    before = a.plane.routing.stats["unknown"]
    for message in (
        *rm.pack_updates(stranger, [(0, lsa)]),
        rm.pack_ack(stranger, a.hid.id, [b"x" * 8]),
        rm.pack_request(stranger, a.hid.id, [lsa.key]),
        *rm.pack_digests(stranger, a.hid.id, [], bytes(41), b"\xff" * 41),
    ):
        a.arrive(0, "routing", MAC, message)
    assert a.plane.routing.stats["unknown"] == before + 4
    assert path(a, b.hid)


def attach_lsa(at: Router, host: KeyPair, seq: int, **changes: bytes) -> Lsa:
    values = {"router": at.hid.id, "ad": at.ad.id}
    values.update({k: v for k, v in changes.items() if k in values})
    record = jm.pack_join(host, nonce=b"n" * 8, seq=seq, mac=MAC, **values)  # type: ignore[arg-type]
    record = changes.get("record", record)
    obj = changes.get("obj", host.xid(XidType.HID).id)
    credentials = credentials_of(at.key, at.ad_key)
    word = (1 << 61) + seq  # the router's own sequence number
    return lsa_of(at.key, LsaType.ATTACH, record, credentials=credentials, obj=obj, seq=word)


def test_a_router_cannot_attach_a_host_that_did_not_join_it() -> None:
    sim, a, b = pair()
    victim = Host(sim, "victim")
    sim.connect(victim, a)
    sim.run(1, lambda: path(b, victim.hid) is not None)
    own = a.plane.join.hosts[victim.hid.id].record
    for lsa in (
        attach_lsa(b, victim.key, 1 << 62, router=a.hid.id),  # a JOIN that was for another router
        attach_lsa(b, victim.key, 1 << 62, ad=ROGUE_AD.xid(XidType.AD).id),
        attach_lsa(b, ROGUE, 1 << 62, obj=victim.hid.id),  # a JOIN of another host
        attach_lsa(b, victim.key, 0, record=own),
        attach_lsa(b, victim.key, 0, record=own[:-1] + bytes([own[-1] ^ 1])),
    ):
        before = forged(a)
        tell(sim, a, b, lsa)
        assert forged(a) == before + 1
    assert a.hosts() == {victim.hid} and path(b, victim.hid)


def test_an_attachment_older_than_ours_does_not_take_a_host_away() -> None:
    sim, a, b = pair()
    host = Host(sim, "h1")
    sim.connect(host, a)
    sim.run(1, lambda: path(b, host.hid) is not None)
    tell(sim, a, b, attach_lsa(b, host.key, 1))
    sim.run(1)
    assert a.hosts() == {host.hid}
    assert a.routes[host.hid.key].port == 1
    later = a.plane.join.hosts[host.hid.id].seq + 1
    tell(sim, a, b, attach_lsa(b, host.key, later))
    assert a.hosts() == set()


def test_old_and_expired_advertisements_are_not_taken() -> None:
    sim, a, b = pair()
    current = next(lsa for lsa in a.plane.routing.lsdb if lsa.origin == b.hid.id)
    credentials = credentials_of(b.key, b.ad_key)
    tell(sim, a, b, lsa_of(b.key, credentials=credentials, seq=current.seq - 1))
    sim.run(0.1)
    assert path(a, b.hid)
    stale = lsa_of(b.key, credentials=credentials)
    tell(sim, a, b, stale, age_ms=300_000)
    assert a.plane.routing.lsdb.get(stale.key) is not stale
    assert path(a, b.hid)


def test_a_later_word_of_our_own_is_topped() -> None:
    sim, a, b = pair()
    credentials = credentials_of(a.key, a.ad_key)
    ghost = lsa_of(a.key, credentials=credentials, seq=sim.clock_ns() + 10**15)
    tell(sim, b, a, ghost)  # b believes it: it is signed by a, say from before a clock was set right
    lsdb = b.plane.routing.lsdb
    assert lsdb.get(ghost.key).raw == ghost.raw  # type: ignore[union-attr]
    took = sim.run(3, lambda: lsdb.get(ghost.key).seq > ghost.seq)  # type: ignore[union-attr]
    sim.run(0.1)
    assert took < 1.2 and path(b, a.hid)


def test_a_wrong_certificate_is_refused_at_start() -> None:
    other = membership.issue(ROGUE_AD, key("a").xid(XidType.HID))
    with pytest.raises(IdentityError):
        ControlPlane(key("a"), key("ad1").xid(XidType.AD), key("ad1").public, other, [], Sim().rng)


def test_round_trips() -> None:
    credentials = credentials_of(key("a"), key("ad1"))
    links = [Link(bytes([n]) * 20, n) for n in range(1, 41)]
    lsa = lsa_of(key("a"), body=pack_links(links), credentials=credentials)
    assert lsa.links == tuple(links) and not lsa.withdrawn and lsa.confined
    outer = [AdLink(bytes([n]) * 20, bytes([n + 1]) * 20, n) for n in range(1, 21)]
    far = lsa_of(key("a"), LsaType.ADLINKS, pack_adlinks(outer), credentials=credentials)
    assert far.adlinks == tuple(outer) and not far.confined
    messages = rm.pack_updates(b"s" * 20, [(5, lsa), (6, far), (7, lsa)])
    assert all(len(m) <= rm.MAX_PAYLOAD for m in messages)
    items = [item for m in messages for item in rm.parse(m).items]  # type: ignore[union-attr]
    assert [(age, x.raw) for age, x in items] == [(5, lsa.raw), (6, far.raw), (7, lsa.raw)]
    rows = [(bytes([1]) + n.to_bytes(40, "big"), n) for n in range(1, 100)]
    pages = [rm.parse(p) for p in rm.pack_digests(b"s" * 20, b"t" * 20, rows, bytes(41), b"\xff" * 41)]
    assert {k: v for p in pages for k, v in p.rows.items()} == dict(rows)  # type: ignore[union-attr]
    assert [p.after for p in pages[1:]] == [p.upto for p in pages[:-1]]  # type: ignore[union-attr]
    ack = rm.parse(rm.pack_ack(b"s" * 20, b"t" * 20, [b"12345678"]))
    assert ack == rm.Ack(b"s" * 20, b"t" * 20, [b"12345678"])


def seeds() -> list[bytes]:
    """One good message of each kind."""
    sim, a, b = pair()
    host = Host(sim, "h1")
    sim.connect(host, b)
    sim.run(1)
    kinds = {e.payload[1]: e.payload for n in (a, b) for e in n.seen(fx.SendRouting)}
    kinds[5] = rm.pack_request(b.hid.id, a.hid.id, [bytes(41)])
    return [kinds[k] for k in sorted(kinds)]


SEEDS = seeds()


@given(st.binary(max_size=600))
def test_the_parser_raises_only_wire_error(data: bytes) -> None:
    for parse in (rm.parse, Lsa):
        try:
            parse(data)
        except WireError:
            continue


@given(st.sampled_from(SEEDS), st.integers(0, 2000), st.integers(1, 255), st.integers(0, 2000))
def test_bent_messages_never_raise(message: bytes, at: int, flip: int, cut: int) -> None:
    bent = bytearray(message)
    bent[at % len(bent)] ^= flip
    data = bytes(bent[: cut % (len(bent) + 1)]) if cut % 3 == 0 else bytes(bent)
    with contextlib.suppress(WireError):
        rm.parse(data)
    plane = ControlPlane(
        key("a"),
        key("ad1").xid(XidType.AD),
        key("ad1").public,
        membership.issue(key("ad1"), key("a").xid(XidType.HID)),
        [],
        Sim().rng,
    )
    plane.link_up(0, 1.0)
    for payload in (*SEEDS[:2], data):
        plane.receive_routing(0, payload, 2.0)
    plane.tick(3.0)


def test_links_of_no_cost_and_wild_fragments_are_refused() -> None:
    credentials = credentials_of(key("a"), key("ad1"))
    with pytest.raises(WireError):
        lsa_of(key("a"), body=b"h" * 20 + struct.pack(">H", 0), credentials=credentials)
    with pytest.raises(WireError):
        lsa_of(key("a"), credentials=credentials, obj=fragment(32))
    with pytest.raises(WireError):
        lsa_of(key("a"), LsaType.ATTACH, b"x", credentials=credentials)
    verifier = LsaVerifier(XID(XidType.AD, bytes(20)), membership.MembershipCache())
    with pytest.raises(IdentityError):
        verifier.check(lsa_of(key("a"), credentials=credentials))
