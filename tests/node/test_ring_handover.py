"""A guest that is moved: attached by delegation, redirected at its old host, before it notices anything."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.node.minilab import Client, MiniLab, told
from tests.node.namespaces import needs_root
from tests.node.test_ring_sockets import APPS

pytestmark = [needs_root, pytest.mark.netns]
STOPPED = 0.15


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
        assert self.panel.stdin is not None
        self.panel.stdin.write(line.encode() + b"\n")
        self.panel.stdin.flush()

    def delegate(self, to: str) -> str:
        """A delegation as the daemons carry it; gives the guest's JOIN."""
        there = self.hosts[to]
        invite = there.ask("guest_prepare", hid=self.hid, port=self.port[to])["invite"]
        join: str = self.g1.ask("delegate", invite=invite)["join"]
        there.ask("guest_delegate", hid=self.hid, port=self.port[to], join=join)
        return join

    def stop(self, origin: str, to: str) -> None:
        """The guest has stopped at `origin`."""
        self.plug("hold " + str(int(to == "hv2")))
        locator = str(self.lab.locator(to, self.ads[to]))
        self.hosts[origin].ask("guest_redirect", hid=self.hid, to=locator, seconds=5)
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
    probe = move.probe(3.0)
    sink = told(lab.app("c1", APPS, "sink", "svc"))["dag"]
    sender = lab.app("g1", APPS, "source", sink, str(8 << 20), "9", str(4 << 20))
    assert told(sender)["connected"]
    move.delegate("hv2")
    time.sleep(0.5)
    move.stop("hv1", "hv2")
    assert move.hosts["hv2"].ask("guest_wait", hid=move.hid, timeout=1)["port_name"] == "eth1"
    time.sleep(STOPPED)
    before = signed(move.g1)
    move.plug("deaf 1")
    time.sleep(0.5)
    assert move.g1.ask("locator")["dag"] == str(lab.locator("g1", "ad1"))
    if ad == "ad2":
        assert reader(move.hosts["hv1"], "core/local/moved", "redirected") > 300
    move.plug("1")
    move.hosts["hv2"].events.clear()
    move.hosts["hv2"].ask("guest_expect", hid=move.hid, port="eth1")
    assert move.hosts["hv2"].wait_event("guest_joined")["hid"] == move.hid
    if ad == "ad2":
        move.located("hv2")
    else:
        while move.g1.ask("locator")["router_hid"] != str(lab.hid("hv2")):
            move.g1.wait_event("locator")
    assert signed(move.g1) <= before + 1  # nothing but the LEAVE for the old router
    probed = told(probe)
    assert probed["longest_gap_ms"] < 1000 * STOPPED + 150 and probed["lost"] < 100, probed
    assert told(sender)["size"] == 8 << 20


def test_there_and_back_within_the_redirection(lab: MiniLab) -> None:
    """Redirections of both hosts end where the guest is, packets make no circle."""
    move = Move(lab)
    probe = move.probe(4.0)
    for origin, to in (("hv1", "hv2"), ("hv2", "hv1")) * 2:
        move.delegate(to)
        time.sleep(0.3)
        move.stop(origin, to)
        time.sleep(0.05)
        move.plug(str(int(to == "hv2")))
        move.hosts[to].ask("guest_expect", hid=move.hid, port=move.port[to])
        move.located(to)
    probed = told(probe)
    assert probed["longest_gap_ms"] < 400 and probed["lost"] < 300, probed


def test_a_move_that_fails_gives_the_route_back(lab: MiniLab) -> None:
    move = Move(lab)
    probe = move.probe(2.0)
    move.delegate("hv2")
    move.stop("hv1", "hv2")
    time.sleep(0.05)
    move.plug("0")
    move.hosts["hv1"].ask("guest_expect", hid=move.hid, port="eth2")
    move.hosts["hv2"].ask("guest_detach", hid=move.hid)
    probed = told(probe)
    assert probed["longest_gap_ms"] < 300, probed
    assert move.hid not in {host["hid"] for host in move.hosts["hv2"].ask("joined")["hosts"]}
    assert move.hosts["hv1"].ask("guest_wait", hid=move.hid, timeout=1)["port_name"] == "eth2"


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
