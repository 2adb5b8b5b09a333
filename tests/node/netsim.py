"""A network of protocol cores in virtual time: links with delay, loss and reordering, no sockets."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from random import Random
from typing import Any

from xiatb.identity.keys import KeyPair
from xiatb.node import effects as fx
from xiatb.node import membership
from xiatb.node.control_plane import ControlPlane
from xiatb.node.join import HostJoin, RouterJoin
from xiatb.wire.xid import XID, XidType

BROADCAST = b"\xff" * 6
WALL_NS = 1_700_000_000 * 10**9


def key(name: str) -> KeyPair:
    """A key pair that depends on the name alone."""
    return KeyPair.from_seed(name.encode().ljust(32, b".")[:32])


class Link:
    """A cable, or a switch, between (node, port) ends; `up` False drops everything."""

    def __init__(self, ends: tuple[Any, ...], delay: float, loss: float, jitter: float) -> None:
        self.ends = ends
        self.delay, self.loss, self.jitter = delay, loss, jitter
        self.up = True
        self.frames = 0


class Sim:
    def __init__(self, seed: int = 1) -> None:
        self.now = 1000.0
        self.rng = Random(seed)
        self.nodes: dict[str, Any] = {}
        self.links: list[Link] = []
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def clock_ns(self) -> int:
        return WALL_NS + int(self.now * 1e9)

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._count), action))

    def add(self, node: Any) -> Any:
        self.nodes[node.name] = node
        return node

    def connect(self, a: Any, b: Any, *, delay: float = 0.001, loss: float = 0, jitter: float = 0) -> Link:
        """Plug a cable between a fresh port of each node and bring both ends up."""
        return self.lan([a, b], delay=delay, loss=loss, jitter=jitter)

    def lan(self, nodes: list[Any], *, delay: float = 0.001, loss: float = 0, jitter: float = 0) -> Link:
        """Plug a switch that joins a fresh port of each node and bring the ends up."""
        link = Link(tuple((node, node.new_port()) for node in nodes), delay, loss, jitter)
        for node, port in link.ends:
            node.links[port] = link
        self.links.append(link)
        for node, port in link.ends:
            node.link_up(port)
        return link

    def set_link(self, link: Link, up: bool) -> None:
        link.up = up
        for node, port in link.ends:
            (node.link_up if up else node.link_down)(port)

    def transmit(self, sender: Any, port: int, kind: str, dst: bytes, payload: bytes) -> None:
        link = sender.links.get(port)
        if link is None or not link.up:
            return
        link.frames += 1
        for node, far in link.ends:
            if (node, far) != (sender, port) and (dst in (BROADCAST, node.mac(far)) or node.promiscuous):
                self._deliver(link, node, far, kind, sender.mac(port), payload)

    def _deliver(self, link: Link, node: Any, far: int, kind: str, source: bytes, payload: bytes) -> None:
        if self.rng.random() < link.loss:
            return
        when = self.now + link.delay + self.rng.random() * link.jitter

        def arrive() -> None:
            if link.up and node.alive:
                node.arrive(far, kind, source, payload)

        self.at(when, arrive)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Advance by `seconds` of virtual time, or until `until()`; return how long it took."""
        start, end = self.now, self.now + seconds
        while True:
            if until is not None and until():
                return self.now - start
            due = min((d for n in self.nodes.values() if (d := n.deadline()) is not None), default=end + 1)
            arrival = self._queue[0][0] if self._queue else end + 1
            nxt = min(due, arrival)
            if nxt > end:
                self.now = end
                if until is not None:
                    raise AssertionError(f"not so after {seconds} s")
                return seconds
            self.now = max(self.now, nxt)
            if arrival <= due:
                heapq.heappop(self._queue)[2]()
            else:
                for node in list(self.nodes.values()):
                    deadline = node.deadline()
                    if deadline is not None and deadline <= self.now:
                        node.tick()


class Node:
    promiscuous = False

    def __init__(self, sim: Sim, name: str) -> None:
        self.sim, self.name = sim, name
        self.index = len(sim.nodes) + 1
        self.alive = True
        self.links: dict[int, Link] = {}
        self.log: list[fx.Effect] = []
        self.routes: dict[bytes, Any] = {}
        self.neighbours: dict[tuple[int, bytes], bytes] = {}
        self._deadline: float | None = None
        sim.add(self)

    def mac(self, port: int) -> bytes:
        return bytes([2, 0, 0, self.index >> 8, self.index & 255, port])

    def new_port(self) -> int:
        return len(self.links)

    def deadline(self) -> float | None:
        return self._deadline if self.alive else None

    def seen(self, kind: type) -> list[Any]:
        return [e for e in self.log if isinstance(e, kind)]

    def core(self) -> Any:
        raise NotImplementedError

    def tick(self) -> None:
        self.core().tick(self.sim.now)
        self.settle()

    def settle(self) -> None:
        for effect in self.core().effects():
            self.log.append(effect)
            if isinstance(effect, fx.SendJoin):
                self.sim.transmit(self, effect.port, "join", effect.dst_mac, effect.payload)
            elif isinstance(effect, fx.SendRouting):
                self.sim.transmit(self, effect.port, "routing", BROADCAST, effect.payload)
            elif isinstance(effect, fx.SetRoute):
                self.routes[effect.key] = effect.entry
            elif isinstance(effect, fx.DelRoute):
                del self.routes[effect.key]
            elif isinstance(effect, fx.SetNeighbour):
                self.neighbours[(effect.port, effect.hid_key)] = effect.mac
            elif isinstance(effect, fx.ForgetNeighbour):
                self.neighbours.pop((effect.port, effect.hid_key), None)
        self._deadline = self.core().next_deadline()


