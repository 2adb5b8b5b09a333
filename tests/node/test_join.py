"""Join: one round trip, movement, ageing, loss; all in virtual time."""

from __future__ import annotations

import pytest

from tests.node.netsim import Host, JoinRouter, Sim
from xiatb.node import effects as fx
from xiatb.node import join_messages as jm
from xiatb.node.join import JoinConfig


def pair(**link: float) -> tuple[Sim, JoinRouter, Host]:
    sim = Sim()
    router, host = JoinRouter(sim, "r1"), Host(sim, "h1")
    sim.connect(host, router, **link)
    return sim, router, host


def test_a_host_joins_with_one_signature_made_and_two_checked() -> None:
    sim, router, host = pair(delay=0.002)
    sim.run(1, lambda: host.at_router(router))
    assert router.hosts() == {host.hid}
    assert host.join.stats["signed"] == 1
    assert host.join.stats["verified"] == 1  # the ACCEPT; the certificate is counted by its cache
    locator = host.seen(fx.Locator)[0]
    assert (locator.ad, locator.router_hid, locator.port, locator.mtu) == (router.ad, router.hid, 0, 9000)
    assert router.neighbours[(0, host.hid.key)] == host.mac(0)
    assert host.neighbours[(0, router.hid.key)] == router.mac(0)


def test_an_invited_host_needs_one_round_trip() -> None:
    sim, router, host = pair(delay=0.010)
    sim.run(1, lambda: host.at_router(router))
    other = JoinRouter(sim, "r2", "ad2")
    sim.connect(host, other, delay=0.010)
    sim.run(0.5)
    assert host.at_router(router), "a good router is kept"
    start = sim.now
    other.join.expect(host.hid, 0, sim.now)
    other.settle()
    took = sim.run(1, lambda: host.at_router(other))
    assert took == pytest.approx(0.030, abs=0.001)  # INVITE, JOIN, ACCEPT
    joined = other.seen(fx.HostJoined)
    assert [j.hid for j in joined] == [host.hid]
    sim.run(0.2)
    assert router.hosts() == set(), "the old router is told"
    assert host.seen(fx.Locator)[-1].changed
    assert sim.now - start < 0.5


def test_an_invitation_that_repeats_leads_to_one_join() -> None:
    sim, router, host = pair(delay=0.050)
    sim.run(1, lambda: host.at_router(router))
    signed = host.join.stats["signed"]
    router.join.expect(host.hid, 0, sim.now)
    router.settle()
    sim.run(0.5)
    assert host.join.stats["signed"] == signed + 1
    assert len(router.seen(fx.HostJoined)) == 2, "an expected join is told, even of a host that is here"
    assert not host.seen(fx.Locator)[-1].changed


def test_expecting_again_invites_at_once_with_the_same_bytes() -> None:
    sim, router, host = pair()
    sim.run(1, lambda: host.at_router(router))
    sim.links[0].up = False
    for _ in range(3):
        router.join.expect(host.hid, 0, sim.now)
        router.settle()
        sim.run(3)
    invites = {e.payload for e in router.seen(fx.SendJoin) if e.payload[1] == 6}
    assert len(invites) == 1
    sim.links[0].up = True
    signed = host.join.stats["signed"]
    router.join.expect(host.hid, 0, sim.now)
    router.settle()
    joined = len(router.seen(fx.HostJoined))
    assert sim.run(1, lambda: len(router.seen(fx.HostJoined)) > joined) < 0.01
    assert host.join.stats["signed"] == signed + 1


def test_steady_state_is_cheap() -> None:
    sim, router, host = pair()
    sim.run(1, lambda: host.at_router(router))
    before = dict(host.join.stats)
    told = len(host.seen(fx.Locator)) + len(router.seen(fx.HostJoined))
    sim.run(120)
    assert host.join.stats["signed"] - before["signed"] <= 31  # every 4 s
    assert host.join.stats["verified"] - before["verified"] <= 36  # its ACCEPTs and a new nonce each 30 s
    assert len(host.seen(fx.Locator)) + len(router.seen(fx.HostJoined)) == told
    assert router.hosts() == {host.hid}


@pytest.mark.parametrize("loss", [0.3, 0.6])
def test_a_lossy_link_only_delays(loss: float) -> None:
    for seed in range(10):
        sim = Sim(seed)
        router, host = JoinRouter(sim, "r1"), Host(sim, "h1")
        sim.connect(host, router, loss=loss, jitter=0.03)
        sim.run(20, lambda h=host, r=router: h.at_router(r) and h.hid in r.hosts())


