"""The IP baseline: what is planned, what is refused, and that kernels reach each other over its links."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from tests.lab.labs import needs_root, running
from xiatb.errors import InvalidFileError
from xiatb.lab import baselinenet, netlink
from xiatb.lab.baseline import Baseline, IpNode
from xiatb.lab.load import load
from xiatb.lab.namespaces import inside
from xiatb.lab.paths import NETNS_ROOT, netns_name
from xiatb.lab.plan import Plan
from xiatb.lab.planner import make_plan
from xiatb.node import rtnetlink
from xiatb.node.iproute import add_address, delete_address, delete_route, set_route

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "topologies" / "baseline.yaml"
MIGRATION = ROOT / "topologies" / "migration.yaml"
LAB = """
name: x
baseline: ip
nodes:
  h1: {kind: host}
  r1: {kind: router, ad: ad1}
  r2: {kind: router, ad: ad2}
  h2: {kind: host}
links:
  - h1 -- r1
  - {endpoints: [r1, r2], delay: 20ms}
  - h2 -- r2
"""


def planned() -> tuple[Plan, Baseline]:
    plan = make_plan(load(EXAMPLE))
    assert plan.baseline is not None
    return plan, plan.baseline


def forward(baseline: Baseline, start: str, target: str, placed: dict[str, str] | None = None) -> list[str]:
    """The nodes that a packet for `target` passes, by longest prefix; `placed` are further /32 routes."""
    owner = {a.partition("/")[0]: node.name for node in baseline.nodes for _, a in node.ports}
    path = [start]
    while len(path) < 10:
        node = baseline.node(path[-1])
        if node.address == target or (placed or {}).get(node.name) == "":
            return path
        assert path[-1] == start or node.gateway, f"{path[-1]} does not forward"
        ways = dict(node.routes) | (
            {f"{target}/32": placed[node.name]} if node.name in (placed or {}) else {}
        )
        fits = [one for one in map(IPv4Network, ways) if IPv4Address(target) in one]
        if not fits:
            return [*path, "unreachable"]
        path.append(owner[ways[str(max(fits, key=lambda network: network.prefixlen))]])
    raise AssertionError(f"loop: {path}")


def test_the_plan_is_the_same_every_time_and_survives_json() -> None:
    plan, baseline = planned()
    assert make_plan(load(EXAMPLE)).dumps() == plan.dumps()
    assert Plan.from_json(json.loads(plan.dumps())) == plan
    used = [node.address for node in baseline.nodes] + [
        address.partition("/")[0] for node in baseline.nodes for _, address in node.ports
    ]
    used += [address for guest in baseline.guests for _, address in guest.addresses]
    assert len(used) == len(set(used)) and "" not in used


def test_every_node_reaches_every_other() -> None:
    _, baseline = planned()
    for one in baseline.nodes:
        for other in baseline.nodes:
            assert forward(baseline, one.name, other.address)[-1] == other.name
    assert forward(baseline, "client", baseline.node("hv2").address) == ["client", "r0", "r1", "r2", "hv2"]


@pytest.mark.parametrize(
    ("at", "path"), [("hv1", ["client", "r0", "r1", "hv1"]), ("hv3", ["client", "r0", "r1", "hv3"])]
)
def test_within_an_ad_the_guest_keeps_its_address(at: str, path: list[str]) -> None:
    _, baseline = planned()
    address = baseline.address("vm1", at)
    assert address == baseline.address("vm1", "hv1")
    assert forward(baseline, "client", address, baseline.placement(at)) == path
    assert forward(baseline, "hv1", address, baseline.placement(at))[-1] == at


def test_in_another_ad_it_has_another_and_the_old_one_leads_nowhere() -> None:
    _, baseline = planned()
    old, new = baseline.address("vm1", "hv1"), baseline.address("vm1", "hv2")
    assert old != new
    assert forward(baseline, "client", new, baseline.placement("hv2"))[-1] == "hv2"
    assert forward(baseline, "client", old)[-1] == "unreachable"


def test_labs_without_the_option_have_none_of_it() -> None:
    plan = make_plan(load(MIGRATION))
    assert plan.baseline is None
    for some in (plan, planned()[0]):
        taps = {p.mac for n in some.kind("hypervisor") for p in n.ports if p.role == "guest"}
        assert len(taps) == 1, "the guest's gateway has the same MAC on every hypervisor"


def test_it_does_not_go_with_links_of_an_ip_core(tmp_path: Path) -> None:
    file = tmp_path / "both.yaml"
    file.write_text("baseline: ip\n" + (ROOT / "topologies" / "ipcore.yaml").read_text())
    with pytest.raises(InvalidFileError) as caught:
        load(file)
    assert "no IP baseline beside links with ip" in "\n".join(map(str, caught.value.problems))


def test_hosts_do_not_forward() -> None:
    node = IpNode("h", "ad1", False, "10.1.0.1", (("eth0", "10.255.0.1/30"),), ())
    assert ("ip_forward", "0") in baselinenet._switches(node)


@needs_root
@pytest.mark.netns
@pytest.mark.alone
def test_kernels_reach_each_other_over_the_same_links(tmp_path: Path) -> None:
    """Datagrams need the link's delay there and back, TCP connects, and XIA works beside them."""
    with running(tmp_path, LAB) as (lab, _state):
        baseline = make_plan(load(lab.file), lab=lab.name).baseline
        assert baseline is not None
        ends = {}
        for node in ("h1", "h2"):
            with inside(NETNS_ROOT / netns_name(lab.name, node)):
                forwards = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()
                ends[node] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                listener = socket.create_server(("", 7), family=socket.AF_INET)
                ends[node].settimeout(5)
                ends[node].bind(("", 7))
                assert forwards == "0"
        there = (baseline.node("h2").address, 7)
        fastest = 1.0
        for _ in range(3):
            sent = time.monotonic()
            ends["h1"].sendto(b"over there", there)
            payload, source = ends["h2"].recvfrom(100)
            assert source == (baseline.node("h1").address, 7), "nodes speak with their AD's address"
            ends["h2"].sendto(payload, source)
            ends["h1"].recvfrom(100)
            fastest = min(fastest, time.monotonic() - sent)
        assert 0.04 <= fastest < 0.2
        with inside(NETNS_ROOT / netns_name(lab.name, "h1")):
            socket.create_connection(there, timeout=5).close()
        for one in (*ends.values(), listener):
            one.close()
        assert lab.cli("ping", "-l", lab.name, "h1", "h2", "-c", "2").returncode == 0, "XIA works beside it"


