"""XIP across an IPv4 network: two ADs joined by a kernel router that knows IP only."""

from __future__ import annotations

import random
import socket
import subprocess
from pathlib import Path

import pytest

from tests.node.minilab import MiniLab, told
from tests.node.namespaces import ip, needs_root
from xiatb.node.config import PortConfig
from xiatb.wire import ipencap
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import behind
from xiatb.wire.xid import XID

pytestmark = [needs_root, pytest.mark.netns]
APPS = "tests.node.apps"
XAPPS = "tests.node.xapps"


def ip_core(lab: MiniLab, data_plane: str = "auto") -> None:
    """h3 - r3 - r1 - core - r2 - h2, h1 at r1; the links of the core are IPv4's, MTU 1500 everywhere."""
    lab.node("r1", "router", ad="ad1")
    lab.node("r2", "router", ad="ad2")
    lab.net.add("core")
    lab.node("r3", "router", ad="ad1")
    for host, router in (("h1", "r1"), ("h2", "r2"), ("h3", "r3")):
        lab.node(host, "host")
        lab.link(host, router)
    for number, router in enumerate(("r1", "r2")):
        lab.net.link(router, "eth1", "core", f"eth{number}")
        ip("-n", lab.net["core"], "addr", "add", f"192.0.{number}.254/24", "dev", f"eth{number}")
        lab.ports[router].append(
            PortConfig("eth1", role="ip", ip=f"192.0.{number}.1/24", ip_gateway=f"192.0.{number}.254")
        )
    with lab.net.entered("core"):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    lab.link("r3", "r1")
    for number, router in enumerate(("r1", "r2")):
        lab.start(router, gateway_ip=f"192.0.{number}.1", data_plane=data_plane)
    lab.start("r3", gateway_ip="192.0.0.1", gateway_hid=str(lab.hid("r1")), data_plane=data_plane)
    for host in ("h1", "h2", "h3"):
        lab.start(host, data_plane=data_plane)


def address(lab: MiniLab, host: str, number: int) -> DAG:
    return behind(XID.parse(f"IP:192.0.{number}.1"), lab.locator(host, f"ad{number + 1}"))


@pytest.mark.parametrize("data_plane", ["auto", "click"])
def test_ping_and_stream_across(lab: MiniLab, data_plane: str) -> None:
    ip_core(lab, data_plane)
    h1, h2 = lab.joined("h1"), lab.joined("h2")
    there = str(address(lab, "h2", 1))
    assert h2.ask("locator")["dag"] == there
    assert h1.ask("ping", dag=there, count=5, interval=0.01, timeout=2)["received"] == 5, lab.log("r1")
    assert h1.ask("ping", dag=str(lab.locator("h2", "ad2")), count=1, timeout=2)["received"] == 0
    server = lab.app("h2", APPS, "sink", "svc")
    dag = told(server)["dag"]
    source = lab.app("h1", APPS, "source", dag, "500000", "1")
    assert told(source)["connected"]
    sent, got = told(source), told(server)
    assert sent["digest"] == got["digest"] and got["size"] == 500_000
    assert sent["stats"]["mss"] == 1500 - ipencap.OVERHEAD - (8 + 8 * 28) - 28
    h3 = lab.joined("h3")
    assert h3.ask("locator")["dag"] == str(address(lab, "h3", 0))
    assert h3.ask("ping", dag=there, count=3, interval=0.01, timeout=2)["received"] == 3, lab.log("r3")
    assert told(lab.app("h3", XAPPS, "lookup"))["host"][2] == "IP:192.0.0.1"
    ports = {port["name"]: port for port in lab.client("r1").ask("status")["ports"]}
    assert ports["eth1"]["engine"] == "click"


def test_hostile_datagrams_are_dropped(lab: MiniLab) -> None:
    ip_core(lab)
    h1 = lab.joined("h1")
    lab.joined("h2")
    rng = random.Random(1)
    good = h1.ask("ping", dag=str(address(lab, "h2", 1)), count=1, timeout=2)
    assert good["received"] == 1
    with lab.net.entered("core"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("192.0.0.254", ipencap.PORT))
        for _ in range(300):
            head = bytes([rng.choice((1, 1, 1, 0)), rng.randrange(4), 0, rng.randrange(64), 250])
            nodes = bytes([rng.randrange(1, 4), rng.randrange(1, 4), rng.choice((0x7E, 0, 1))])
            sender.sendto(head + nodes + rng.randbytes(rng.randrange(300)), ("192.0.0.1", ipencap.PORT))
            sender.sendto(rng.randbytes(20), ("192.0.0.1", rng.choice((ipencap.PORT, 9))))
    before = "0"
    while int(before) < 500:
        before = lab.client("r1").ask("handlers", read="lc2/in.count")["value"]
    assert h1.ask("ping", dag=str(address(lab, "h2", 1)), count=3, interval=0.01, timeout=2)["received"] == 3
    assert lab.nodes["r1"].poll() is None and "Traceback" not in lab.log("r1")


def test_a_silent_gateway_is_reported(lab: MiniLab) -> None:
    ip_core(lab)
    h1 = lab.joined("h1")
    ip("-n", lab.net["core"], "link", "set", "eth0", "arp", "off")
    subprocess.run(
        ["ip", "-n", lab.net["core"], "addr", "flush", "dev", "eth0"], check=True, timeout=10
    )
    assert h1.ask("ping", dag=str(address(lab, "h2", 1)), count=1, timeout=5)["received"] == 0
    assert any(event["event"] == "unreachable" for event in h1.events)
