"""A guest that is moved: attached by delegation, redirected at its old host, before it notices anything."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.node.minilab import Client, MiniLab, told
from tests.node.namespaces import ip, needs_root
from tests.node.test_ring_sockets import APPS
from xiatb.node.config import PortConfig
from xiatb.wire.dagops import behind
from xiatb.wire.xid import XID

pytestmark = [needs_root, pytest.mark.netns, pytest.mark.alone]
STOPPED = 0.15
"""Seconds for which a guest stands still: what a test does to it, no wait for something."""


class Move:
    """c1 - r1 - hv1 - hv2, guest g1 at hv1, which can be plugged into hv2; r1 and hv1 in ad1, hv2 in `ad`."""

    def __init__(self, lab: MiniLab, ad: str = "ad2", data_plane: str = "auto") -> None:
        self.lab = lab
        self.ads = {"hv1": "ad1", "hv2": ad}
        lab.node("r1", "router", ad="ad1")
        for name in ("hv1", "hv2"):
            lab.node(name, "hypervisor", ad=self.ads[name])
        for name in ("c1", "mid"):
            lab.node(name, "host")
        lab.node("g1", "guest")
        for a, b, role in (
            ("c1", "r1", "link"), ("r1", "hv1", "link"), ("hv1", "hv2", "link"), ("g1", "mid", "link"),
            ("mid", "hv1", "guest"), ("mid", "hv2", "guest"),
        ):  # fmt: skip
            lab.link(a, b, role_b=role)
        self.panel = lab.app("mid", "tests.node.patch", "eth0", "eth1", "eth2")
        assert told(self.panel)["ready"]
        for name in ("r1", "hv1", "hv2", "c1"):
            lab.start(name, data_plane=data_plane)
        lab.start("g1", attach="direct")
        self.g1 = lab.joined("g1")
        lab.joined("c1")
        self.hosts = {"hv1": lab.joined("hv1"), "hv2": lab.joined("hv2")}
        self.hid = str(lab.hid("g1"))
        self.port = {"hv1": "eth2", "hv2": "eth1"}

    def plug(self, line: str) -> None:
        plug(self.panel, line)

    def delegate(self, to: str) -> str:
        """A delegation as the daemons carry it; gives the guest's JOIN."""
        there = self.hosts[to]
        invite = there.ask("guest_prepare", hid=self.hid, port=self.port[to])["invite"]
        join: str = self.g1.ask("delegate", invite=invite)["join"]
        there.ask("guest_delegate", hid=self.hid, port=self.port[to], join=join)
        return join

    def stop(self, origin: str, to: str, seconds: float = 5.0) -> None:
        """The guest has stopped at `origin`, which sends its packets on for some seconds."""
        self.plug("hold " + str(int(to == "hv2")))
        locator = str(self.lab.locator(to, self.ads[to]))
        self.hosts[origin].ask("guest_redirect", hid=self.hid, to=locator, seconds=seconds)
        self.hosts[to].ask("guest_expect", hid=self.hid, port=self.port[to])

    def located(self, at: str) -> None:
        wanted = str(self.lab.locator("g1", self.ads[at]))
        while self.g1.ask("locator")["dag"] != wanted:
            self.g1.wait_event("locator")

    def probe(self, seconds: float) -> subprocess.Popen[bytes]:
        echo = self.lab.app("g1", APPS, "datagram_echo", "dgram")
        probe = self.lab.app("c1", APPS, "probe", told(echo)["dag"], str(seconds))
        assert told(probe)["ready"]
        return probe


def signed(client: Client) -> int:
    count: int = client.ask("status")["stats"]["join"]["signed"]
    return count


def reader(client: Client, element: str, handler: str) -> int:
    return int(client.ask("handlers", read=f"{element}.{handler}")["value"])