class JoinNode(Node):
    """A node whose only core is its side of the join protocol, `join`."""

    join: Any

    def core(self) -> Any:
        return self.join

    def link_down(self, port: int) -> None:
        self.join.link_down(port, self.sim.now)
        self.settle()

    def arrive(self, port: int, kind: str, source: bytes, payload: bytes) -> None:
        if kind == "join":
            self.join.receive(port, source, payload, self.sim.now)
            self.settle()


class Host(JoinNode):
    def __init__(self, sim: Sim, name: str, **kw: Any) -> None:
        super().__init__(sim, name)
        self.key = key(name)
        self.hid = self.key.xid(XidType.HID)
        self.join = HostJoin(self.key, Random(self.index), clock_ns=sim.clock_ns, **kw)

    def link_up(self, port: int) -> None:
        self.join.set_port(port, self.mac(port))
        self.join.kick(port, self.sim.now)
        self.settle()

    def at_router(self, router: Any) -> bool:
        return self.join.locator is not None and self.join.locator[1] == router.hid


class Member(Node):
    """A node with a key of its own and its AD's certificate."""

    def __init__(self, sim: Sim, name: str, ad: str) -> None:
        super().__init__(sim, name)
        self.key, self.ad_key = key(name), key(ad)
        self.hid, self.ad = self.key.xid(XidType.HID), self.ad_key.xid(XidType.AD)
        self.cert = membership.issue(self.ad_key, self.hid)


class JoinRouter(JoinNode, Member):
    """A router with the join service alone."""

    def __init__(self, sim: Sim, name: str, ad: str = "ad1", **kw: Any) -> None:
        super().__init__(sim, name, ad)
        rng = Random(self.index)
        self.join = RouterJoin(
            self.key, self.ad, self.ad_key.public, self.cert, rng, entropy=sim.rng.randbytes, **kw
        )

    def link_up(self, port: int) -> None:
        self.join.link_up(port, self.sim.now, mtu=9000)
        self.settle()

    def hosts(self) -> set[XID]:
        return {h.hid for h in self.join.hosts.values()}


class Router(Member):
    """A router or hypervisor host: join and routing together."""

    def __init__(self, sim: Sim, name: str, ad: str = "ad1", **kw: Any) -> None:
        super().__init__(sim, name, ad)
        self.kw = kw
        self.start()

    def start(self) -> None:
        """Power on: a fresh core that knows nothing."""
        self.routes.clear()
        self.neighbours.clear()
        self.plane = ControlPlane(
            self.key,
            self.ad,
            self.ad_key.public,
            self.cert,
            [],
            Random(self.index),
            clock_ns=self.sim.clock_ns,
            entropy=self.sim.rng.randbytes,
            **self.kw,
        )
        self.alive = True
        for port in self.links:
            self.link_up(port)

    def core(self) -> Any:
        return self.plane

    def link_up(self, port: int) -> None:
        self.plane.link_up(port, self.sim.now)
        self.settle()

    def link_down(self, port: int) -> None:
        self.plane.link_down(port, self.sim.now)
        self.settle()

    def arrive(self, port: int, kind: str, source: bytes, payload: bytes) -> None:
        if kind == "join":
            self.plane.receive_join(port, source, payload, self.sim.now)
        else:
            self.plane.receive_routing(port, payload, self.sim.now)
        self.settle()

    def expect(self, hid: XID, port: int) -> None:
        self.plane.expect(hid, port, self.sim.now)
        self.settle()

    def hosts(self) -> set[XID]:
        return {h.hid for h in self.plane.join.hosts.values()}


def path(start: Router, target: XID, limit: int = 64) -> list[str] | None:
    """Follow the routes of `target` (AD or HID) from `start`; names passed, None when it ends nowhere."""
    node: Any = start
    names = [node.name]
    for _ in range(limit):
        if isinstance(node, Host):
            return names if node.hid == target else None
        if target in (node.hid, node.ad):
            return names
        entry = node.routes.get(target.key)
        if entry is None:
            return None
        link = node.links[entry.port]
        if not link.up:
            return None
        node = next((n for n, _ in link.ends if n.hid.key == entry.nexthop and n.alive), None)
        if node is None:
            return None
        names.append(node.name)
    return None  # a loop, as there may be while routers learn of a change
