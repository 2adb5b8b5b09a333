"""The Click elements of a router's core against the specification of forwarding, `xiatb.wire.walk`."""

from __future__ import annotations

import random

import pytest

from xiatb.click.compose import PortSpec, compose
from xiatb.click.context import ManualContext
from xiatb.click.elements.xiaxidroutetable import XIAXIDRouteTable
from xiatb.click.graph import Router
from xiatb.click.packet import Packet
from xiatb.wire import walk as spec
from xiatb.wire import xip
from xiatb.wire.walk import DISCARD, FALLBACK, SELF, UNREACHABLE, Entry

TYPES = {
    "AD": 0x10,
    "HID": 0x11,
    "SID": 0x13,
    "CID": 0x12,
    "IP": 0x14,
    "FID": 0x30,
    "NCID": 0x31,
    "ICID": 0x32,
}
UNKNOWN_TYPES = (0x50, 0x01000010, 0xFFFFFFFF, 0)
N_PORTS = 4


class World:
    """A router whose four outputs, local applications, own software and complaints are observed."""

    def __init__(self) -> None:
        ports = [PortSpec("xia0r", "internal", 0)] + [
            PortSpec(f"eth{i}", "internal", 0) for i in range(1, N_PORTS)
        ]
        self.router = Router.from_text(compose("router", ports), "core.click")
        self.ctx = ManualContext(hid=(0x11).to_bytes(4, "big") + b"\xee" * 20)
        for port in ports:
            self.ctx.add_device(port.name)
        self.router.initialize(self.ctx)
        self.seen: list[tuple[str, int, bytes]] = []
        for index in range(N_PORTS):
            self._observe(
                f"lc{index}/mtu", "receive", lambda p, i=index: ("port", p.out if p.out == i else -99, p.xip)
            )
        self._observe("core/local/intent", "receive", lambda p: ("node", -1, p.xip))
        self._observe("core/local/xcmp", "complaint", lambda p: ("complaint", p.reason, p.xip))

    def _observe(self, name: str, kind: str, note: object) -> None:
        """Put an observer in the place of an element: nothing goes on behind it."""
        target = self.router.elements[name]
        for element in self.router.elements.values():
            for port, out in enumerate(element.outs):
                owner = getattr(out, "__self__", None) or getattr(
                    getattr(out, "func", None), "__self__", None
                )
                if owner is not target or (kind == "complaint" and out.args != (1,)):  # type: ignore[attr-defined]
                    continue
                element.outs[port] = lambda p: self.seen.append(note(p))  # type: ignore[operator]
                element.out0 = element.outs[0]
        for name, element in self.router.elements.items():
            if name.startswith("core/"):
                element.initialize(self.ctx)

    def run(self, packet: bytes) -> tuple[str, int, bytes]:
        self.seen.clear()
        self.router.inject("core/from_host", Packet.from_xip(packet))
        assert len(self.seen) <= 1
        return self.seen[0] if self.seen else ("dropped", 0, b"")


def random_packet(rng: random.Random, keys: list[bytes]) -> bytes:
    """A packet with random edges: mostly sensible, some unused, out of range, visited or circular."""
    dnode = rng.choice([1, 2, 3, 3, 4, 5, 8, 20])
    nodes = bytearray()
    for index in range(dnode):
        nodes += rng.choice(keys)
        for slot in range(4):
            edge = 0x7F
            if slot < rng.choice([1, 1, 2, 2, 3, 4]):
                kind = rng.random()
                if kind < 0.85:
                    low = 0 if index == dnode - 1 else min(index + 1, dnode - 1)
                    edge = rng.randrange(low, dnode)
                elif kind < 0.95:
                    edge = rng.randrange(0, dnode)
                else:
                    edge = rng.randrange(0, 0x80)
            nodes.append(edge | (0x80 if rng.random() < 0.05 else 0))
    last = 0x7E if rng.random() < 0.6 else rng.randrange(dnode)
    hlim = rng.choice([0, 1, 2, 3, 64, 250, 255])
    source = rng.choice(keys) + b"\0\x7f\x7f\x7f"
    payload = rng.randbytes(rng.choice([0, 1, 8, 40]))
    return xip.build(rng.choice([0, 2, 3]), bytes(nodes), source, payload, hlim=hlim, last=last)


def random_tables(
    rng: random.Random, world: World, keys: list[bytes]
) -> tuple[dict[bytes, Entry], dict[int, Entry]]:
    table: dict[bytes, Entry] = {}
    defaults: dict[int, Entry] = {}
    ports = [0, 1, 2, 3, SELF, SELF, SELF, FALLBACK, UNREACHABLE, DISCARD]
    for element in world.router.elements.values():
        if isinstance(element, XIAXIDRouteTable):
            element.table.clear()
            element.default = None
            if rng.random() < 0.3:
                element.default = Entry(rng.choice(ports), None, 0, rng.choice([-1, 0, 2]))
                defaults[element.type] = element.default
    names = {number: name for name, number in TYPES.items()}
    for key in keys:
        kind = int.from_bytes(key[:4], "big")
        if kind in names and rng.random() < 0.75:
            table[key] = Entry(rng.choice(ports), rng.choice([None, keys[0]]), 0, rng.choice([-1, 0, 2]))
            world.router.elements[f"core/rt_{names[kind]}"].set(key, table[key])
    return table, defaults


def expected(packet: bytes, table: dict[bytes, Entry], defaults: dict[int, Entry]) -> tuple[str, int, bytes]:
    buffer = bytearray(packet)
    verdict, entry = spec.walk(buffer, 0, table, defaults)
    if verdict == spec.FORWARD:
        assert entry is not None
        if buffer[4] <= 1:
            return "complaint", 2, bytes(buffer)
        buffer[4] -= 1
        return "port", entry.port, bytes(buffer)
    if verdict == spec.DELIVER:
        assert entry is not None
        return ("port", entry.deliver, bytes(buffer)) if entry.deliver >= 0 else ("node", -1, bytes(buffer))
    if verdict == DISCARD:
        return "dropped", 0, b""
    return "complaint", 0, bytes(buffer)


@pytest.mark.parametrize("seed", range(40))
def test_random_dags_and_tables(seed: int) -> None:
    rng = random.Random(seed)
    world = World()
    keys = [number.to_bytes(4, "big") + rng.randbytes(20) for number in TYPES.values() for _ in range(2)]
    keys += [number.to_bytes(4, "big") + rng.randbytes(20) for number in UNKNOWN_TYPES]
    seen = set()
    for _ in range(10):
        table, defaults = random_tables(rng, world, keys)
        for _ in range(40):
            packet = random_packet(rng, keys)
            wanted = expected(packet, table, defaults)
            got = world.run(packet)
            assert got == wanted
            seen.add(got[0])
    assert seen == {"port", "node", "complaint", "dropped"}


def test_unknown_first_type_falls_back() -> None:
    world = World()
    ad = (0x10).to_bytes(4, "big") + b"\1" * 20
    strange = (0x50).to_bytes(4, "big") + b"\2" * 20
    world.router.elements["core/rt_AD"].set(ad, Entry(2, None))
    nodes = ad + b"\1\x7f\x7f\x7f" + strange + b"\1\0\x7f\x7f"
    kind, port, _ = world.run(xip.build(0, nodes, ad + b"\0\x7f\x7f\x7f", b""))
    assert (kind, port) == ("port", 2)
