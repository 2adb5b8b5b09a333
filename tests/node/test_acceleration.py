"""Graphs held against the usual one, and tables followed by a mirror: pure."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.click.support import Node, ad, hid, mac, sid
from xiatb.click.compose import PortSpec, compose
from xiatb.click.graph import flatten_text
from xiatb.fastpath.mirror import Mirror
from xiatb.fastpath.routes import Route
from xiatb.node.acceleration import differences
from xiatb.wire.walk import SELF, Entry
from xiatb.wire.xid import XidType

PORTS = [PortSpec("xia0r", "internal", 9000), PortSpec("eth0"), PortSpec("eth1")]


class Tables:
    """What an engine would hold."""

    def __init__(self) -> None:
        self.routes: dict[bytes, Route] = {}
        self.defaults: dict[int, Route | None] = {}

    def set_route(self, key: bytes, route: Route) -> None:
        self.routes[key] = route

    def delete_route(self, key: bytes) -> None:
        self.routes.pop(key, None)

    def set_default(self, kind: int, route: Route | None) -> None:
        self.defaults[kind] = route


@pytest.mark.parametrize(
    "old, new, node, ports",
    [
        ("", "", False, set()),
        ("out[1] -> lc1", "out[1] -> Counter -> lc1", False, {1}),
        ("lc2 -> core", "lc2 -> RandomSample(0.5) -> core", False, {2}),
        ("lc2[1] -> [1] core", "lc2[1] -> Discard", False, {2}),
        ("out[1] -> lc1 -> core", "out[1] -> a :: Null -> lc1 -> b :: Null -> core", False, {1}),
        ("core -> out", "core -> XIAXIDTypeCounter(dst AD, -) -> out", True, set()),
        ("core :: XIARouterCore", "core :: XIAHostCore(0)", True, set()),
        ("lc1 :: XIALineCard(eth0, 1, 1500)", "lc1 :: XIALineCard(eth0, 1, 1400)", False, set()),
        ("lc1 :: XIALineCard(eth0, 1, 1500)", "lc1 :: XIALineCard(eth0, 3, 1500)", False, {1}),
        ("out :: XIAPaintSwitch;", "out :: XIAPaintSwitch; Idle -> Discard;", False, set()),
        ("out :: XIAPaintSwitch;", "out :: XIAPaintSwitch; InfiniteSource(LIMIT 1) -> core;", False, set()),
    ],
)
def test_what_differs_is_left_to_click(old: str, new: str, node: bool, ports: set[int]) -> None:
    text = compose("router", PORTS)
    assert old in text
    usual, _ = flatten_text(text, "usual")
    library = "require(library host.click);\n" if "XIAHostCore" in new else ""
    graph, problems = flatten_text(library + text.replace(old, new, 1), "own")
    assert not problems, problems.lines()
    found = differences(graph, usual)
    assert (bool(found.node), set(found.ports)) == (node, ports), found


def test_reasons_name_the_element() -> None:
    text = compose("router", PORTS)
    usual, _ = flatten_text(text, "usual")
    graph, _ = flatten_text(text.replace("out[1] -> lc1", "out[1] -> seen :: Counter -> lc1"), "own")
    assert differences(graph, usual).ports == {1: "out[1] leads to seen (Counter)"}


def test_a_file_from_before_the_fast_path_is_as_good() -> None:
    usual, _ = flatten_text(compose("router", PORTS), "usual")
    text = usual.to_text()
    for card in range(3):
        name = f"lc{card}/fast"
        assert f"{name} :: XIAFastPath;" in text
        text = text.replace(f"{name} :: XIAFastPath;\n", "").replace(f"-> {name};\n{name} ->", "->")
        text = text.replace(f"{name} -> lc{card}/type;\n", "").replace(f"-> {name};", f"-> lc{card}/type;")
    graph, problems = flatten_text(text, "old")
    assert not problems, problems.lines()
    assert not any("fast" in name for name in graph.elements)
    assert differences(graph, usual) == differences(usual, graph) == ("", {})


def test_every_way_to_change_a_table_is_told(tmp_path: Path) -> None:
    """Random handler writes and calls: what the watcher was told is what the table holds."""
    rng = random.Random(3)
    node = Node()
    table = node.table("AD")
    told: dict[bytes | int, Entry] = {}
    switched: list[bool] = []

    def changed(target: bytes | int, entry: Entry | None) -> None:
        if entry is None:
            told.pop(target, None)
        else:
            told[target] = entry

    table.watch(changed, lambda: switched.append(table.enabled))
    routes = tmp_path / "routes"
    routes.write_text(f"{ad(30)},2,{hid(5)},0\n{ad(31)} DISCARD # no\n- 1\n")
    write = node.router.write
    for _ in range(300):
        one = ad(rng.randrange(10, 20))
        action = rng.randrange(9)
        if action == 0:
            table.set(one.key, Entry(rng.randrange(3)))
        elif action == 1:
            table.remove(one.key)
        elif action == 2:
            write("core/rt_AD.set", f"{one} {rng.randrange(3)}")
        elif action == 3 and one.key in table.table:
            write("core/rt_AD.remove", str(one))
        elif action == 4:
            write("core/rt_AD.set4", f"{one},1,{hid(4)},0")
        elif action == 5:
            write("core/rt_AD.load", str(routes))
        elif action == 6:
            write("core/rt_AD.generate", "AD,2,1")
        elif action == 7:
            table.default = rng.choice([None, Entry(2, hid(5).key)])
        else:
            write("core/rt_AD.remove", "-")
        expected: dict[bytes | int, Entry] = dict(table.table)
        if table.default is not None:
            expected[int(XidType.AD)] = table.default
        assert told == expected
    write("core/rt_AD.enabled", "0")
    assert switched == [False]


def test_neighbours_and_mtu_are_told() -> None:
    node = Node()
    querier = node["lc2/xarpq"]
    told: dict[bytes, bytes | None] = {}
    querier.insert(hid(4).key, mac(4))
    querier.watch(told.__setitem__)
    assert told == {hid(4).key: mac(4)}
    querier.insert(hid(5).key, mac(5))
    node.router.write("lc2/xarpq.insert", f"{hid(6)} {mac(6).hex(':')}")
    querier.forget(hid(5).key)
    assert told == {hid(4).key: mac(4), hid(5).key: None, hid(6).key: mac(6)}
    calls: list[int] = []
    limit = node["lc2/mtu"]
    limit.changed = lambda: calls.append(limit.mtu)
    node.router.write("lc2/mtu.mtu", "1400")
    assert calls == [1400]


def test_a_mirror_follows_a_table() -> None:
    node, tables = Node(), Tables()
    mirror = Mirror(tables)

    def changed(target: bytes | int, entry: Entry | None) -> None:
        if isinstance(target, int):
            mirror.set_default(target, entry)
        elif entry is None:
            mirror.remove(target)
        else:
            mirror.set(target, entry)

    for kind in ("AD", "HID", "SID"):
        node.table(kind).watch(changed, lambda: None)
    for kind in ("AD", "HID", "SID"):
        assert set(node.table(kind).table) <= set(tables.routes)
    node.table("SID").set(sid(9).key, Entry(SELF, deliver=0))
    assert sid(9).key in tables.routes
    node.table("SID").remove(sid(9).key)
    assert sid(9).key not in tables.routes


def test_counters_are_brought_up_to_date_before_handlers() -> None:
    node = Node()
    device = node["lc1/in"]

    def refresh() -> None:
        device.count += 1

    node.router.refresh = refresh
    assert node.router.read("lc1/in.count") == "1"
    node.router.write("lc1/in.reset")
    assert node.router.read("lc1/in.count") == "1", "what was done before the reset is gone"
