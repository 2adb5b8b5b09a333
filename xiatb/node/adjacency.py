"""Neighbour routers: HELLOs sent and heard, and which links may therefore be used.

A link counts when each end has heard the other (the HELLO of each names the other's HID and
instance). HELLOs go out every second, and at once when a link comes up, a new neighbour is heard
or one does not yet hear us, so that a link is usable after one and a half round trips. A
neighbour is gone after 3.5 silent seconds, at link down, or when it says goodbye.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from xiatb.errors import IdentityError
from xiatb.identity.keys import KeyPair
from xiatb.node import routing_messages as rm
from xiatb.node.effects import Effect, Log, SendRouting
from xiatb.node.lsa import Lsa
from xiatb.node.membership import Membership, MembershipCache

HELLO_GAP = 0.01  # no two HELLOs of one port are closer than this
QUIET = 10  # so many times as rare are HELLOs where hosts are and no router, but
MAX_HELLO = 60.0  # seconds is the longest interval
LONELY_HELLO = 1.0  # the longest interval while a neighbour at the port does not hear us yet
EARLY = 0.25  # what is due within this share of the interval is done when anything is: one wake-up for all


class RoutingPort(NamedTuple):
    """A port that takes part in routing; `passive` ones (guest taps) neither send nor hear HELLOs."""

    port: int
    cost: int = 1
    passive: bool = False


class Neighbour:
    """A router heard at a port; `up` when it hears us too. `pending` is what it has yet to acknowledge,
    `owed` what we have to."""

    __slots__ = (
        "member",
        "port",
        "instance",
        "seq",
        "heard",
        "dead_at",
        "up",
        "digests",
        "pending",
        "by_key",
        "sent",
        "owed",
        "resend_at",
        "resend_delay",
        "digest_sent",
    )

    def __init__(self, member: Membership, port: int) -> None:
        self.member = member
        self.port = port
        self.instance = 0
        self.seq = 0
        self.heard = 0.0
        self.dead_at = 0.0
        self.up = False
        self.digests = (0, 0)
        self.clear()

    def clear(self) -> None:
        """Forget what is under way to this neighbour."""
        self.pending: dict[bytes, Lsa] = {}
        self.by_key: dict[bytes, bytes] = {}
        self.sent: set[bytes] = set()
        self.owed: list[bytes] = []
        self.resend_at: float | None = None
        self.resend_delay = 0.0
        self.digest_sent = float("-inf")


class _Port:
    __slots__ = ("index", "cost", "passive", "up", "hello_at", "hello_last", "neighbours")

    def __init__(self, port: RoutingPort) -> None:
        self.index, self.cost, self.passive = port.port, port.cost, port.passive
        self.up = False
        self.hello_at = float("inf")
        self.hello_last = float("-inf")
        self.neighbours: dict[bytes, Neighbour] = {}


class Adjacencies:
    """All ports and neighbours of one router; `changed` is told of each neighbour that comes up or goes."""

    def __init__(
        self,
        key: KeyPair,
        hid: bytes,
        credentials: bytes,
        rng: Random,
        cache: MembershipCache,
        *,
        hello: float,
        dead: float,
        clock_ns: Callable[[], int],
        entropy: Callable[[int], bytes] = os.urandom,
        digests: Callable[[], tuple[int, int]],
        changed: Callable[[Neighbour, float], None],
    ) -> None:
        """`hid` is our 20-byte HID id; `hello`, `dead` in seconds; `digests` gives those of our database."""
        self.instance = int.from_bytes(entropy(8), "big")
        self.stats = {"hellos": 0, "stale": 0}
        self._key, self._hid, self._credentials = key, hid, credentials
        self._rng, self._cache = rng, cache
        self._hello, self._dead = hello, dead
        self._clock_ns, self._digests, self._changed = clock_ns, digests, changed
        self._ports: dict[int, _Port] = {}
        self._seq = 0
        self.hosts: set[int] = set()
        """Ports at which hosts are attached."""
        self.effects: list[Effect] = []

    def add_port(self, port: RoutingPort) -> None:
        """Make a port known; it is down until `link_up`."""
        self._ports[port.port] = _Port(port)

    def cost(self, port: int) -> int:
        """Return the cost of sending at `port`."""
        return self._ports[port].cost

    def neighbours(self) -> Iterator[Neighbour]:
        """All neighbours, up or not, in order of port."""
        for port in self._ports.values():
            yield from port.neighbours.values()

    def up(self) -> Iterator[Neighbour]:
        """The neighbours that hear us and are heard."""
        return (n for n in self.neighbours() if n.up)

    def find(self, port: int, hid: bytes) -> Neighbour | None:
        """Return the neighbour with this 20-byte HID id at `port`, or None."""
        found = self._ports.get(port)
        return None if found is None else found.neighbours.get(hid)

    # Events

    def link_up(self, index: int, now: float) -> None:
        """The link of a port came up: say HELLO at once."""
        port = self._ports.get(index)
        if port is None:
            port = self._ports[index] = _Port(RoutingPort(index))
        port.up = True
        if not port.passive:
            self._soon(port, now)

    def link_down(self, index: int, now: float) -> None:
        """The link of a port went down: its neighbours are gone."""
        port = self._ports.get(index)
        if port is None:
            return
        port.up = False
        port.hello_at = float("inf")
        for neighbour in list(port.neighbours.values()):
            self._drop(port, neighbour, now, "link is down")

    def goodbye(self, now: float) -> None:
        """We shut down: tell the neighbours, who then need not wait for silence."""
        for port in self._ports.values():
            if port.up and not port.passive:
                self._say(port, now, bye=True)
                port.hello_at = float("inf")

    def receive(self, index: int, hello: rm.Hello, now: float) -> Neighbour | None:
        """Take a HELLO; return the neighbour when it is one in good standing. IdentityError when forged."""
        port = self._ports.get(index)
        if port is None or port.passive or not port.up or hello.sender == self._hid:
            return None
        known = port.neighbours.get(hello.sender)
        if known is not None and hello.seq <= known.seq:
            self.stats["stale"] += 1
            return None
        member = self._cache.check(hello.credentials)
        if member.hid.id != hello.sender or not rm.hello_authentic(hello, member.public):
            raise IdentityError(f"a HELLO is not signed by HID:{hello.sender.hex()}")
        if hello.bye:
            if known is not None:
                self._drop(port, known, now, "said goodbye")
            return None
        if known is None:
            if len(port.neighbours) >= rm.MAX_HEARD:
                self.effects.append(Log("warning", f"too many routers at port {index}: no {member.hid}"))
                return None
            known = port.neighbours[hello.sender] = Neighbour(member, index)
        self._update(port, known, hello, now)
        return known

    def _update(self, port: _Port, neighbour: Neighbour, hello: rm.Hello, now: float) -> None:
        fresh = neighbour.instance != hello.instance
        if fresh and neighbour.up:
            self._down(neighbour, now, "restarted")
        neighbour.instance = hello.instance
        neighbour.seq = hello.seq
        neighbour.heard = now
        neighbour.dead_at = now + max(self._dead, 3.5 * hello.interval_ms / 1000)
        neighbour.digests = (hello.digest_ad, hello.digest_global)
        hears_us = hello.heard.get(self._hid) == self.instance
        if fresh or not hears_us:
            self._soon(port, now)
        if hears_us and not neighbour.up:
            neighbour.up = True
            self.effects.append(Log("info", f"neighbour {neighbour.member.hid} at port {port.index} is up"))
            self._changed(neighbour, now)
        elif neighbour.up and not hears_us:
            self._down(neighbour, now, "does not hear us")

    def _down(self, neighbour: Neighbour, now: float, why: str) -> None:
        neighbour.up = False
        neighbour.clear()
        text = f"neighbour {neighbour.member.hid} at port {neighbour.port} is down: {why}"
        self.effects.append(Log("info", text))
        self._changed(neighbour, now)

    def _drop(self, port: _Port, neighbour: Neighbour, now: float, why: str) -> None:
        del port.neighbours[neighbour.member.hid.id]
        if neighbour.up:
            self._down(neighbour, now, why)

    # HELLOs and timers

    def _soon(self, port: _Port, now: float) -> None:
        port.hello_at = min(port.hello_at, max(now, port.hello_last + HELLO_GAP))
        if port.hello_at <= now:
            self._say(port, now)

    def _say(self, port: _Port, now: float, *, bye: bool = False) -> None:
        self._seq = max(self._seq + 1, self._clock_ns())
        digest_ad, digest_global = self._digests()
        hello = rm.pack_hello(
            self._key,
            sender=self._hid,
            credentials=self._credentials,
            instance=self.instance,
            seq=self._seq,
            interval_ms=int(self._hello * 1000),
            digest_ad=digest_ad,
            digest_global=digest_global,
            heard={hid: n.instance for hid, n in port.neighbours.items()},
            bye=bye,
        )
        self.stats["hellos"] += 1
        port.hello_last = now
        port.hello_at = now + self._interval(port) * self._rng.uniform(0.95, 1.05)
        self.effects.append(SendRouting(port.index, hello))

    def _interval(self, port: _Port) -> float:
        if not port.neighbours and port.index in self.hosts:
            return max(self._hello, min(MAX_HELLO, self._hello * QUIET))  # a router that comes speaks first
        if all(neighbour.up for neighbour in port.neighbours.values()):
            return self._hello
        return min(self._hello, LONELY_HELLO)

    def tick(self, now: float) -> None:
        """Say the HELLOs that are due or nearly so, and drop the neighbours that are silent."""
        soon = now + EARLY * self._hello if any(p.hello_at <= now for p in self._ports.values()) else now
        for port in self._ports.values():
            if port.hello_at <= soon:
                self._say(port, now)
            for neighbour in list(port.neighbours.values()):
                if neighbour.dead_at <= now:
                    self._drop(port, neighbour, now, f"silent for {now - neighbour.heard:.1f} s")

    def next_deadline(self) -> float:
        """Return when `tick` has something to do (infinity: never)."""
        due = float("inf")
        for port in self._ports.values():
            due = min(due, port.hello_at)
            for neighbour in port.neighbours.values():
                due = min(due, neighbour.dead_at)
        return due
