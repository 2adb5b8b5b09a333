"""Labs with an IPv4 network between: what is planned, what is refused, and the shipped example at work."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.lab.labs import leftovers, needs_root, running
from xiatb.errors import InvalidFileError
from xiatb.lab.ipnetwork import IpLink, IpNetwork
from xiatb.lab.load import load
from xiatb.lab.plan import Plan
from xiatb.lab.planner import make_plan
from xiatb.wire.dag import DAG

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "topologies" / "ipcore.yaml"


def test_plan_of_the_example() -> None:
    plan = make_plan(load(EXAMPLE))
    assert Plan.from_json(json.loads(plan.dumps())) == plan
    assert [node.name for node in plan.xia_nodes] == ["h1", "h2", "r1", "r2"]
    core = plan.node("core1")
    assert core.ip_routes == (("198.51.100.0/24", "10.0.0.2"),) and not core.hid
    r1 = plan.node("r1")
    port = next(port for port in r1.ports if port.role == "ip")
    assert (port.ip, port.ip_gateway, r1.gateway_ip) == ("192.0.2.1/30", "192.0.2.2", "192.0.2.1")
    h2 = DAG.parse(plan.names["h2.ipcore.xia"])
    assert "IP:" in str(h2) and str(h2.intent) == plan.node("h2").hid
    assert "core1.ipcore.xia" not in plan.names
    assert DAG.parse(plan.names["ns.ipcore.xia"]).intent_hid == DAG.parse(r1.dag).intent_hid


def test_routes_and_gateways() -> None:
    links = [
        IpLink(0, ("r1", "a"), ("10.1.0.1/24", "10.1.0.2/24")),
        IpLink(1, ("a", "b"), ("10.2.0.1/24", "10.2.0.2/24")),
        IpLink(2, ("b", "c"), ("10.3.0.1/24", "10.3.0.2/24")),
        IpLink(3, ("c", "r2"), ("10.4.0.1/24", "10.4.0.2/24")),
        IpLink(4, ("r2", "r3"), ("10.5.0.1/24", "10.5.0.2/24")),
    ]
    kinds = dict.fromkeys("abc", "ip_router") | dict.fromkeys(("r1", "r2", "r3"), "router")
    network = IpNetwork(links, kinds)
    assert network.routes("a") == (("10.3.0.0/24", "10.2.0.2"), ("10.4.0.0/24", "10.2.0.2"))
    assert network.routes("c") == (("10.1.0.0/24", "10.3.0.1"), ("10.2.0.0/24", "10.3.0.1"))
    assert network.gateway(["x", "r3", "r1"]) == ("r3", "10.5.0.2") and network.gateway(["a"]) == ("", "")
    assert network.next_router(0, "r1") == "10.1.0.2" and network.next_router(4, "r3") == ""
    assert network.address(9, "r1") == network.next_router(9, "r1") == ""


def test_every_mistake_is_told(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        """
name: bad
name_server: h1
nodes:
  h1: {kind: host}
  h2: {kind: host}
  r1: {kind: router, ad: a1}
  core: {kind: ip_router, ad: a1}
links:
  - h1 -- r1
  - r1 -- core
  - {endpoints: [r1, core], ip: [10.0.0.1/24, 10.0.1.2/24]}
  - {endpoints: [r1, core], ip: [10.0.0.1/24, ten]}
  - {endpoints: [h2, core], ip: [10.0.0.0/24, 10.0.2.2]}
"""
    )
    with pytest.raises(InvalidFileError) as caught:
        load(file)
    told = "\n".join(map(str, caught.value.problems))
    for words in (
        "needs addresses", "different networks", "used twice", "'ten' is not like", "no host's address",
        "'10.0.2.2' is not like", "'h2' is a host", "has an IP link already", "an ip_router has no ad",
        "no router named 'h1'", "is linked to no router",
    ):  # fmt: skip
        assert words in told, told


@pytest.mark.netns
@needs_root
def test_the_example_comes_up(tmp_path: Path) -> None:
    with running(tmp_path, EXAMPLE.read_text()) as (lab, _):
        pinged = lab.cli("ping", "-l", lab.name, "h1", "h2", "-c", "3", "-i", "50ms", "-o", "json")
        assert json.loads(pinged.stdout)["received"] == 3
        status = json.loads(lab.cli("status", lab.name, "-o", "json").stdout)
        nodes = {node["name"]: node for node in status["nodes"]}
        assert status["status"] == "up"
        assert nodes["core1"]["state"] == "ip" and nodes["core1"]["alive"]
        for verb in (["inspect", "-l", lab.name, "core1"], ["ping", "-l", lab.name, "h1", "core1"]):
            refused = lab.cli(*verb)
            assert refused.returncode == 2 and "knows IP alone" in refused.stderr
        ways = lab.cli("exec", "-l", lab.name, "core1", "--", "ip", "-4", "route")
        assert "198.51.100.0/24 via 10.0.0.2" in ways.stdout
        deadline, origin, hosts = time.monotonic() + 30, {}, set()
        while origin.get("h2") != "registered" or len(hosts) < 2:
            assert time.monotonic() < deadline, (origin, hosts)
            known = json.loads(lab.cli("names", "-l", lab.name, "-o", "json").stdout)
            assert (known["name_server"], known["rendezvous"]) == ("r1", "r1")
            origin = {row["name"].partition(".")[0]: row["origin"] for row in known["names"]}
            hosts = {row["hid"] for row in known["hosts"]}
        assert origin["r1"] == "static" and hosts == {nodes[name]["hid"] for name in ("h1", "h2")}
        assert f"h2.{lab.name}.xia" in lab.cli("names", "-l", lab.name).stdout
    assert leftovers(lab.name, "none") == []
