"""Simulated streams between two daemons: reliable, with rate and delay, over a link that can be cut.

What a cut does to a stream is what XSTREAM does: bytes wait; after `GIVE_UP` seconds without an
acknowledgement (or `IDLE` without anything to send) the stream breaks at that end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from xiatb.errors import XiatbError

GIVE_UP = 60.0
IDLE = 100.0
DELAY = 0.005
RATE = 12.5e6
RESET = ConnectionResetError("the stream timed out")


class Link:
    """The path between the two hosts. `rate` in bytes a second."""

    def __init__(self) -> None:
        self.up = True
        self.rate = RATE
        self.wires: list[SimWire] = []

    def cut(self) -> None:
        self.up = False
        for wire in self.wires:
            wire.cut()

    def mend(self) -> None:
        self.up = True
        for wire in list(self.wires):
            wire.mended()


class SimWire:
    """One end; see migration.wirestream.Wire."""

    def __init__(self, link: Link) -> None:
        self.other: SimWire
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._come: deque[bytes] = deque()
        self._flight: deque[tuple[float, bytes]] = deque()
        self._news = asyncio.Event()
        self._drained = asyncio.Event()
        self._bound = 1 << 20
        self._waiting = 0
        self._free = 0.0
        self._broken: Exception | None = None
        self._eof_sent = self._dead = False
        link.wires.append(self)

    async def read(self, limit: int) -> bytes:
        while not self._come:
            if self._broken is not None:
                raise self._broken
            self._news.clear()
            await self._news.wait()
        data = self._come[0]
        if not data:
            return b""
        if len(data) > limit:
            self._come[0] = data[limit:]
        else:
            self._come.popleft()
        return data[:limit]

    async def write(self, data: bytes) -> None:
        if self._broken is not None:
            raise self._broken
        self._waiting += len(data)
        self._send(bytes(data))
        if self.other._dead:
            self._answered()
        while self._waiting > self._bound and self._broken is None:
            self._drained.clear()
            await self._drained.wait()
        if self._broken is not None:
            raise self._broken

    def _send(self, data: bytes) -> None:
        self._free = max(self._free, self._loop.time()) + len(data) / self._link.rate
        self._flight.append((self._free + DELAY, data))
        if self._link.up:
            self._loop.call_at(self._free + DELAY, self._deliver)
        else:
            self._loop.call_later(GIVE_UP, self._give_up)

    def die(self) -> None:
        """The process at this end has gone: the other end hears of it when it says something, or is owed an
        answer."""
        self._dead = True
        self._break(ConnectionResetError("reset"))
        if self.other._waiting:
            self.other._answered()

    def _answered(self) -> None:
        """Nobody at the other end knows the stream."""
        if self._link.up:
            self._loop.call_later(2 * DELAY, self._break, ConnectionResetError("no such socket"))

    def _deliver(self) -> None:
        while self._flight and self._link.up and self._flight[0][0] <= self._loop.time() + 1e-6:
            data = self._flight.popleft()[1]
            self._waiting -= len(data)
            self._drained.set()
            self.other._come.append(data)
            self.other._news.set()

    def cut(self) -> None:
        self._loop.call_later(GIVE_UP if self._waiting else IDLE, self._give_up)

    def mended(self) -> None:
        flight, self._flight = self._flight, deque()
        for _, data in flight:
            self._send(data)
        if flight and self.other._dead:
            self._answered()

    def _give_up(self) -> None:
        if not self._link.up and self._broken is None:
            self._break(RESET)

    def _break(self, error: Exception) -> None:
        if self._broken is None:
            self._broken = error
        self._news.set()
        self._drained.set()

    def write_eof(self) -> None:
        if not self._eof_sent and self._broken is None:
            self._eof_sent = True
            self._send(b"")

    def set_bound(self, limit: int) -> None:
        self._bound = limit

    def backlog(self) -> int:
        return self._waiting

    def round_trip(self) -> float:
        return 2 * DELAY

    def origin(self) -> str:
        return ""

    def abort(self) -> None:
        """Over a link that is cut the other end does not hear of it; what has died does nothing."""
        if self._dead:
            return
        gone = ConnectionResetError("reset")
        self._break(gone)
        if self._link.up:
            self._loop.call_later(DELAY, self.other._break, gone)

    async def close(self) -> None:
        self.write_eof()


class SimCarrier:
    """One daemon's carrier; `network` maps the peers' names to carriers that serve."""

    def __init__(self, name: str, link: Link, network: dict[str, SimCarrier]) -> None:
        self.name = name
        self._link = link
        self._network = network
        self.alive = True
        self.open: list[SimWire] = []
        self._on_wire: Any = None
        self._tasks: set[Any] = set()
        self._context: Any = None

    async def serve(self, on_wire: Any) -> None:
        import contextvars

        self._on_wire = on_wire
        self._context = contextvars.copy_context()
        self._network[self.name] = self

    async def dial(self, peer: Any, congestion: str = "") -> SimWire:
        for _ in range(20):  # the transport's connect_timeout, in seconds
            if self._link.up:
                break
            await asyncio.sleep(1)
        else:
            raise XiatbError("the connection timed out")
        await asyncio.sleep(2 * DELAY)
        there = self._network.get(peer.name)
        if there is None or not there.alive:
            raise XiatbError("unreachable: nobody has that SID")
        one, other = SimWire(self._link), SimWire(self._link)
        one.other, other.other = other, one
        self.open.append(one)
        there.open.append(other)
        loop = asyncio.get_running_loop()
        task = loop.create_task(there._on_wire(other), context=there._context.copy())
        there._tasks.add(task)
        task.add_done_callback(there._tasks.discard)
        return one

    async def close(self) -> None:
        self.die()

    def die(self) -> None:
        """The process has gone: its peers hear "no such socket" as soon as they say something."""
        self.alive = False
        if self._network.get(self.name) is self:
            del self._network[self.name]
        for wire in self.open:
            wire.die()
