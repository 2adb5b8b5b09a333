"""The eBPF program against the Python walk: random DAGs, tables and frames through BPF_PROG_TEST_RUN."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from tests.fastpath.generate import PORTS, random_frame, random_keys, random_world
from tests.fastpath.oracle import REDIRECT, Outcome, World, expected
from xiatb.fastpath.engine import Fastpath
from xiatb.fastpath.mirror import Mirror
from xiatb.fastpath.routes import Counters, Reason

pytestmark = pytest.mark.netns
WORLDS, FRAMES = 60, 250
SEEDS = 8
"""8 * 60 * 250 = 120,000 cases."""
ROUTER, HOST = 501, 502
"""Made-up interface numbers of the ports that frames come in by: a router's and an end host's."""
ROUTER_SLOT, HOST_SLOT = 20, 21


def fill(mirror: Mirror, world: World, rng: random.Random) -> None:
    """Tells the mirror everything, in random order."""
    steps: list[Callable[[], None]] = [partial(mirror.set_port, *item) for item in world.ports.items()]
    steps += [partial(mirror.set, *item) for item in world.table.items()]
    steps += [partial(mirror.set_default, *item) for item in world.defaults.items()]
    steps += [partial(mirror.set_neighbour, *place, mac) for place, mac in world.neighbours.items()]
    rng.shuffle(steps)
    for step in steps:
        step()


def empty(mirror: Mirror, world: World) -> None:
    for key in world.table:
        mirror.remove(key)
    for kind in world.defaults:
        mirror.set_default(kind, None)


class Tally:
    """What the engine's counters must say."""

    def __init__(self) -> None:
        self.reasons: Counter[tuple[int, Reason]] = Counter()
        self.traffic: Counter[tuple[str, int]] = Counter()
        self.marked = 0

    def add(self, slot: int, frame: bytes, outcome: Outcome) -> None:
        if outcome.reason is not None:
            self.reasons[slot, outcome.reason] += 1
            self.traffic["dropped_bytes", slot] += len(frame) * outcome.reason.dropped
            return
        self.marked += frame[22 : len(outcome.frame)] != outcome.frame[22:]
        for side, port, size in (("rx", slot, len(frame)), ("tx", outcome.egress, len(outcome.frame))):
            self.traffic[f"{side}_packets", port] += 1
            self.traffic[f"{side}_bytes", port] += size

    def check(self, slot: int, counters: Counters) -> None:
        for name in ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "dropped_bytes"):
            assert getattr(counters, name) == self.traffic[name, slot], (name, slot)
        for reason in Reason:
            assert counters.reasons[reason] == self.reasons[slot, reason], (reason, slot)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_agrees_with_the_walk(seed: int, fastpath: Fastpath) -> None:
    rng = random.Random(f"fastpath/{seed}")
    tally = Tally()
    fastpath.set_port(ROUTER, ROUTER_SLOT)
    fastpath.set_port(HOST, HOST_SLOT, transit=False)
    for _ in range(WORLDS):
        keys = random_keys(rng)
        world = random_world(rng, keys)
        mirror = Mirror(fastpath)
        fill(mirror, world, rng)
        for number in range(FRAMES):
            frame = random_frame(rng, keys)
            ingress, slot = (HOST, HOST_SLOT) if number % 8 == 0 else (ROUTER, ROUTER_SLOT)
            outcome = expected(world, frame, ingress == ROUTER)
            run = fastpath.test_run(frame, ingress)
            assert (run.verdict, run.frame) == (outcome.verdict, outcome.frame), (outcome, frame.hex(), world)
            tally.add(slot, frame, outcome)
        empty(mirror, world)
    for slot in (*range(PORTS), ROUTER_SLOT, HOST_SLOT):
        tally.check(slot, fastpath.counters(slot))
    assert tally.traffic["rx_packets", ROUTER_SLOT] > WORLDS * FRAMES // 6, "frames are too often refused"
    assert tally.marked > WORLDS * FRAMES // 16, "too few walks pass through this node"
    missed = set(Reason) - {Reason.FAILED} - {reason for _, reason in tally.reasons}
    assert not missed, f"never seen: {missed}"


def test_an_unknown_port_passes_everything(fastpath: Fastpath) -> None:
    rng = random.Random("unknown port")
    keys = random_keys(rng)
    world = random_world(rng, keys)
    fill(Mirror(fastpath), world, rng)
    for _ in range(200):
        frame = random_frame(rng, keys)
        run = fastpath.test_run(frame, ROUTER)
        assert run.verdict != REDIRECT and run.frame == frame
