"""Random nodes (tables, ports, neighbours) and random frames for them: mostly sensible, often hostile."""

from __future__ import annotations

import random

from tests.fastpath.oracle import BROADCAST, LOOPBACK, World
from xiatb.fastpath.mirror import PortInfo
from xiatb.wire import xip
from xiatb.wire.walk import DISCARD, FALLBACK, SELF, UNREACHABLE, Entry

TYPES = (0x10, 0x11, 0x13, 0x12, 0x14, 0x30, 0x31, 0x32)
UNKNOWN_TYPES = (0x50, 0x01000010, 0xFFFFFFFF, 0)
PORTS = 6
_TARGETS = (*range(PORTS), *range(PORTS), 9, *[SELF] * 8, FALLBACK, UNREACHABLE, DISCARD)


def random_keys(rng: random.Random) -> list[bytes]:
    """XIDs that tables and packets draw from; some differ in the last octet only, or in the type only."""
    keys = [kind.to_bytes(4, "big") + rng.randbytes(20) for kind in rng.choices(TYPES, k=9)]
    keys.append(keys[0][:-1] + bytes([keys[0][-1] ^ 1]))
    keys.append(rng.choice(TYPES).to_bytes(4, "big") + keys[1][4:])
    keys.append(rng.choice(UNKNOWN_TYPES).to_bytes(4, "big") + rng.randbytes(20))
    return keys


def random_world(rng: random.Random, keys: list[bytes]) -> World:
    """A node with applications at port 0 and links of several MTUs, one of them down."""
    ports = {0: PortInfo(100, rng.randbytes(6), rng.choice([0, 300, 1500]), internal=True)}
    for index in range(1, PORTS):
        mtu = rng.choice([0, 150, 300, 1500, 1500])
        ports[index] = PortInfo(100 + index, rng.randbytes(6), mtu, up=rng.random() < 0.9)
    hops = [None, None, keys[0], rng.choice(keys)]
    table = {
        key: Entry(rng.choice(_TARGETS), rng.choice(hops), 0, rng.choice([-1, 0, 0, 2]))
        for key in keys
        if key[:3] == b"\0\0\0" and rng.random() < 0.75
    }
    defaults = {
        kind: Entry(rng.choice(_TARGETS), rng.choice(hops), 0, rng.choice([-1, 0]))
        for kind in (*TYPES, 0x50)
        if rng.random() < 0.3
    }
    neighbours = {
        (port, key): rng.randbytes(6) for port in range(PORTS) for key in keys if rng.random() < 0.92
    }
    return World(ports, table, defaults, neighbours)


def random_nodes(rng: random.Random, keys: list[bytes]) -> tuple[bytes, int]:
    """A destination's node list, and how many there are."""
    count = rng.choice((1, 2, 3, 3, 4, 5, 8, 14, 20))
    nodes = bytearray()
    width = rng.choice((1, 1, 2, 2, 3, 4))
    for index in range(count):
        nodes += rng.choice(keys)
        for slot in range(4):
            edge = 0x7F
            if slot < width:
                kind = rng.random()
                if kind < 0.9:
                    low = 0 if index == count - 1 else min(index + 1, count - 1)
                    edge = rng.randrange(low, min(count, low + 3))
                elif kind < 0.97:
                    edge = rng.randrange(count)
                else:
                    edge = rng.randrange(0x80)
            nodes.append(edge | (0x80 if rng.random() < 0.05 else 0))
    return bytes(nodes), count


def random_frame(rng: random.Random, keys: list[bytes]) -> bytes:
    """An Ethernet frame; one in eight is damaged, one in five has padding."""
    nodes, count = random_nodes(rng, keys)
    last = 0x7E if rng.random() < 0.6 else rng.randrange(count)
    source = (rng.choice(keys) + b"\0\x7f\x7f\x7f") * rng.choice((1, 1, 2, 3))
    payload = rng.randbytes(rng.choice((0, 1, 8, 40, 130)))
    hlim = rng.choice((0, 1, 2, 3, 64, 128, 250, 255))
    packet = xip.build(rng.choice((0, 1, 2, 3)), nodes, source, payload, hlim=hlim, last=last)
    target = rng.choice((BROADCAST, LOOPBACK, LOOPBACK, b"\x03" + bytes(5)))
    kind = b"\xc0\xde"
    if rng.random() < 0.03:
        target = b"\x02" + rng.randbytes(5)
    if rng.random() < 0.02:
        kind = b"\x99\x90"
    frame = target + rng.randbytes(6) + kind + packet
    if rng.random() < 0.2:
        frame += rng.randbytes(rng.randrange(1, 30))
    return damaged(rng, frame) if rng.random() < 0.125 else frame


def damaged(rng: random.Random, frame: bytes) -> bytes:
    """The frame with an octet of its header changed, or cut."""
    if rng.random() < 0.4:
        return frame[: rng.randrange(15, len(frame))]
    changed = bytearray(frame)
    for _ in range(rng.choice((1, 1, 2, 6))):
        at = rng.choice((14, 16, 17, 18, 19, 20, 21, rng.randrange(14, len(frame))))
        changed[at] = rng.choice((0, 1, 2, 5, 19, 20, 21, 0x7E, 0x7F, 0x80, 0xFE, rng.randrange(256)))
    return bytes(changed)
