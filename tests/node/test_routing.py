"""Routing in virtual time: convergence, failures, moving hosts, partitions, loss."""

from __future__ import annotations

import hashlib
import time
from random import Random
from typing import Any

import pytest

from tests.node.netsim import Host, Link, Router, Sim, path
from xiatb.node import effects as fx
from xiatb.node.join import JoinConfig
from xiatb.node.routing import RoutingConfig


def chain(sim: Sim, ads: list[str], **link: float) -> tuple[list[Router], list[Link]]:
    routers = [Router(sim, f"r{i}", ad) for i, ad in enumerate(ads)]
    return routers, [sim.connect(a, b, **link) for a, b in zip(routers, routers[1:], strict=False)]


def reach_all(routers: list[Router]) -> bool:
    """Whether every router reaches every AD, and every router of its own AD."""
    for a in routers:
        for b in routers:
            target = b.hid if b.ad == a.ad else b.ad
            if path(a, target) is None:
                return False
    return True


def test_a_chain_of_ads_converges_in_milliseconds() -> None:
    sim = Sim()
    routers, _ = chain(sim, ["ad1", "ad1", "ad1", "ad2", "ad3", "ad3"])
    assert sim.run(2, lambda: reach_all(routers)) < 0.25
    assert path(routers[0], routers[5].ad) == ["r0", "r1", "r2", "r3", "r4"]
    own = routers[0].routes
    assert routers[4].hid.key not in own, "HIDs stay inside their AD"
    assert routers[0].hid.key not in own and routers[0].ad.key not in own, "SELF is the node's business"


def test_hosts_are_known_throughout_their_ad() -> None:
    sim = Sim()
    routers, _ = chain(sim, ["ad1", "ad1", "ad1", "ad2"])
    sim.run(1)
    host = Host(sim, "h1")
    sim.connect(host, routers[0])
    assert sim.run(1, lambda: path(routers[2], host.hid) == ["r2", "r1", "r0", "h1"]) < 0.1
    entry = routers[0].routes[host.hid.key]
    assert (entry.port, entry.nexthop) == (1, host.hid.key)
    assert host.hid.key not in routers[3].routes
    host.alive = False
    assert sim.run(20, lambda: all(host.hid.key not in r.routes for r in routers)) < 15


def ring(sim: Sim, count: int = 5) -> tuple[list[Router], list[Link]]:
    routers = [Router(sim, f"r{i}") for i in range(count)]
    return routers, [sim.connect(routers[i], routers[(i + 1) % count]) for i in range(count)]


def test_a_link_that_is_cut_is_routed_around_at_once() -> None:
    sim = Sim()
    routers, links = ring(sim)
    sim.run(2, lambda: reach_all(routers))
    assert path(routers[0], routers[1].hid) == ["r0", "r1"]
    sim.set_link(links[0], False)
    took = sim.run(2, lambda: path(routers[0], routers[1].hid) == ["r0", "r4", "r3", "r2", "r1"])
    assert took < 0.15
    sim.set_link(links[0], True)
    assert sim.run(2, lambda: path(routers[0], routers[1].hid) == ["r0", "r1"]) < 0.3


def test_a_link_that_is_cut_silently_is_noticed_by_missing_hellos() -> None:
    sim = Sim()
    routers, links = ring(sim)
    sim.run(2, lambda: reach_all(routers))
    links[0].up = False
    assert 2.4 < sim.run(6, lambda: path(routers[0], routers[1].hid) is not None) < 3.8


def test_one_way_links_are_not_used() -> None:
    sim = Sim()
    routers, links = ring(sim)
    sim.run(2, lambda: reach_all(routers))
    mute = links[0]
    real = sim.transmit

    def transmit(sender: Any, port: int, *rest: Any) -> None:
        if sender is routers[0] and sender.links[port] is mute:
            return
        real(sender, port, *rest)

    sim.transmit = transmit  # type: ignore[method-assign]
    sim.run(6)
    assert path(routers[0], routers[1].hid) == ["r0", "r4", "r3", "r2", "r1"]
    assert path(routers[1], routers[0].hid) == ["r1", "r2", "r3", "r4", "r0"]


def test_a_router_that_dies_and_comes_back_with_nothing_in_its_head() -> None:
    sim = Sim()
    routers, _ = ring(sim)
    host = Host(sim, "h1")
    sim.connect(host, routers[2])
    sim.run(2, lambda: reach_all(routers) and path(routers[0], host.hid) is not None)
    routers[2].alive = False
    sim.run(6, lambda: path(routers[1], routers[3].hid) == ["r1", "r0", "r4", "r3"])
    sim.run(1, lambda: host.hid.key not in routers[0].routes)
    routers[2].start()
    sim.run(5, lambda: path(routers[1], routers[3].hid) == ["r1", "r2", "r3"])
    sim.run(5, lambda: path(routers[0], host.hid) == ["r0", "r1", "r2", "h1"])


