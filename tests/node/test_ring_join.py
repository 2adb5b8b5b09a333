"""Node processes in namespaces: joining, echo, faults of links and processes."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from tests.node.minilab import MiniLab
from tests.node.namespaces import ip, needs_root

pytestmark = [needs_root, pytest.mark.netns]


def host_router_host(lab: MiniLab, mtu: int = 1500) -> None:
    lab.node("r1", "router", ad="ad1")
    for name in ("h1", "h2"):
        lab.node(name, "host")
        lab.link(name, "r1", mtu)
    for name in ("r1", "h1", "h2"):
        lab.start(name)


def test_join_and_ping(lab: MiniLab) -> None:
    host_router_host(lab)
    h1, h2 = lab.joined("h1"), lab.joined("h2")
    told = h1.ask("locator")
    assert told["dag"] == str(lab.locator("h1", "ad1")) and told["router_hid"] == str(lab.hid("r1"))
    assert told["mtu"] == 1500 and told["ifname"] == "xia0"
    for target in (
        str(lab.locator("h2", "ad1")),
        str(lab.locator("r1", "ad1")),
        str(lab.locator("h1", "ad1")),
    ):
        summary = h1.ask("ping", dag=target, count=3, interval=0.01, timeout=2)
        assert summary["received"] == 3, (target, lab.log("h1"))
        assert [event["seq"] for event in h1.events if event["event"] == "pong"] == [0, 1, 2]
        h1.events.clear()
    assert {host["hid"] for host in lab.client("r1").ask("joined")["hosts"]} == {
        str(lab.hid("h1")), str(lab.hid("h2")),
    }  # fmt: skip
    nowhere = lab.locator("h9", "ad1")
    assert h2.ask("ping", dag=str(nowhere), count=1, timeout=2)["received"] == 0
    assert h2.events[0]["event"] == "unreachable" and h2.events[0]["from"] == str(lab.locator("r1", "ad1"))
    assert h2.ask("ping", dag=str(lab.locator("h1", "ad9")), count=1, timeout=2)["received"] == 0
    status = h1.ask("status")
    assert status["joined"] and status["ports"][1]["up"]
    assert {row["xid"] for row in h1.ask("routes")["HID"]} >= {str(lab.hid("h1")), "-"}


@pytest.mark.alone
def test_link_down_and_up_joins_again(lab: MiniLab) -> None:
    host_router_host(lab)
    h1 = lab.joined("h1")
    ip("-n", lab.net["h1"], "link", "set", "eth0", "down")
    h1.wait_event("locator_lost")
    assert h1.ask("locator")["dag"] is None
    start = time.monotonic()
    ip("-n", lab.net["h1"], "link", "set", "eth0", "up")
    h1.wait_event("locator")
    assert time.monotonic() - start < 3
    lab.joined("h2")
    assert h1.ask("ping", dag=str(lab.locator("h2", "ad1")), count=1, timeout=2)["received"] == 1


def test_killed_node_frees_its_socket(lab: MiniLab) -> None:
    host_router_host(lab)
    h1 = lab.joined("h1")
    assert lab.stop("h1", signal.SIGKILL) == -signal.SIGKILL
    with pytest.raises(ConnectionError):
        h1.ask("status")
    lab.start("h1")
    assert lab.joined("h1").ask("ping", dag=str(lab.locator("r1", "ad1")), timeout=2)["received"] == 1
    assert lab.stop("h1") == 0
    assert not (lab.state("h1") / "control.sock").exists()


@pytest.mark.alone
def test_idle_node_uses_no_cpu(lab: MiniLab) -> None:
    host_router_host(lab)
    lab.joined("h1")
    ticks = os.sysconf("SC_CLK_TCK")

    def used(name: str) -> float:
        with open(f"/proc/{lab.nodes[name].pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / ticks

    before = {name: used(name) for name in ("h1", "r1")}
    time.sleep(3)  # to do nothing is what is asked of them
    for name, start in before.items():
        assert used(name) - start < 0.15, name


def test_second_process_on_one_state_dir_is_refused(lab: MiniLab) -> None:
    lab.node("r1", "router", ad="ad1")
    lab.start("r1")
    first = lab.nodes.pop("r1")
    try:
        with pytest.raises(AssertionError, match="already listens"):
            lab.start("r1")
        lab.nodes["r1"].wait(5)
    finally:
        lab.nodes["r1"] = first


def two_domains(lab: MiniLab, mtu: int = 1500) -> None:
    """h1 - r1 (ad1) - r3 (ad1) - r2 (ad2) - h2"""
    for name, ad in (("r1", "ad1"), ("r3", "ad1"), ("r2", "ad2")):
        lab.node(name, "router", ad=ad)
    for name in ("h1", "h2"):
        lab.node(name, "host")
    for a, b in (("h1", "r1"), ("h2", "r2"), ("r1", "r3"), ("r3", "r2")):
        lab.link(a, b, mtu)
    for name in ("r1", "r3", "r2", "h1", "h2"):
        lab.start(name)


def test_ping_between_domains(lab: MiniLab) -> None:
    two_domains(lab)
    h1 = lab.joined("h1")
    lab.joined("h2")
    target = str(lab.locator("h2", "ad2"))
    deadline = time.monotonic() + 15
    while h1.ask("ping", dag=target, timeout=1)["received"] == 0:
        assert time.monotonic() < deadline, lab.log("r1")
    assert h1.ask("ping", dag=target, count=5, interval=0.01, timeout=2)["received"] == 5
    # A hop limit that ends on the way is told by the router where it ends.
    neighbours = lab.client("r3").ask("neighbours")["neighbours"]
    assert {found["hid"] for found in neighbours} == {str(lab.hid("r1")), str(lab.hid("r2"))}
    ip("-n", lab.net["r3"], "link", "set", "eth1", "down")
    h1.events.clear()
    while (event := next_event(lab, target))["event"] == "pong":
        assert time.monotonic() < deadline
    assert event["event"] in ("unreachable", "ping_lost")


def next_event(lab: MiniLab, target: str) -> dict[str, object]:
    client = lab.client("h1")
    client.ask("ping", dag=target, timeout=1)
    return client.events[0]


def test_click_control_socket(lab: MiniLab) -> None:
    lab.node("r1", "router", ad="ad1")
    lab.start("r1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(str(lab.state("r1") / "click.sock"))
        stream = client.makefile("rwb")
        assert stream.readline() == b"Click::ControlSocket/1.3\r\n"
        stream.write(b"READ core/rt_HID.count\r\nquit\r\n")
        stream.flush()
        text = stream.read()
        assert text.startswith(b"200 ") and b"DATA 1\r\n1" in text