@pytest.mark.parametrize("ad, data_plane", [("ad2", "auto"), ("ad2", "click"), ("ad1", "auto")])
def test_the_guest_is_reached_before_it_has_noticed(lab: MiniLab, ad: str, data_plane: str) -> None:
    move = Move(lab, ad, data_plane)
    sink = told(lab.app("c1", APPS, "sink", "svc"))["dag"]
    sender = lab.app("g1", APPS, "source", sink, str(12 << 20), "9", str(4 << 20))
    assert told(sender)["connected"]
    probe = move.probe(3.0)
    move.delegate("hv2")
    move.hosts["hv1"].wait_traffic("eth2")
    move.stop("hv1", "hv2")
    assert move.hosts["hv2"].ask("guest_wait", hid=move.hid, timeout=1)["port_name"] == "eth1"
    time.sleep(STOPPED)
    before = signed(move.g1)
    move.plug("deaf 1")
    move.hosts["hv2"].wait_traffic("eth1")
    assert move.g1.ask("locator")["dag"] == str(lab.locator("g1", "ad1"))
    if ad == "ad2":
        assert reader(move.hosts["hv1"], "core/local/moved", "redirected") > 50
    move.plug("1")
    move.hosts["hv2"].events.clear()
    move.hosts["hv2"].ask("guest_expect", hid=move.hid, port="eth1")
    assert move.hosts["hv2"].wait_event("guest_joined")["hid"] == move.hid
    if ad == "ad2":
        move.located("hv2")
    else:
        while move.g1.ask("locator")["router_hid"] != str(lab.hid("hv2")):
            move.g1.wait_event("locator")
    assert signed(move.g1) == before
    probed = told(probe)
    assert probed["longest_gap_ms"] < 1000 * STOPPED + 150 and probed["lost"] < 100, probed
    assert told(sender)["size"] == 12 << 20


def test_there_and_back_within_the_redirection(lab: MiniLab) -> None:
    """Redirections of both hosts end where the guest is, packets make no circle."""
    move = Move(lab)
    probe = move.probe(4.0)
    for origin, to in (("hv1", "hv2"), ("hv2", "hv1")) * 2:
        move.delegate(to)
        move.hosts[origin].wait_traffic(move.port[origin])
        move.stop(origin, to)
        time.sleep(STOPPED / 3)
        move.plug(str(int(to == "hv2")))
        move.hosts[to].ask("guest_expect", hid=move.hid, port=move.port[to])
        move.located(to)
    probed = told(probe)
    assert probed["longest_gap_ms"] < 400 and probed["lost"] < 300, probed


def test_a_redirection_that_ends_while_the_guest_is_on_its_way_back(lab: MiniLab) -> None:
    move = Move(lab)
    move.delegate("hv2")
    move.stop("hv1", "hv2", seconds=0.5)
    move.plug("1")
    move.hosts["hv2"].ask("guest_expect", hid=move.hid, port="eth1")
    move.located("hv2")
    move.hosts["hv1"].events.clear()
    move.delegate("hv1")
    assert move.hosts["hv1"].wait_event("guest_left")["reason"] == "moved"
    move.stop("hv2", "hv1")
    move.plug("deaf 0")
    assert move.hosts["hv1"].ask("guest_wait", hid=move.hid, timeout=1)["port_name"] == "eth2"


def test_a_move_that_fails_gives_the_route_back(lab: MiniLab) -> None:
    move = Move(lab)
    probe = move.probe(2.0)
    move.delegate("hv2")
    move.stop("hv1", "hv2")
    assert {name: away(move, name) for name in ("hv1", "hv2")} == {"hv1": True, "hv2": False}
    time.sleep(STOPPED / 3)
    move.plug("0")
    move.hosts["hv1"].ask("guest_expect", hid=move.hid, port="eth2")
    move.hosts["hv2"].ask("guest_detach", hid=move.hid)
    probed = told(probe)
    assert probed["longest_gap_ms"] < 300, probed
    assert move.hid not in {host["hid"] for host in move.hosts["hv2"].ask("joined")["hosts"]}
    assert move.hosts["hv1"].ask("guest_wait", hid=move.hid, timeout=1)["port_name"] == "eth2"
    assert not away(move, "hv1")


def away(move: Move, name: str) -> bool:
    """What the node says of the guest: attached, but gone?"""
    hosts = move.hosts[name].ask("joined")["hosts"]
    return next(bool(host["away"]) for host in hosts if host["hid"] == move.hid)