def test_the_router_forgets_a_host_that_is_silent() -> None:
    sim, router, host = pair()
    sim.run(1, lambda: host.at_router(router))
    host.alive = False
    sim.run(20, lambda: not router.hosts())
    left = router.seen(fx.HostLeft)[0]
    assert (left.hid, left.reason) == (host.hid, "timeout")
    assert not router.neighbours


def test_a_host_whose_router_dies_takes_another_one() -> None:
    sim, router, host = pair()
    other = JoinRouter(sim, "r2", "ad2")
    sim.connect(host, other)
    sim.run(2, lambda: host.at_router(router))
    router.alive = False
    assert sim.run(10, lambda: host.at_router(other)) < 3.6


def test_a_host_alone_loses_its_locator_and_gets_it_back() -> None:
    sim, router, host = pair()
    sim.run(1, lambda: host.at_router(router))
    router.alive = False
    assert sim.run(10, lambda: host.join.locator is None) < 6
    assert host.seen(fx.LocatorLost)
    router.alive = True
    assert sim.run(10, lambda: host.at_router(router)) < 1.5


def test_a_router_that_restarts_gets_its_hosts_back() -> None:
    sim, router, host = pair()
    sim.run(1, lambda: host.at_router(router))
    fresh = JoinRouter(sim, "r1b")
    router.join = fresh.join.__class__(
        router.key, router.ad, router.ad_key.public, router.cert, sim.rng, entropy=sim.rng.randbytes
    )
    router.link_up(0)
    assert sim.run(2, lambda: host.hid in router.hosts()) < 0.1


def test_a_guest_that_was_invited_joins_once_however_often_its_move_is_announced() -> None:
    sim, router, host = pair()
    sim.run(1, lambda: host.at_router(router))
    other = JoinRouter(sim, "r2", "ad2")
    link = sim.connect(router, other)
    sim.links[0].ends = ((host, 0), link.ends[1])  # the cable of port 0 now ends at the other router
    other.links[0] = sim.links[0]
    signed = host.join.stats["signed"]
    host.join.kick(0, sim.now)  # the announcement may come before the invitation
    host.settle()
    other.join.expect(host.hid, 0, sim.now)
    other.settle()
    assert sim.run(1, lambda: host.at_router(other)) < 0.1
    for _ in range(4):
        sim.run(0.1)
        host.join.kick(0, sim.now)
        host.settle()
    sim.run(0.1)
    joins = host.join.stats["signed"] - signed
    assert joins <= 2, "one JOIN, and a LEAVE for the old router"


@pytest.mark.parametrize("told", [True, False])
def test_a_guest_with_a_delegation_waits_to_be_told_where_it_is(told: bool) -> None:
    """It signs nothing and asks nobody while its announcement runs; untold, it looks around in the end."""
    sim, router, host = pair()
    sim.run(1, lambda: host.at_router(router))
    other = JoinRouter(sim, "r2", "ad2")
    link = sim.connect(router, other)
    join = jm.parse(host.join.delegate(other.join.invitation(host.hid, 0, sim.now)))
    assert isinstance(join, jm.Join)
    sim.links[0].ends = ((host, 0), link.ends[1])  # the cable of port 0 now ends at the other router
    other.links[0] = sim.links[0]
    other.join.arrival(0, join, sim.now, sim.now + 2.0)
    other.settle()
    assert host.hid in other.hosts()
    signed = host.join.stats["signed"]
    for _ in range(3):
        host.join.kick(0, sim.now)
        host.settle()
        sim.run(0.05)
    assert host.at_router(router) and host.join.stats["signed"] == signed
    if told:
        assert other.join.accept_again(host.hid)
        other.settle()
        assert sim.run(1, lambda: host.at_router(other)) < 0.05
        assert host.join.stats["signed"] == signed
    else:
        assert sim.run(2, lambda: host.at_router(other)) < 0.6


def test_a_kick_finds_a_new_router_behind_the_same_port() -> None:
    sim, router, host = pair()
    sim.run(1, lambda: host.at_router(router))
    other = JoinRouter(sim, "r2", "ad2")
    link = sim.connect(host, other)
    moved = link.ends[1]
    sim.links[0].ends = ((host, 0), moved)  # the cable of port 0 now ends at the other router
    other.links[0] = sim.links[0]
    host.join.kick(0, sim.now)
    host.settle()
    assert sim.run(1, lambda: host.at_router(other)) < 0.05


