"""Plans: pure, the same every time, and complete."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from xiatb.experiments.bench.scale import grid
from xiatb.identity.keys import KeyPair
from xiatb.lab.builder import pace
from xiatb.lab.keys import key_owners, write_keys
from xiatb.lab.load import Topology, load, loads
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Plan
from xiatb.lab.planner import make_plan
from xiatb.node import membership
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID, XidType

TOPOLOGIES = Path(__file__).parents[2] / "topologies"


def plan_of(name: str, **overrides: int) -> Plan:
    return make_plan(load(TOPOLOGIES / f"{name}.yaml"), **overrides)  # type: ignore[arg-type]


def test_a_plan_is_the_same_every_time_and_survives_json() -> None:
    for file in TOPOLOGIES.glob("*.yaml"):
        first, second = plan_of(file.stem), plan_of(file.stem)
        assert first.dumps() == second.dumps()
        assert Plan.from_json(json.loads(first.dumps())) == first


def test_another_seed_gives_other_keys_and_nothing_else() -> None:
    one, two = plan_of("migration"), plan_of("migration", seed=2)
    assert {node.hid for node in one.nodes}.isdisjoint(node.hid for node in two.nodes)
    assert [node.name for node in one.nodes] == [node.name for node in two.nodes]
    assert one.links == two.links


def test_macs_and_xids_are_unique() -> None:
    plan = plan_of("abilene")
    macs = [port.mac for node in plan.nodes for port in node.ports]
    assert len(set(macs)) == len(macs)
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs)
    assert len({node.hid for node in plan.nodes}) == len(plan.nodes)


def test_gateways_hold_valid_certificates_and_hosts_none() -> None:
    plan = plan_of("migration")
    for node in plan.nodes:
        if node.kind == "host":
            assert (node.ad, node.ad_cert, node.ad_public) == (None, None, None)
            continue
        assert node.ad and node.ad_public and node.ad_cert
        public, cert = bytes.fromhex(node.ad_public), bytes.fromhex(node.ad_cert)
        assert membership.verify(XID.parse(node.ad), public, cert, XID.parse(node.hid))


def test_every_hypervisor_has_every_guests_tap() -> None:
    plan = plan_of("migration")
    for node in plan.kind("hypervisor"):
        assert [port.name for port in node.ports if port.role == "guest"] == ["tap0"]
        assert node.ports[-1].guest == "vm1"


def test_ports_are_given_out_around_those_named() -> None:
    text = """
name: t
nodes: {r1: {kind: router, ad: a}, r2: {kind: router, ad: a}, r3: {kind: router, ad: b}}
links:
  - r1 -- r2
  - r1:0 -- r3:eth5
  - r2 -- r3
"""
    plan = make_plan(Topology(loads(text), Path("t.yaml")))
    ends = [(f"{link.a.node}:{link.a.port}", f"{link.b.node}:{link.b.port}") for link in plan.links]
    assert ends == [("r1:eth1", "r2:eth0"), ("r1:eth0", "r3:eth5"), ("r2:eth1", "r3:eth0")]
    assert [port.name for port in plan.node("r3").ports] == ["eth0", "eth5"]


def test_what_is_written_nearest_counts() -> None:
    text = """
name: t
defaults: {link: {delay: 1ms, loss: 1%, mtu: 9000}}
nodes: {r1: {kind: router, ad: a}, r2: {kind: router, ad: a}}
links:
  - {endpoints: [r1, r2], delay: 2ms, backward: {delay: 3ms, rate: 1mbit}}
"""
    link = make_plan(Topology(loads(text), Path("t.yaml"))).links[0]
    assert (link.mtu, link.forward.delay, link.backward.delay) == (9000, 2_000_000, 3_000_000)
    assert (link.forward.loss, link.backward.loss) == (10_000, 10_000)
    assert (link.forward.rate, link.backward.rate) == (None, 1_000_000)


def test_names_lead_to_nodes_guests_and_services() -> None:
    plan = plan_of("migration")
    assert DAG.parse(plan.names["r2.migration.xia"]).intent == XID.parse(plan.node("r2").hid)
    echo = DAG.parse(plan.names["echo.vm1.migration.xia"])
    assert echo.intent.type == XidType.SID
    assert str(echo.intent_hid) == plan.guest("vm1").hid
    assert str(echo.intent_ad) == plan.node("hv1").ad
    assert DAG.parse(plan.names["client.migration.xia"]).intent_ad == XID.parse(str(plan.node("r1").ad))


def test_keys_are_private_and_match_the_plan(tmp_path: Path) -> None:
    plan = plan_of("migration")
    paths = LabPaths(plan.lab, run_root=tmp_path)
    write_keys(plan, paths)
    assert stat.S_IMODE(paths.keys.stat().st_mode) == 0o700
    for owner in key_owners(plan):
        assert stat.S_IMODE(paths.key(owner).stat().st_mode) == 0o600
    assert str(KeyPair.from_pem_file(paths.key("hv1")).xid(XidType.HID)) == plan.node("hv1").hid
    sid = KeyPair.from_pem_file(paths.key("migrated-hv1")).xid(XidType.SID)
    assert str(sid) == plan.node("hv1").migration_sid
    echo = KeyPair.from_pem_file(paths.key("guest-vm1-echo")).xid(XidType.SID)
    assert str(echo) == plan.guest("vm1").services[0].sid


def test_the_data_plane_is_the_nodes_the_files_or_the_one_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(
        "name: lab\ndata_plane: ebpf\nnodes:\n  r1: {kind: router, ad: ad1}\n"
        "  r2: {kind: router, ad: ad1, data_plane: click}\nlinks:\n  - r1 -- r2\n"
    )

    def planes(data_plane: str | None = None) -> list[str]:
        plan = make_plan(load(path), data_plane=data_plane)
        assert Plan.from_json(plan.to_json()) == plan
        return [plan.data_plane, *(node.data_plane for node in plan.nodes)]

    assert planes() == ["ebpf", "ebpf", "click"]
    assert planes("auto") == ["auto", "auto", "auto"]
    path.write_text(path.read_text().replace("data_plane: ebpf\n", ""))
    assert planes() == ["auto", "auto", "click"]


def plan_of_grid(side: int) -> Plan:
    return make_plan(Topology(loads(grid(side)), Path("grid.yaml")))


def test_only_large_labs_slow_their_timers() -> None:
    assert [pace(plan_of(name)) for name in ("minimal", "migration", "abilene")] == [1, 1, 1]
    assert [pace(plan_of_grid(side)) for side in (5, 6, 10)] == [1, 2, 4]


def test_a_lab_of_two_hundred_nodes_is_planned() -> None:
    """It is brought up by `scripts/bench scale` only: here it would take half a minute of both cores."""
    plan = plan_of_grid(10)
    assert (len(plan.nodes), len(plan.links), len(plan.ads)) == (200, 280, 10)