def test_delegations_that_are_refused(lab: MiniLab) -> None:
    """For another host, of another guest, changed, used before, or after a later JOIN of the guest."""
    move = Move(lab)
    hv1, hv2 = move.hosts["hv1"], move.hosts["hv2"]
    here = {"hid": move.hid, "port": "eth1"}
    good = move.delegate("hv2")
    forged = good[:-2] + f"{int(good[-2:], 16) ^ 1:02x}"
    assert hv2.error("guest_delegate", join=forged, **here) == "EACCES"
    assert hv2.error("guest_delegate", join=good, hid=str(lab.hid("c1")), port="eth1") == "EACCES"
    assert hv2.error("guest_delegate", join=good[:100], **here) == "EACCES"
    assert hv1.error("guest_delegate", hid=move.hid, port="eth2", join=good) == "EACCES"
    assert move.g1.error("delegate", invite=good) == "EACCES"
    other = hv2.ask("guest_prepare", hid=str(lab.hid("c1")), port="eth1")["invite"]
    assert move.g1.error("delegate", invite=other) == "EACCES"
    assert hv1.error("guest_redirect", hid=str(lab.hid("c2")), to=str(lab.locator("hv2", "ad2"))) == "ENOENT"
    assert hv1.error("guest_redirect", hid=move.hid, to="RE SID:" + "0" * 40) == "EINVAL"
    # Used, then kept again by somebody who has recorded it: the sequence is not new, the guest is invited.
    move.stop("hv1", "hv2")
    move.plug("1")
    hv2.ask("guest_expect", **here)
    move.located("hv2")
    hv2.ask("guest_detach", hid=move.hid)
    hv2.ask("guest_delegate", join=good, **here)
    used = hv2.ask("status")["stats"]["handover"]["delegations_used"]
    hv2.ask("guest_expect", **here)
    assert hv2.ask("status")["stats"]["handover"]["delegations_used"] == used == 1
    assert hv2.ask("guest_wait", hid=move.hid, timeout=3)["seq"] > 0


def swap_lab(lab: MiniLab) -> tuple[dict[str, subprocess.Popen[bytes]], dict[str, Client]]:
    """hv1 (ad1) - hv2 (ad2) with taps of g1 and g2 on both: g1 starts at hv1, g2 at hv2."""
    for name, ad in (("hv1", "ad1"), ("hv2", "ad2")):
        lab.node(name, "hypervisor", ad=ad)
    lab.link("hv1", "hv2")
    panels = {}
    for number in ("1", "2"):
        lab.node(f"mid{number}", "host")
        lab.node(f"g{number}", "guest")
        lab.link(f"g{number}", f"mid{number}")
        for name in ("hv1", "hv2"):
            lab.link(f"mid{number}", name, role_b="guest")
        panels[f"g{number}"] = lab.app(f"mid{number}", "tests.node.patch", "eth0", "eth1", "eth2")
        assert told(panels[f"g{number}"])["ready"]
    plug(panels["g2"], "1")
    for name in ("hv1", "hv2"):
        lab.start(name)
    for name in ("g1", "g2"):
        lab.start(name, attach="direct")
    return panels, {name: lab.joined(name) for name in ("hv1", "hv2", "g1", "g2")}


def plug(panel: subprocess.Popen[bytes], line: str) -> None:
    assert panel.stdin is not None
    panel.stdin.write(line.encode() + b"\n")
    panel.stdin.flush()