def test_link_down_and_up() -> None:
    sim, router, host = pair()
    sim.run(1, lambda: host.at_router(router))
    sim.set_link(sim.links[0], False)
    assert host.join.locator is None
    sim.run(3)
    sim.set_link(sim.links[0], True)
    assert sim.run(1, lambda: host.at_router(router)) < 0.05


def test_a_router_that_closes_sends_its_hosts_away() -> None:
    sim, router, host = pair()
    other = JoinRouter(sim, "r2", "ad2")
    sim.connect(host, other)
    sim.run(2, lambda: host.at_router(router))
    router.join.close(sim.now)
    router.settle()
    router.alive = False
    assert sim.run(1, lambda: host.at_router(other)) < 0.1


def test_detach_with_and_without_telling() -> None:
    sim, router, host = pair()
    sim.run(1, lambda: host.at_router(router))
    router.join.detach(host.hid, sim.now, tell=True)
    router.settle()
    assert router.seen(fx.HostLeft)[-1].reason == "detached"
    sim.run(0.0015)
    assert host.seen(fx.LocatorLost)
    sim.run(1, lambda: host.at_router(router))
    router.join.detach(host.hid, sim.now)
    router.settle()
    assert router.hosts() == set()
    sim.run(6, lambda: host.hid in router.hosts())  # a host that is still there refreshes itself back


def test_a_host_that_leaves_is_gone_at_once() -> None:
    sim, router, host = pair()
    sim.run(1, lambda: host.at_router(router))
    host.join.leave(sim.now)
    host.settle()
    sim.run(0.01)
    assert router.seen(fx.HostLeft)[-1].reason == "left"
    sim.run(5)
    assert host.join.locator is None


def test_a_clock_that_went_back_is_lifted() -> None:
    sim, router, host = pair()
    sim.run(1, lambda: host.at_router(router))
    seq = router.join.hosts[host.hid.id].seq
    again = Host(sim, "h1")
    again.join._clock_ns = lambda: seq - 10**12  # a reboot with a clock 1000 s behind
    sim.links[0].ends = ((again, 0), sim.links[0].ends[1])
    again.links[0] = sim.links[0]
    host.alive = False
    again.link_up(0)
    sim.run(1, lambda: again.at_router(router))
    assert router.join.hosts[host.hid.id].seq > seq


def test_an_expectation_ends() -> None:
    sim = Sim()
    router = JoinRouter(sim, "r1", config=JoinConfig(expect_for=5.0))
    host = Host(sim, "h1")
    router.join.expect(host.hid, 3, sim.now)
    router.settle()
    sent = len(router.seen(fx.SendJoin))
    sim.run(20)
    assert 10 < len(router.seen(fx.SendJoin)) - sent < 20
    assert router.join.next_deadline() is None
    assert "invited" in router.seen(fx.Log)[-1].message


def test_beacons_are_rare_where_only_a_router_is_and_frequent_again_for_a_host() -> None:
    sim = Sim()
    router, other = JoinRouter(sim, "r1"), JoinRouter(sim, "r2")
    sim.connect(router, other)
    router.join.router_at(0, True, sim.now)
    sim.run(1)
    told = len(router.seen(fx.SendJoin))
    sim.run(50)
    assert 4 <= len(router.seen(fx.SendJoin)) - told <= 6
    host = Host(sim, "h1")
    sim.lan([router, host])  # another port: hears as always
    sim.run(0.5, lambda: host.at_router(router))
    told = sum(sent.port == 1 for sent in router.seen(fx.SendJoin))
    sim.run(10)
    assert sum(sent.port == 1 for sent in router.seen(fx.SendJoin)) - told >= 10
    told = sum(sent.port == 0 for sent in router.seen(fx.SendJoin))
    router.join.router_at(0, False, sim.now)
    router.tick()
    sim.run(10)
    assert sum(sent.port == 0 for sent in router.seen(fx.SendJoin)) - told >= 10


def test_two_routers_on_one_wire_do_not_make_a_host_flap() -> None:
    sim, router, host = pair()
    other = JoinRouter(sim, "r2")
    sim.connect(host, other)
    sim.run(120)
    assert [e.changed for e in host.seen(fx.Locator)].count(True) == 1