def test_a_router_that_closes_is_left_out_at_once() -> None:
    sim = Sim()
    routers, _ = ring(sim)
    sim.run(2, lambda: reach_all(routers))
    routers[2].plane.close(sim.now)
    routers[2].settle()
    routers[2].alive = False
    assert sim.run(1, lambda: path(routers[1], routers[3].hid) == ["r1", "r0", "r4", "r3"]) < 0.15


def test_a_host_moves_inside_its_ad() -> None:
    sim = Sim()
    routers, _ = chain(sim, ["ad1"] * 4)
    host = Host(sim, "h1")
    first = sim.connect(host, routers[0])
    sim.run(2, lambda: path(routers[3], host.hid) is not None)
    first.up = False  # as when a guest is resumed elsewhere: the old router sees nothing
    sim.connect(host, routers[3])
    routers[3].expect(host.hid, 1)
    took = sim.run(1, lambda: all(path(r, host.hid) is not None for r in routers))
    assert took < 0.1
    assert routers[0].seen(fx.HostLeft)[-1].reason == "moved"
    assert routers[0].hosts() == set()
    sim.run(60)
    assert path(routers[0], host.hid) == ["r0", "r1", "r2", "r3", "h1"]


def test_a_host_moves_to_another_ad_and_back() -> None:
    sim = Sim()
    routers, _ = chain(sim, ["ad1", "ad1", "ad2", "ad2"])
    host = Host(sim, "h1")
    there = sim.connect(host, routers[0])
    sim.run(2, lambda: path(routers[1], host.hid) is not None)
    for target, ports in ((routers[3], 1), (routers[0], 2), (routers[3], 2), (routers[0], 3)):
        there.up = False
        there = sim.connect(host, target)
        target.expect(host.hid, ports)
        assert sim.run(1, lambda h=host, t=target: h.at_router(t) and path(t, h.hid) is not None) < 0.05
        inner = routers[1] if target is routers[0] else routers[2]
        assert sim.run(1, lambda h=host, r=inner: path(r, h.hid) is not None) < 0.1
        other = routers[3] if target is routers[0] else routers[0]
        other.plane.detach(host.hid, sim.now)
        other.settle()
        sim.run(1)
        assert host.hid.key not in other.routes


def test_partition_and_heal() -> None:
    sim = Sim()
    routers, links = chain(sim, ["ad1"] * 6)
    left, right = Host(sim, "hl"), Host(sim, "hr")
    sim.connect(left, routers[0])
    sim.connect(right, routers[5])
    sim.run(3, lambda: path(routers[5], left.hid) is not None and path(routers[0], right.hid) is not None)
    sim.set_link(links[2], False)
    sim.run(1, lambda: left.hid.key not in routers[5].routes)
    assert path(routers[0], routers[2].hid) and path(routers[0], routers[3].hid) is None
    late = Host(sim, "late")
    sim.connect(late, routers[4])
    sim.run(400)  # everything from the other side has expired by now
    assert len(routers[0].plane.routing.lsdb) == 4
    sim.set_link(links[2], True)
    sim.run(2, lambda: reach_all(routers))
    sim.run(1, lambda: path(routers[0], late.hid) is not None and path(routers[5], left.hid) is not None)


@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_loss_and_reordering_only_delay(loss: float) -> None:
    for seed in range(4):
        sim = Sim(seed)
        routers, _ = chain(sim, ["ad1", "ad1", "ad2", "ad2", "ad3"], loss=loss, jitter=0.02)
        host = Host(sim, "h1")
        sim.connect(host, routers[0], loss=loss, jitter=0.02)
        sim.run(60, lambda r=routers, h=host: reach_all(r) and path(r[1], h.hid) is not None)


