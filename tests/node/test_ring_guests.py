"""A guest's attachment: applications straight on the uplink, invitations, hand-over between hypervisors."""

from __future__ import annotations

import errno
import time

import pytest

from tests.node.minilab import MiniLab, ask_until, told
from tests.node.namespaces import needs_root
from tests.node.test_ring_sockets import APPS

pytestmark = [needs_root, pytest.mark.netns, pytest.mark.alone]


def guest_lab(lab: MiniLab) -> None:
    """g1 on a port of hv1 (ad1) and, switched off, on one of hv2 (ad2); a client behind hv1."""
    for name, ad in (("hv1", "ad1"), ("hv2", "ad2")):
        lab.node(name, "hypervisor", ad=ad)
    lab.link("hv1", "hv2")
    lab.node("c1", "host")
    lab.link("c1", "hv1")
    lab.node("g1", "guest")
    lab.link("g1", "hv1", role_b="guest")
    for name in ("hv1", "hv2", "c1"):
        lab.start(name)
    lab.start("g1", attach="direct")


def test_direct_attachment(lab: MiniLab) -> None:
    guest_lab(lab)
    g1 = lab.joined("g1")
    lab.joined("c1")
    told_locator = g1.ask("locator")
    assert told_locator["attach"] == "direct" and told_locator["ifname"] == "eth0"
    assert told_locator["gateway_mac"] != "ff:ff:ff:ff:ff:ff"
    server = lab.app("g1", APPS, "datagram_echo", "svc")
    dag = told(server)["dag"]
    before = g1.ask("status")["ports"][1]["rx"]
    assert told(lab.app("c1", APPS, "datagrams", dag, "200"))["got"] == 200
    assert told(lab.app("g1", APPS, "datagrams", dag, "20"))["got"] == 20
    # The node process of the guest has seen none of those frames.
    assert g1.ask("status")["ports"][1]["rx"] - before < 40
    assert told(lab.app("g1", APPS, "hold", "svc"))["errno"] == errno.EADDRINUSE
    stream = told(lab.app("g1", APPS, "echo", "svc2"))["dag"]
    for place in ("c1", "g1", "hv1"):
        assert told(lab.app(place, APPS, "ask", stream, "x"))["answers"] == ["x"]
    assert g1.ask("ping", dag=str(lab.locator("c1", "ad1")), timeout=2)["received"] == 1


def test_guest_is_expected_and_detached(lab: MiniLab) -> None:
    guest_lab(lab)
    lab.joined("g1")
    hv1, hv2 = lab.joined("hv1"), lab.joined("hv2")
    hid = str(lab.hid("g1"))
    hv2.ask("handlers", write="lc1/xarpq.delete", value=hid)
    assert hv1.ask("guest_wait", hid=hid, timeout=5)["port_name"] == "eth2"
    assert hv1.error("guest_wait", hid=str(lab.hid("g2")), timeout=0.1) == "ETIMEDOUT"
    assert hv1.error("guest_expect", hid=hid, port="tap9") == "ENODEV"
    hv1.events.clear()
    start = time.monotonic()
    hv1.ask("guest_expect", hid=hid, port="eth2")
    assert hv1.wait_event("guest_joined")["hid"] == hid
    assert time.monotonic() - start < 1
    ask_until(lambda: hid in hv2.ask("handlers", read="lc1/xarpq.table")["value"])  # told by XARP
    hv1.ask("guest_detach", hid=hid)
    assert hv1.wait_event("guest_left")["hid"] == hid
    assert hid not in {host["hid"] for host in hv1.ask("joined")["hosts"]}


def test_guest_moves_to_another_hypervisor_with_its_sessions(lab: MiniLab) -> None:
    """Taps on both hypervisors, no link goes down: the invitation is what makes the guest join anew."""
    for name, ad in (("hv1", "ad1"), ("hv2", "ad2")):
        lab.node(name, "hypervisor", ad=ad)
    for name in ("c1", "mid"):
        lab.node(name, "host")
    lab.node("g1", "guest")
    lab.link("hv1", "hv2")
    lab.link("c1", "hv1")
    lab.link("g1", "mid")
    lab.link("mid", "hv1", role_b="guest")
    lab.link("mid", "hv2", role_b="guest")
    panel = lab.app("mid", "tests.node.patch", "eth0", "eth1", "eth2")
    assert told(panel)["ready"] and panel.stdin is not None
    for name in ("hv1", "hv2", "c1"):
        lab.start(name)
    lab.start("g1", attach="direct")
    g1 = lab.joined("g1")
    lab.joined("c1")
    hypervisors = {"hv1": lab.joined("hv1"), "hv2": lab.joined("hv2")}
    hid = str(lab.hid("g1"))
    echo = lab.app("g1", APPS, "datagram_echo", "dgram")
    probe = lab.app("c1", APPS, "probe", told(echo)["dag"], "4.5")
    assert told(probe)["ready"]
    sink = told(lab.app("c1", APPS, "sink", "svc"))["dag"]
    sender = lab.app("g1", APPS, "source", sink, str(20 << 20), "9", str(4 << 20))
    assert told(sender)["connected"]
    for number, (old, new, port, ad) in enumerate(
        [("hv1", "hv2", "eth1", "ad2"), ("hv2", "hv1", "eth2", "ad1")] * 2, 1
    ):
        hypervisors[old].wait_traffic("eth2" if old == "hv1" else "eth1", 500)
        panel.stdin.write(b"%d\n" % (number % 2))
        panel.stdin.flush()
        hypervisors[new].ask("guest_expect", hid=hid, port=port)
        assert hypervisors[new].ask("guest_wait", hid=hid, timeout=5)["port_name"] == port
        hypervisors[old].ask("guest_detach", hid=hid)
        while g1.ask("locator")["dag"] != str(lab.locator("g1", ad)):
            g1.wait_event("locator")
    sent, probed = told(sender), told(probe)
    assert sent["size"] == 20 << 20 and sent["stats"]["moves"] >= 4
    assert probed["longest_gap_ms"] < 1000 and probed["lost"] < 1500, probed
