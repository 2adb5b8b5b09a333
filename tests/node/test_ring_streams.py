"""100 MB over a bad link, and over a host that moves between ADs while it sends."""

from __future__ import annotations

import signal

import pytest

from tests.node.minilab import Client, MiniLab, told
from tests.node.namespaces import ip, needs_root
from xiatb.fastpath import probe

pytestmark = [needs_root, pytest.mark.netns]
APPS = "tests.node.apps"
SIZE = 100 << 20
ENGINE = "ebpf" if probe.available()[0] else "click"
"""what routers and hosts forward by; that it is so is seen in their status"""


def test_100_mb_over_a_bad_link(lab: MiniLab) -> None:
    lab.node("r1", "router", ad="ad1")
    for name in ("h1", "mid", "h2"):
        lab.node(name, "host")
    lab.link("h1", "mid", 9000)
    lab.link("mid", "r1", 9000)
    lab.link("h2", "r1", 9000)
    impair = lab.app("mid", "tests.node.impair", "eth0", "eth1", "1", "0.01", "0.01", "0.02")
    assert told(impair)["ready"]
    for name in ("r1", "h1", "h2"):
        assert lab.start(name, data_plane=ENGINE).ask("status")["engine"] == ENGINE
    lab.joined("h1")
    lab.joined("h2")
    server = lab.app("h2", APPS, "sink", "svc")
    sender = lab.app("h1", APPS, "source", told(server)["dag"], str(SIZE), "3")
    assert told(sender)["connected"]
    sent, got = told(sender), told(server)
    assert got["size"] == SIZE and got["digest"] == sent["digest"]
    impair.send_signal(signal.SIGTERM)
    data, acks = told(impair)
    # About 11,600 frames of data; how many ACKs come back depends on how many frames each of them covers.
    assert min(data["lost"], data["duplicated"], data["reordered"]) > 50, data
    assert min(acks["lost"], acks["duplicated"], acks["reordered"]) > 0, acks


def switch(lab: MiniLab, client: Client, up: str, down: str, address: str) -> None:
    """Moves h1's uplink from one router to another and waits until it has the new address."""
    ip("-n", lab.net["h1"], "link", "set", down, "down")
    ip("-n", lab.net["h1"], "link", "set", up, "up")
    while client.wait_event("locator")["dag"] != address:
        pass


def test_100_mb_while_moving_between_domains(lab: MiniLab) -> None:
    for name, ad in (("r1", "ad1"), ("r2", "ad2")):
        lab.node(name, "router", ad=ad)
    for name in ("h1", "h2"):
        lab.node(name, "host")
    for a, b in (("h1", "r1"), ("h1", "r2"), ("r1", "r2"), ("h2", "r1")):
        lab.link(a, b, 9000)
    ip("-n", lab.net["h1"], "link", "set", "eth1", "down")
    for name in ("r1", "r2", "h1", "h2"):
        assert lab.start(name, data_plane=ENGINE).ask("status")["engine"] == ENGINE
    h1 = lab.joined("h1")
    lab.joined("h2")
    server = lab.app("h2", APPS, "sink", "svc")
    # Slowed down, so that nothing is sent in vain while the host moves.
    sender = lab.app("h1", APPS, "source", told(server)["dag"], str(SIZE), "5", str(10 << 20))
    assert told(sender)["connected"]
    here, there = str(lab.locator("h1", "ad1")), str(lab.locator("h1", "ad2"))
    for up, down, address in [("eth1", "eth0", there), ("eth0", "eth1", here)] * 5:
        h1.wait_traffic(down, 800)  # of the some 12,000 frames of the transfer, however long that takes
        switch(lab, h1, up, down, address)
    sent, got = told(sender), told(server)
    assert got["size"] == SIZE and got["digest"] == sent["digest"]
    # A new join at the same place, as when the kernel tells late that a link is up, counts as a move too.
    assert sent["stats"]["moves"] >= 10 and got["stats"]["migrate_accepted"] >= 10
