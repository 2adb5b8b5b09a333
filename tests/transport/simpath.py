"""A deterministic path between endpoints, in virtual time.

Each direction has a rate, a queue, a delay, and seeded loss, reordering and duplication.  Packets go
where their destination's host part (the HID of the fallback) says, so that a moved endpoint is only
reached at its new place.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

from xiatb.identity.keys import KeyPair
from xiatb.transport.config import StreamConfig
from xiatb.transport.endpoint import Endpoint
from xiatb.transport.packets import lone_packets
from xiatb.wire import xip
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID, XidType


@dataclass
class Path:
    """One direction.  Times in seconds, `rate` in bits/s (0: infinite), `queue` in packets."""

    delay: float = 0.01
    rate: float = 0.0
    queue: int = 1000
    loss: float = 0.0
    reorder: float = 0.0
    extra: float = 0.005
    duplicate: float = 0.0
    mtu: int = 65535
    free_at: float = 0.0
    waiting: list[float] = field(default_factory=list)


def host_dag(name: str, sid: XID) -> DAG:
    """The service DAG of `sid` at the place called `name`."""
    place = name.encode().ljust(20, b"\0")
    return DAG.service(XID(XidType.AD, place), XID(XidType.HID, place), sid)


class Simulation:
    """Endpoints at places, and the virtual clock."""

    def __init__(self, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.now = 1000.0
        self.endpoints: dict[bytes, Endpoint] = {}
        self.places: dict[bytes, set[bytes]] = {}
        self.path = Path()
        self.paths: dict[bytes, Path] = {}
        self.events: list[tuple[float, int, bytes]] = []
        self.counter = 0
        self.delivered = 0
        self.dropped = 0
        self.too_long = 0
        self.taps: list[bytes] = []
        self.tap = False
        self.down = False

    def add(self, seed: int, place: str, config: StreamConfig | None = None) -> Endpoint:
        key = KeyPair.from_seed(bytes([seed]) * 32)
        sid = key.xid(XidType.SID)
        config = config or StreamConfig()
        config.move_base = 10**18
        endpoint = Endpoint(key, sid, host_dag(place, sid), config, random.Random(self.rng.getrandbits(32)))
        self.endpoints[sid.key] = endpoint
        self.places[sid.key] = {place.encode().ljust(20, b"\0")}
        return endpoint

    def move(self, endpoint: Endpoint, place: str, *, keep: bool = False) -> None:
        """Put the endpoint elsewhere; with `keep` it still receives at the old place."""
        here = place.encode().ljust(20, b"\0")
        if not keep:
            self.places[endpoint.sid.key].clear()
        self.places[endpoint.sid.key].add(here)
        endpoint.move(host_dag(place, endpoint.sid), self.now)

    def send(self, packet: bytes) -> None:
        """Put one packet on its way."""
        if self.tap:
            self.taps.append(packet)
        header = xip.parse(packet)
        place = header.dst().intent_hid
        path = self.paths.get(place.id, self.path) if place is not None else self.path
        if len(packet) > path.mtu:
            self.too_long += 1
            return
        start = self.now
        if path.rate:
            waiting = path.waiting
            while waiting and waiting[0] <= self.now:
                waiting.pop(0)
            if len(waiting) >= path.queue:
                self.dropped += 1
                return
            start = max(self.now, path.free_at)
            path.free_at = start + len(packet) * 8 / path.rate
            waiting.append(path.free_at)
            start = path.free_at
        rng = self.rng
        if self.down or rng.random() < path.loss:
            self.dropped += 1
            return
        for _ in range(2 if rng.random() < path.duplicate else 1):
            at = start + path.delay
            if rng.random() < path.reorder:
                at += rng.random() * path.extra
            self.counter += 1
            heapq.heappush(self.events, (at, self.counter, packet))

    def deliver(self, packet: bytes) -> None:
        """A packet arrives: to the endpoint of its intent, if that is where the packet was sent."""
        header = xip.parse(packet)
        key = header.intent_key
        endpoint = self.endpoints.get(key)
        place = header.dst().intent_hid
        if endpoint is None or place is None or place.id not in self.places[key]:
            self.dropped += 1
            return
        self.delivered += 1
        endpoint.receive(packet, self.now)

    def flush(self) -> None:
        """Let every endpoint transmit."""
        for endpoint in self.endpoints.values():
            while True:
                out = endpoint.transmit(self.now)
                if not out:
                    break
                for header, payload in lone_packets(out):
                    packet = header + payload
                    assert len(packet) <= endpoint.config.mtu, (len(packet), endpoint.config.mtu)
                    self.send(packet)

    def step(self, limit: float = float("inf")) -> bool:
        """Go on to the next packet or timer; False when there is none up to `limit`."""
        self.flush()
        at = self.events[0][0] if self.events else float("inf")
        for endpoint in self.endpoints.values():
            due = endpoint.next_deadline()
            if due is not None and due < at:
                at = due
        if at > limit or at == float("inf"):
            self.now = limit if limit != float("inf") else self.now
            return False
        self.now = max(self.now, at)
        while self.events and self.events[0][0] <= self.now:
            self.deliver(heapq.heappop(self.events)[2])
        for endpoint in self.endpoints.values():
            endpoint.tick(self.now)
        return True

    def run(self, seconds: float, until: object = None) -> bool:
        """Go on for so long, or until the callable `until` says so (then True)."""
        limit = self.now + seconds
        while self.now < limit:
            if callable(until) and until():
                return True
            if not self.step(limit):
                break
        return bool(callable(until) and until())