@needs_root
@pytest.mark.netns
def test_routes_are_replaced_and_removed() -> None:
    """A guest's /32 in a namespace of the test's own."""
    name = f"xt{secrets.token_hex(4)}-ip"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        netlink.add_tap(NETNS_ROOT / name, "a0")
        with inside(NETNS_ROOT / name):
            rtnetlink.set_link("a0", up=True)

        def shown() -> str:
            words = ["ip", "-n", name, "route", "show", "10.9.1.1"]
            return subprocess.run(words, capture_output=True, text=True, check=True).stdout

        with inside(NETNS_ROOT / name):
            add_address("a0", "10.255.0.1/30")
            set_route("10.9.1.1/32", device="a0")
        assert "dev a0 proto static scope link" in shown(), shown()
        with inside(NETNS_ROOT / name):
            set_route("10.9.1.1/32", via="10.255.0.2", source="10.255.0.1")
        assert (
            "via 10.255.0.2 dev a0 proto static src 10.255.0.1" in shown() and shown().count("10.9.1.1") == 1
        )
        with inside(NETNS_ROOT / name):
            delete_route("10.9.1.1/32")
            delete_route("10.9.1.1/32")
            delete_address("a0", "10.255.0.1/30")
            delete_address("a0", "10.255.0.1/30")
        assert shown() == ""
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
