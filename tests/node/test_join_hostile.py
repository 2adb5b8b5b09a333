"""Join messages that are forged, replayed, for others, or no messages at all."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.node.netsim import BROADCAST, Host, JoinRouter, Sim, key
from xiatb.errors import WireError
from xiatb.node import effects as fx
from xiatb.node import join_messages as jm
from xiatb.node import membership
from xiatb.node.join import HostJoin, RouterJoin
from xiatb.wire.xid import XidType

ROGUE, ROGUE_AD = key("rogue"), key("rogue-ad")


def joined() -> tuple[Sim, JoinRouter, Host]:
    sim = Sim()
    router, host = JoinRouter(sim, "r1"), Host(sim, "h1")
    sim.connect(host, router)
    sim.run(1, lambda: host.at_router(router))
    return sim, router, host


def rogue_credentials(router: JoinRouter) -> bytes:
    """A key of the rogue's own with a certificate of its own that claims the router's AD."""
    cert = membership.issue(ROGUE_AD, ROGUE.xid(XidType.HID))
    return membership.pack_credentials(ROGUE.public, router.ad_key.public, cert)


def beacon(key_: object, credentials: bytes, target: bytes = jm.NOBODY, instance: int = 9) -> bytes:
    return jm.pack_beacon(
        key_,  # type: ignore[arg-type]
        credentials=credentials,
        instance=instance,
        nonce=b"n" * 8,
        interval_ms=1000,
        mtu=1500,
        target=target,
    )


def test_a_router_without_certificate_gets_no_host() -> None:
    sim, router, host = joined()
    credentials = rogue_credentials(router)
    host.join.receive(0, router.mac(0), beacon(ROGUE, credentials, host.hid.id), sim.now)
    sent = [e for e in host.join.effects() if isinstance(e, fx.SendJoin)]
    attempt = jm.parse(sent[-1].payload)
    assert isinstance(attempt, jm.Join)  # the hint is followed ...
    accept = jm.pack_accept(
        ROGUE,
        credentials=credentials,
        host=host.hid.id,
        seq=attempt.seq,
        refresh_ms=4000,
        lifetime_ms=14000,
        mtu=1500,
    )
    host.join.receive(0, router.mac(0), accept, sim.now)
    assert host.join.stats["forged"] == 1  # ... but the ACCEPT proves nothing
    assert host.at_router(router)
    sim.run(10)
    assert host.at_router(router) and len(host.seen(fx.Locator)) == 1


def test_forged_hints_do_not_crowd_out_the_true_router() -> None:
    sim = Sim()
    router, host = JoinRouter(sim, "r1"), Host(sim, "h1")
    host.join.set_port(0, host.mac(0))
    for n in range(50):
        liar = key(f"liar{n}")
        cert = membership.issue(ROGUE_AD, liar.xid(XidType.HID))
        credentials = membership.pack_credentials(liar.public, router.ad_key.public, cert)
        host.join.receive(0, b"\2" * 6, beacon(liar, credentials), sim.now)
    assert host.join.stats["signed"] == 1
    assert host.join.stats["forged"] == 49
    sim.connect(host, router)
    assert sim.run(1, lambda: host.at_router(router)) < 0.1


def test_a_beacon_altered_on_the_way_is_refused_as_sign_of_life() -> None:
    sim, router, host = joined()
    raw = bytearray(router.join._beacons.signed[0])
    raw[140] ^= 1  # the nonce
    host.join.receive(0, router.mac(0), raw, sim.now)
    assert host.join.stats["forged"] == 1


def test_an_accept_for_another_join_or_by_another_key_is_refused() -> None:
    sim, router, host = joined()
    old = next(e.payload for e in router.seen(fx.SendJoin) if e.payload[1] == jm.JoinType.ACCEPT)
    host.join.kick(0, sim.now)
    host.join.tick(sim.now + 0.03)
    host.join.receive(0, router.mac(0), old, sim.now)  # replay: another sequence number
    assert host.join._attempts
    bad = bytearray(old)
    bad[-1] ^= 1
    attempt = next(iter(host.join._attempts.values()))
    attempt.seq = jm.parse(old).seq  # type: ignore[union-attr]
    host.join.receive(0, router.mac(0), bad, sim.now)
    assert host.join.stats["forged"] == 1


def joins_of(host: Host) -> list[bytes]:
    return [e.payload for e in host.seen(fx.SendJoin) if e.payload[1] == jm.JoinType.JOIN]


def test_a_replayed_join_does_not_bring_a_host_back() -> None:
    sim, router, host = joined()
    record = joins_of(host)[-1]
    host.join.leave(sim.now)
    host.settle()
    sim.run(0.1)
    assert not router.hosts()
    router.join.receive(0, host.mac(0), record, sim.now)
    assert not router.hosts()
    assert router.join.stats["replayed"] == 1
    sim.run(100)
    router.join.effects()
    router.join.receive(0, host.mac(0), record, sim.now)  # its nonce is stale by now: just a beacon
    assert [e.payload[1] for e in router.join.effects()] == [jm.JoinType.BEACON]


def test_a_join_altered_or_from_another_mac_is_refused() -> None:
    sim, router, host = joined()
    host.join.kick(0, sim.now)
    host.join.tick(sim.now + 0.03)
    sent = [e.payload for e in host.join.effects() if isinstance(e, fx.SendJoin)]
    fresh = next(payload for payload in sent if payload[1] == jm.JoinType.JOIN)
    seq = router.join.hosts[host.hid.id].seq
    router.join.receive(0, b"\2\2\2\2\2\2", fresh, sim.now)
    altered = bytearray(fresh)
    altered[90] ^= 1  # sequence number
    router.join.receive(0, host.mac(0), altered, sim.now)
    assert router.join.stats["forged"] == 2
    assert router.join.hosts[host.hid.id].seq == seq
    router.join.receive(0, host.mac(0), fresh, sim.now)
    assert router.join.hosts[host.hid.id].seq > seq


def test_a_join_to_another_ad_or_router_is_answered_by_a_beacon() -> None:
    sim, router, host = joined()
    wrong_ad = (router.hid.id, ROGUE_AD.xid(XidType.AD).id)
    wrong_router = (ROGUE.xid(XidType.HID).id, router.ad.id)
    for router_id, ad in (wrong_ad, wrong_router):
        message = jm.pack_join(
            host.key, router=router_id, ad=ad, nonce=router.join._beacons.nonce, seq=1 << 62, mac=host.mac(0)
        )
        router.join.receive(0, host.mac(0), message, sim.now)
        assert [e.payload[1] for e in router.join.effects()] == [jm.JoinType.BEACON]
    assert router.join.hosts[host.hid.id].seq < 1 << 62


def test_leaves_of_others_and_of_an_earlier_instance_are_refused() -> None:
    sim, router, host = joined()
    instance = router.join._beacons.instance
    forged = jm.pack_leave(ROGUE, from_router=True, instance=instance)
    host.join.receive(0, router.mac(0), forged, sim.now)
    stolen = bytearray(jm.pack_leave(router.key, from_router=True, instance=instance))
    stolen[-1] ^= 1
    host.join.receive(0, router.mac(0), stolen, sim.now)
    host.join.receive(0, router.mac(0), jm.pack_leave(router.key, from_router=True, instance=1), sim.now)
    assert host.at_router(router)
    away = jm.pack_leave(ROGUE, from_router=False, peer=router.hid.id, seq=1 << 63)
    router.join.receive(0, host.mac(0), away, sim.now)
    bad = bytearray(jm.pack_leave(host.key, from_router=False, peer=router.hid.id, seq=1 << 63))
    bad[-1] ^= 1
    router.join.receive(0, host.mac(0), bad, sim.now)
    assert router.hosts() == {host.hid}


def test_unknown_senders_are_limited() -> None:
    sim, router, host = joined()
    router.join.effects()
    for _ in range(5000):
        router.join.receive(0, BROADCAST, jm.pack_solicit(host.hid.id), sim.now)
    assert len(router.join.effects()) <= 200
    assert router.join.stats["limited"] >= 4800


def test_the_router_ignores_beacons_and_the_host_ignores_joins() -> None:
    sim, router, host = joined()
    router.join.receive(0, router.mac(0), beacon(ROGUE, rogue_credentials(router)), sim.now)
    host.join.receive(0, host.mac(0), joins_of(host)[-1], sim.now)
    assert router.join.effects() == [] and host.join.effects() == []


@given(st.binary(max_size=400))
def test_the_parser_raises_only_wire_error(data: bytes) -> None:
    try:
        jm.parse(data)
    except WireError:
        return


@given(st.sampled_from(list(jm.JoinType)), st.binary(max_size=320))
def test_the_parser_raises_only_wire_error_behind_a_good_head(kind: jm.JoinType, data: bytes) -> None:
    try:
        jm.parse(bytes([1, kind]) + data)
    except WireError:
        return


@given(st.sampled_from(list(jm.JoinType)), st.binary(max_size=260), st.booleans())
def test_the_machines_never_raise(kind: jm.JoinType, data: bytes, head: bool) -> None:
    host = HostJoin(key("h"), Random(1), ports={0: b"\2" * 6})
    cert = membership.issue(key("ad"), key("r").xid(XidType.HID))
    ad = key("ad")
    router = RouterJoin(key("r"), ad.xid(XidType.AD), ad.public, cert, Random(1), ports={0: 1500})
    payload = (bytes([1, kind]) if head else b"") + data
    for machine in (host, router):
        machine.receive(0, b"\2" * 6, payload, 5.0)
        machine.tick(6.0)


@pytest.mark.parametrize("cut", [1, 3, 4, 20, 100])
def test_truncated_and_lengthened_messages(cut: int) -> None:
    sim, router, host = joined()
    for payload in (joins_of(host)[0], router.join._beacons.signed[0]):
        with pytest.raises(WireError):
            jm.parse(payload[:-cut])
        with pytest.raises(WireError):
            jm.parse(payload + bytes(cut))


def test_round_trip_and_padding() -> None:
    solicit = jm.pack_solicit(b"h" * 20)
    assert jm.parse(solicit + bytes(46 - len(solicit))) == jm.Solicit(b"h" * 20)
    with pytest.raises(WireError):
        jm.parse(solicit + bytes(47 - len(solicit)))
    message = jm.parse(
        jm.pack_join(key("h"), router=b"r" * 20, ad=b"a" * 20, nonce=b"n" * 8, seq=7, mac=b"\2" * 6, flags=1)
    )
    assert isinstance(message, jm.Join)
    assert (message.router, message.ad, message.nonce, message.seq) == (b"r" * 20, b"a" * 20, b"n" * 8, 7)
    assert jm.authentic(message, key("h").public) and not jm.authentic(message, ROGUE.public)
    assert jm.parse_record(message.raw) == message


def test_membership() -> None:
    ad, hid = key("ad").xid(XidType.AD), key("r").xid(XidType.HID)
    cert = membership.issue(key("ad"), hid)
    assert membership.verify(ad, key("ad").public, cert, hid)
    assert not membership.verify(ad, key("ad").public, cert, ROGUE.xid(XidType.HID))
    assert not membership.verify(ROGUE_AD.xid(XidType.AD), key("ad").public, cert, hid)
    assert not membership.verify(ad, key("ad").public[:-1], cert, hid)