def test_the_way_between_ads_prefers_cheap_ads_then_near_borders() -> None:
    sim = Sim()
    a = [Router(sim, f"a{i}", "ad1") for i in range(3)]
    b = [Router(sim, f"b{i}", "ad2") for i in range(3)]
    c = Router(sim, "c0", "ad3")
    for row in (a, b):
        sim.connect(row[0], row[1])
        sim.connect(row[1], row[2])
    sim.connect(a[0], b[0])
    direct = sim.connect(a[2], b[2])
    sim.connect(a[1], c)
    sim.connect(c, b[1])
    everyone = [*a, *b, c]
    sim.run(3, lambda: reach_all(everyone))
    assert path(a[0], b[0].ad) == ["a0", "b0"] and path(a[2], b[0].ad) == ["a2", "b2"]
    assert path(a[1], b[0].ad) in (["a1", "a0", "b0"], ["a1", "a2", "b2"])  # not through ad3
    sim.set_link(direct, False)
    sim.run(1, lambda: path(a[2], b[0].ad) == ["a2", "a1", "a0", "b0"])
    a[0].alive = b[0].alive = False
    sim.run(10, lambda: path(a[2], b[0].ad) == ["a2", "a1", "c0", "b1"])


def test_two_borders_that_die_together_are_forgotten_by_ageing() -> None:
    sim = Sim()
    far, a, b = Router(sim, "far", "ad0"), Router(sim, "a", "ad1"), Router(sim, "b", "ad2")
    spare = Router(sim, "spare", "ad1")
    sim.connect(far, spare)
    sim.connect(spare, a)
    sim.connect(a, b)
    sim.run(2, lambda: path(far, b.ad) is not None)
    a.alive = b.alive = False
    sim.run(80, lambda: b.ad.key not in far.routes)


def test_steady_state_floods_nothing_but_refreshes() -> None:
    sim = Sim()
    routers, links = ring(sim)
    host = Host(sim, "h1")
    sim.connect(host, routers[0])
    sim.run(5)
    before = {r.name: dict(r.plane.routing.status(sim.now)) for r in routers}
    sim.run(30)
    for router in routers:
        after = router.plane.routing.status(sim.now)
        assert after["hellos"] - before[router.name]["hellos"] <= 2 * 33 + 33
        for counter in ("accepted", "spf", "sent", "resent", "digests", "forged"):
            assert after[counter] == before[router.name][counter], counter
    sim.run(400)
    assert all(len(r.plane.routing.lsdb) == 6 for r in routers)
    assert reach_all(routers)


def test_digests_repair_what_forged_acknowledgements_suppressed() -> None:
    from xiatb.node import routing_messages as rm

    sim = Sim()
    routers, _ = chain(sim, ["ad1", "ad1"])
    sim.run(1, lambda: reach_all(routers))
    real = sim.transmit

    def drop_updates(sender: Any, port: int, kind: str, dst: bytes, payload: bytes) -> None:
        if kind == "routing" and payload[1] == rm.RoutingType.UPDATE and sender is routers[0]:
            message = rm.parse(payload)
            assert isinstance(message, rm.Update)
            ack = rm.pack_ack(routers[1].hid.id, routers[0].hid.id, [lsa.ack for _, lsa in message.items])
            sim.at(sim.now, lambda: routers[0].arrive(0, "routing", b"\2" * 6, ack))
            return
        real(sender, port, kind, dst, payload)

    sim.transmit = drop_updates  # type: ignore[method-assign]
    host = Host(sim, "h1")
    sim.connect(host, routers[0])
    sim.run(0.5)
    assert host.hid.key not in routers[1].routes
    sim.transmit = real  # type: ignore[method-assign]
    assert sim.run(3, lambda: path(routers[1], host.hid) is not None) < 1.2


def test_what_came_in_together_goes_out_together() -> None:
    """A router in the middle reads ten advertisements before it passes them on, in as few messages."""
    sim = Sim()
    routers, (left, right) = chain(sim, ["ad1", "ad1", "ad1"])
    sim.run(3)
    hosts = [Host(sim, f"h{number}") for number in range(10)]
    before = right.frames
    for host in hosts:
        sim.connect(host, routers[0])
    sim.run(0.5, lambda: all(path(routers[2], host.hid) is not None for host in hosts))
    assert right.frames - before <= 10, "UPDATEs, ACKs and HELLOs of both ends"


def test_a_pace_stretches_what_a_router_does_by_itself_but_not_its_answers() -> None:
    def chatter(pace: int) -> tuple[float, int]:
        sim = Sim()
        config = {"routing_config": RoutingConfig().paced(pace), "join_config": JoinConfig().paced(pace)}
        routers = [Router(sim, f"r{number}", f"ad{number}", **config) for number in range(3)]
        links = [sim.connect(a, b) for a, b in zip(routers, routers[1:], strict=False)]
        took = sim.run(2, lambda: reach_all(routers))
        sim.run(20)
        before = sum(link.frames for link in links)
        sim.run(100)
        return took, sum(link.frames for link in links) - before

    (quick, often), (slow, seldom) = chatter(1), chatter(4)
    assert slow < quick + 0.5
    assert seldom < often / 3


