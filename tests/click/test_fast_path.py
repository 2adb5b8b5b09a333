"""The graph with its fast path against the same graph without: same frames, same answers, same handlers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from tests.click.support import Node, ad, datagram, frame, hid, mac, sid
from xiatb.click.compose import PortSpec, compose
from xiatb.click.context import ManualContext, ManualDevice
from xiatb.click.graph import Router
from xiatb.click.packet import Packet
from xiatb.wire import xip
from xiatb.wire.dag import DAG
from xiatb.wire.walk import DISCARD, FALLBACK, SELF, Entry
from xiatb.wire.xid import XID, XidType

PORTS = [PortSpec("xia0r", "internal", 9000), *(PortSpec(f"eth{i}", "link", 300) for i in range(3))]
KEYS = [ad(1), ad(2), ad(3), hid(1), hid(4), hid(5), hid(6), sid(1), sid(2), XID(XidType.CID, bytes(20))]
OWN = {"class", "name", "config", "ports", "handlers", "rate"}
"""handlers of every element, and one that depends on when it was read before"""


class World:
    """A node of a role with three neighbours; `fast` False switches every fast path off."""

    def __init__(self, role: str, *, fast: bool, text: str = "") -> None:
        self.router = Router.from_text(text or compose(role, PORTS), "node.click")
        self.ctx = ManualContext(hid=hid(1).key, dag=DAG.host(ad(1), hid(1)))
        self.devices = [self.ctx.add_device(port.name, mac(i + 1), port.mtu) for i, port in enumerate(PORTS)]
        self.router.initialize(self.ctx)
        if not fast:
            for name in self.fast_paths():
                self.router.write(f"{name}.enabled", "0")

    def fast_paths(self) -> list[str]:
        return [name for name, one in self.router.elements.items() if one.class_name == "XIAFastPath"]

    def element(self, name: str) -> Any:
        return self.router.elements[name]

    def hits(self) -> int:
        return sum(int(self.router.read(f"{name}.hits")) for name in self.fast_paths())

    def sent(self) -> list[list[bytes]]:
        frames = [list(device.sent) for device in self.devices]
        for device in self.devices:
            device.sent.clear()
        return frames

    def handed_up(self) -> list[tuple[str, bytes]]:
        taken = [(channel, bytes(packet.data)) for channel, packet in self.ctx.host]
        self.ctx.host.clear()
        return taken

    def counters(self) -> dict[str, str]:
        found = {}
        for name, element in self.router.elements.items():
            if element.class_name != "XIAFastPath":
                for handler in element.READ.keys() - OWN:
                    found[f"{name}.{handler}"] = self.router.read(f"{name}.{handler}")
        return found


def a_route(rng: random.Random) -> Entry:
    port = rng.choice([0, 1, 2, 3, 1, 2, 3, 1, 2, 3, 9, SELF, SELF, SELF, DISCARD, FALLBACK])
    nexthop = rng.choice([hid(4).key, hid(5).key, hid(6).key, hid(6).key, None])
    return Entry(port, nexthop, 0, rng.choice([-1, 0, 2, 3]))


def equip(rng: random.Random, world: World) -> None:
    """Routes to most XIDs, addresses of all neighbours."""
    for xid in KEYS:
        world.element(f"core/rt_{XidType(xid.type).name}").set(xid.key, a_route(rng))
    for card in range(1, 4):
        for number in range(4, 7):
            world.element(f"lc{card}/xarpq").insert(hid(number).key, mac(16 * card + number))


def change(rng: random.Random, world: World) -> None:
    """Something that changes what the graph does; the same for worlds with equal generators."""
    kind = rng.randrange(11)
    tables = [name for name in world.router.elements if name.startswith("core/rt_")]
    xid = rng.choice(KEYS)
    table = world.element(f"core/rt_{XidType(xid.type).name}")
    card = rng.randrange(1, 4)
    querier = world.element(f"lc{card}/xarpq")
    if kind < 3:
        table.set(xid.key, a_route(rng))
    elif kind == 3:
        table.remove(xid.key)
    elif kind == 4:
        table.default = rng.choice([None, a_route(rng)])
    elif kind == 5:
        world.router.write(f"{rng.choice(tables)}.enabled", rng.choice("01"))
    elif kind == 6:
        world.router.write(f"lc{card}/mtu.mtu", str(rng.choice([0, 150, 200, 300])))
    elif kind == 7:
        querier.insert(hid(rng.randrange(4, 7)).key, mac(rng.randrange(0x40, 0x60)))
    elif kind == 8:
        querier.forget(hid(rng.randrange(4, 7)).key)
    elif kind == 9:
        device: ManualDevice = world.devices[card]
        device.full = not device.full
    else:
        world.ctx.advance(rng.choice([0.01, 0.5, 70.0]))


def a_packet(rng: random.Random, flows: list[tuple[bytes, int]]) -> bytes:
    """A frame of one of a few flows; lengths, hop limits, sources differ, now and then it is damaged."""
    nodes, last = rng.choice(flows)
    source = DAG.service(ad(2), rng.choice([hid(4), hid(5)]), sid(rng.randrange(3)))
    payload = rng.randbytes(rng.choice([0, 1, 40, 40, 40, 40, 150, 250]))
    hlim = rng.choice([0, 1, 2, 3, *[250] * 10])
    packet = xip.build(rng.choice([0, 1, 2, 3]), nodes, source, payload, hlim=hlim, last=last)
    data = bytearray(frame(packet))
    damage = rng.random()
    if damage < 0.02:
        data += bytes(rng.randrange(1, 20))
    elif damage < 0.04:
        del data[rng.randrange(len(data)) :]
    elif damage < 0.1:
        data[rng.randrange(12, 40)] = rng.randrange(256)
    return bytes(data)


def some_flows(rng: random.Random) -> list[tuple[bytes, int]]:
    flows = []
    for _ in range(6):
        count = rng.choice([1, 2, 3, 4])
        nodes = bytearray()
        for index in range(count):
            edges = [rng.randrange(min(index + 1, count - 1), count) for _ in range(rng.choice([1, 2]))]
            nodes += rng.choice(KEYS).key + bytes((edges + [0x7F] * 4)[:4])
        flows.append((bytes(nodes), rng.choice([0x7E, 0x7E, 0x7E, rng.randrange(count)])))
    return flows


@pytest.mark.parametrize("role", ["router", "host"])
@pytest.mark.parametrize("seed", range(12))
def test_nothing_differs(role: str, seed: int) -> None:
    rng = random.Random(seed)
    fast, slow = World(role, fast=True), World(role, fast=False)
    for world in (fast, slow):
        equip(random.Random(seed), world)
    flows = some_flows(rng)
    for _ in range(150):
        changes = rng.randrange(1 << 30)
        for number in range(rng.choice([0, 0, 0, 0, 1, 2])):
            for world in (fast, slow):
                change(random.Random(changes + number), world)
        burst = [a_packet(rng, flows) for _ in range(rng.choice([1, 1, 3, 16]))]
        port = rng.choice([0, 0, 1, 1, 2, 3])
        for world in (fast, slow):
            world.devices[port].deliver(*burst)
        assert fast.sent() == slow.sent()
        assert fast.handed_up() == slow.handed_up()
        if rng.random() < 0.05:
            assert fast.counters() == slow.counters()
    assert fast.counters() == slow.counters()
    assert slow.hits() == 0 and fast.hits() > 0


def known(role: str = "router", text: str = "") -> World:
    world = World(role, fast=True, text=text)
    world.element("core/rt_AD").set(ad(2).key, Entry(2, hid(5).key))
    world.element("lc2/xarpq").insert(hid(5).key, mac(0x55))
    return world


TRANSIT = frame(datagram(DAG.host(ad(2), hid(9))))


def test_a_flow_is_known_from_its_third_packet() -> None:
    world = known()
    for packets in range(1, 6):
        world.devices[1].deliver(TRANSIT)
        assert world.hits() == max(0, packets - 2)
    one, *others = world.devices[2].sent
    assert others == [one] * 4
    assert world.router.read("lc2/device.count") == "5"
    world.router.write("lc1/fast.reset")
    assert world.hits() == 0


@pytest.mark.parametrize(
    "element", ["Counter", "RandomSample(SAMPLE 1)", "Print(x)", "Tee(1)", "Queue -> Unqueue"]
)
def test_steps_aside_for_elements_that_must_see_every_packet(element: str) -> None:
    text = compose("router", PORTS).replace("out[2] -> lc2", f"out[2] -> {element} -> lc2")
    world = known(text=text)
    world.devices[1].deliver(*[TRANSIT] * 5)
    assert len(world.devices[2].sent) == 5 and world.hits() == 0
    name = element.split("(")[0].split()[-1]
    assert f"({name})\t1\n" in world.router.read("lc1/fast.aside")


def test_local_flows_of_the_node_itself_stay_in_the_graph() -> None:
    world = known()
    world.element("core/rt_AD").set(ad(1).key, Entry(SELF))
    for _ in range(3):
        world.devices[1].deliver(frame(datagram(DAG.host(ad(1), hid(1)))))
    assert world.hits() == 0
    assert world.router.read("lc1/fast.aside").startswith("core/local/")


def test_a_scan_learns_nothing() -> None:
    world = known()
    for number in range(5000):
        far = XID(XidType.HID, number.to_bytes(20, "big"))
        world.devices[1].deliver(frame(datagram(DAG.host(ad(2), far))))
    fast = world.element("lc1/fast")
    assert not fast.flows and len(fast.seen) <= fast.capacity
    world.devices[1].deliver(*[TRANSIT] * 3)
    assert world.hits() == 1


def test_flows_are_bounded() -> None:
    world = known()
    fast = world.element("lc1/fast")
    fast.capacity = 10
    for number in range(200):
        far = XID(XidType.HID, number.to_bytes(20, "big"))
        world.devices[1].deliver(*[frame(datagram(DAG.host(ad(2), far)))] * 3)
        assert len(fast.flows) <= 10 and len(fast.seen) <= 10
    assert world.hits() == 200 and len(fast.tallies) == 1
    assert world.router.read("lc2/device.count") == world.router.read("lc1/check.count") == "600"
    huge = bytearray(frame(datagram(DAG.host(ad(2), hid(9)), bytes(8000))))
    huge[19], huge[16:18] = 200, (len(huge) - 22 - 28 * (200 + huge[20])).to_bytes(2, "big")
    before = len(fast.seen)
    world.devices[1].deliver(bytes(huge))
    assert len(fast.seen) == before and world.router.read("lc1/check.drops") == "1"


def test_two_sources_have_one_shortcut() -> None:
    text = """in :: FromDevice(eth0) -> fast :: XIAFastPath -> check :: CheckXIAHeader -> XIADecHLIM
        -> XIAEtherEncap(eth2) -> ToDevice(eth2); FromDevice(eth1) -> fast;"""
    world = World("router", fast=True, text=text)
    for port in (1, 2):
        world.devices[port].deliver(*[TRANSIT] * 4)
    assert world.hits() == 2
    assert len(world.devices[3].sent) == 8 and len(set(world.devices[3].sent)) == 1
    assert world.router.read("in.count") == "4" and world.router.read("check.count") == "8"


def test_a_burst_is_sent_at_its_end_port_by_port() -> None:
    node = Node()
    node.know_neighbours()
    bursts: list[int] = []
    send_burst = node.eth1.send_burst

    def noted(frames: Sequence[bytearray]) -> list[int]:
        bursts.append(len(frames))
        return send_burst(frames)

    node.eth1.send_burst = noted  # type: ignore[method-assign]
    node.eth0.deliver(*[TRANSIT] * 7)
    node.eth0.deliver(TRANSIT)
    assert bursts == [7] and len(node.at(node.eth1)) == 8


def test_nothing_overtakes_what_waits() -> None:
    world = known()
    world.devices[1].deliver(*[TRANSIT] * 3)
    world.sent()
    queue = world.element("lc2/queue")
    queue.packets.append(Packet(bytearray(b"first" * 10)))
    world.devices[1].deliver(TRANSIT)
    assert world.hits() == 1 and len(queue.packets) == 2  # whoever empties the queue was told before
    world.element("lc2/device")._drain()
    assert [data[:5] == b"first" for data in world.devices[2].sent] == [True, False]
    world.devices[1].deliver(TRANSIT)
    assert world.hits() == 2


def test_a_port_that_refuses_is_counted_frame_by_frame() -> None:
    world = known()
    world.devices[1].deliver(*[TRANSIT] * 3)
    took = iter([True, False, True, True])
    send = world.devices[2].send
    world.devices[2].send = lambda data: next(took) and send(data)  # type: ignore[method-assign]
    world.devices[1].deliver(*[TRANSIT] * 4)
    read = world.router.read
    assert (read("lc2/device.count"), read("lc2/device.drops")) == ("6", "1")
    assert read("lc2/device.bytes") == str(6 * len(TRANSIT))
    assert read("lc1/in.count") == read("lc1/check.count") == "7"