def test_both_ends_of_a_stream_move_at_the_same_time(lab: MiniLab) -> None:
    panels, nodes = swap_lab(lab)
    ports = {"g1": "eth1", "g2": "eth2"}
    sink = told(lab.app("g2", APPS, "sink", "svc"))["dag"]
    sender = lab.app("g1", APPS, "source", sink, str(6 << 20), "9", str(3 << 20))
    assert told(sender)["connected"]
    for turn in (1, 0):
        one, other = ("hv1", "hv2") if turn else ("hv2", "hv1")
        moves = {"g1": (one, other), "g2": (other, one)}
        for guest, (origin, _) in moves.items():
            nodes[origin].wait_traffic(ports[guest], 5)
        for guest, (_, to) in moves.items():
            where = {"hid": str(lab.hid(guest)), "port": ports[guest]}
            invite = nodes[to].ask("guest_prepare", **where)["invite"]
            nodes[to].ask("guest_delegate", join=nodes[guest].ask("delegate", invite=invite)["join"], **where)
        for guest, (_, to) in moves.items():
            plug(panels[guest], f"hold {int(to == 'hv2')}")
        for guest, (origin, to) in moves.items():
            hid, ad = str(lab.hid(guest)), "ad1" if to == "hv1" else "ad2"
            nodes[origin].ask("guest_redirect", hid=hid, to=str(lab.locator(to, ad)), seconds=5)
            nodes[to].ask("guest_expect", hid=hid, port=ports[guest])
        time.sleep(STOPPED)
        for guest, (_, to) in moves.items():
            plug(panels[guest], str(int(to == "hv2")))
            nodes[to].ask("guest_expect", hid=str(lab.hid(guest)), port=ports[guest])
        for guest, (_, to) in moves.items():
            wanted = str(lab.locator(guest, "ad1" if to == "hv1" else "ad2"))
            while nodes[guest].ask("locator")["dag"] != wanted:
                nodes[guest].wait_event("locator")
    sent = told(sender)
    assert sent["size"] == 6 << 20 and sent["stats"]["moves"] >= 2, sent


@pytest.mark.parametrize("data_plane", ["auto", "click"])
def test_across_a_core_that_knows_ip_only(lab: MiniLab, data_plane: str) -> None:
    """hv1 (ad1, with the client) and hv2 (ad2) reach each other over IPv4 alone."""
    for number, name in enumerate(("hv1", "hv2")):
        lab.node(name, "hypervisor", ad=f"ad{number + 1}")
    lab.net.add("core")
    for name in ("c1", "mid"):
        lab.node(name, "host")
    lab.node("g1", "guest")
    lab.link("c1", "hv1")
    for number, name in enumerate(("hv1", "hv2")):
        device = f"eth{len(lab.ports[name])}"
        lab.net.link(name, device, "core", f"eth{number}")
        ip("-n", lab.net["core"], "addr", "add", f"192.0.{number}.254/24", "dev", f"eth{number}")
        lab.ports[name].append(
            PortConfig(device, role="ip", ip=f"192.0.{number}.1/24", ip_gateway=f"192.0.{number}.254")
        )
    with lab.net.entered("core"):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for a, b, role in (("g1", "mid", "link"), ("mid", "hv1", "guest"), ("mid", "hv2", "guest")):
        lab.link(a, b, role_b=role)
    panel = lab.app("mid", "tests.node.patch", "eth0", "eth1", "eth2")
    assert told(panel)["ready"]
    for number, name in enumerate(("hv1", "hv2")):
        lab.start(name, gateway_ip=f"192.0.{number}.1", data_plane=data_plane)
    lab.start("c1")
    lab.start("g1", attach="direct")
    g1, hv1, hv2 = (lab.joined(name) for name in ("g1", "hv1", "hv2"))
    lab.joined("c1")
    echo = lab.app("g1", APPS, "datagram_echo", "dgram")
    probe = lab.app("c1", APPS, "probe", told(echo)["dag"], "2.5")
    assert told(probe)["ready"]
    place = {"hid": str(lab.hid("g1")), "port": "eth1"}
    invite = hv2.ask("guest_prepare", **place)["invite"]
    hv2.ask("guest_delegate", join=g1.ask("delegate", invite=invite)["join"], **place)
    hv1.wait_traffic("eth2")
    plug(panel, "hold 1")
    hv1.ask("guest_redirect", hid=place["hid"], to=hv2.ask("locator")["dag"], seconds=5)
    hv2.ask("guest_expect", **place)
    time.sleep(STOPPED)
    plug(panel, "deaf 1")
    hv2.wait_traffic("eth1")
    plug(panel, "1")
    hv2.ask("guest_expect", **place)
    wanted = str(behind(XID.parse("IP:192.0.1.1"), lab.locator("g1", "ad2")))
    while g1.ask("locator")["dag"] != wanted:
        g1.wait_event("locator")
    probed = told(probe)
    assert probed["longest_gap_ms"] < 1000 * STOPPED + 150 and probed["lost"] < 100, probed