@pytest.mark.parametrize(("pace", "lifetimes"), [(1, {300, 60}), (2, {2400, 480}), (4, {3600})])
def test_advertisements_of_large_labs_live_longer(pace: int, lifetimes: set[int]) -> None:
    sim = Sim()
    routers = [
        Router(sim, f"r{i}", ad, routing_config=RoutingConfig().paced(pace))
        for i, ad in enumerate(("ad1", "ad1", "ad2"))
    ]
    for a, b in zip(routers, routers[1:], strict=False):
        sim.connect(a, b)
    sim.run(3, lambda: reach_all(routers))
    assert {lsa.lifetime for lsa in routers[1].plane.routing.lsdb} == lifetimes


def test_hosts_are_spared_the_hellos() -> None:
    sim = Sim()
    router, host = Router(sim, "r1"), Host(sim, "h1")
    link = sim.connect(router, host)
    sim.run(1, lambda: host.at_router(router))
    sim.run(5)
    hellos = len(router.seen(fx.SendRouting))
    sim.run(50)
    assert len(router.seen(fx.SendRouting)) - hellos <= 6
    other = Router(sim, "r2")
    link.ends = (*link.ends, (other, 0))
    other.links[0] = link
    other.link_up(0)
    assert sim.run(1, lambda: path(router, other.hid) == ["r1", "r2"]) < 0.1


def test_a_router_that_falls_silent_is_missed_the_later_the_slower_the_pace() -> None:
    sim = Sim()
    routers = [Router(sim, f"r{i}", routing_config=RoutingConfig().paced(4)) for i in range(2)]
    link = sim.connect(*routers)
    sim.run(2, lambda: reach_all(routers))
    sim.run(10)
    link.loss = 1.0
    assert 9 < sim.run(20, lambda: path(routers[0], routers[1].hid) is None) < 15


def test_routers_and_hosts_on_one_switch() -> None:
    sim = Sim()
    routers = [Router(sim, f"r{i}", "ad1" if i < 4 else "ad2") for i in range(6)]
    hosts = [Host(sim, f"h{i}") for i in range(3)]
    sim.lan([*routers, *hosts], loss=0.05)
    leaf = Router(sim, "leaf", "ad1")
    sim.connect(leaf, routers[3])
    sim.run(10, lambda: reach_all([*routers, leaf]) and all(h.join.locator for h in hosts))
    at = {h.name: h.join.locator for h in hosts}
    assert path(leaf, routers[5].ad) in (["leaf", "r3", "r4"], ["leaf", "r3", "r5"])
    sim.run(60)
    assert reach_all([*routers, leaf])
    assert {h.name: h.join.locator for h in hosts} == at


def cheap_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for Ed25519: convergence of many routers is to be tested, not OpenSSL."""
    from xiatb.identity import keys

    def digest(public: bytes, data: bytes) -> bytes:
        return hashlib.sha512(public + bytes(data)).digest()

    monkeypatch.setattr(keys.KeyPair, "sign", lambda self, data: digest(self.public, data))
    monkeypatch.setattr(keys, "verify", lambda public, signature, data: digest(public, data) == signature)


def test_a_hundred_routers_and_a_hundred_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap_signatures(monkeypatch)
    sim = Sim(5)
    rng = Random(5)
    routers = [Router(sim, f"r{i}", f"ad{i // 25}") for i in range(100)]
    for i in range(1, 100):
        sim.connect(routers[i], routers[rng.randrange(max(i // 25 * 25, i - 12), i) if i % 25 else i - 1])
    for _ in range(50):
        a, b = rng.sample(routers, 2)
        sim.connect(a, b)
    hosts = [Host(sim, f"h{i}") for i in range(100)]
    for i, host in enumerate(hosts):
        sim.connect(host, routers[i])
    started = time.monotonic()

    def converged() -> bool:
        if any(h.join.locator is None for h in hosts):
            return False
        a, far = routers[0], routers[99]
        return far.ad.key in a.routes and a.ad.key in far.routes

    assert sim.run(3, converged) < 1.0
    sim.run(1.0)
    for source in routers[::9]:
        for target in routers[::7]:
            assert path(source, target.hid if target.ad == source.ad else target.ad)
        for i, host in enumerate(hosts):
            if routers[i].ad == source.ad:
                assert path(source, host.hid)
    assert time.monotonic() - started < 60
