"""A first-in first-out queue between a push and a pull part of a graph."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from xiatb.click.args import Arg, to_positive
from xiatb.click.element import Element, WriteHandler, shows
from xiatb.click.flows import Trace
from xiatb.click.packet import Packet


class Queue(Element):
    """Keeps up to CAPACITY packets; drops what is pushed when it is full.

    Pull elements behind it (ToDevice, the Unqueues, schedulers) are woken when it stops being empty.
    """

    __slots__ = ("capacity", "drops", "highwater", "listeners", "packets")
    PORTS = "1/1"
    PROCESSING = "h/l"
    ARGS = (Arg("CAPACITY", to_positive, "packets kept", 1000),)
    capacity: int

    def configure(self, args: dict[str, Any]) -> None:
        """Take the capacity."""
        super().configure(args)
        self.drops = self.highwater = 0
        self.packets: deque[Packet] = deque()
        self.listeners: list[Callable[[], None]] = []

    def listen(self, fn: Callable[[], None]) -> None:
        """Call `fn` when the queue stops being empty."""
        self.listeners.append(fn)

    def receive(self, p: Packet) -> None:
        """Keep a packet, or drop it."""
        packets = self.packets
        size = len(packets)
        if size >= self.capacity:
            self.drops += 1
            return
        packets.append(p)
        if size >= self.highwater:
            self.highwater = size + 1
        if not size:
            for wake in self.listeners:
                wake()

    def pull(self, port: int) -> Packet | None:
        """Give the oldest packet."""
        return self.packets.popleft() if self.packets else None

    def puller(self, port: int) -> Callable[[], Packet | None]:
        """A function that pulls."""
        packets = self.packets

        def pull() -> Packet | None:
            return packets.popleft() if packets else None

        return pull

    def trace(self, port: int, trace: Trace) -> int | None:
        """Packets pass at once as long as none waits here."""
        trace.blocked = self.packets.__len__
        return 0

    def count_flow(self, packets: int, octets: int) -> None:
        """Each of them was the only one here."""
        self.highwater = max(self.highwater, 1)

    def reset(self) -> None:
        """Throw away what is kept."""
        self.packets.clear()

    READ = {
        "length": shows("length", "packets in the queue"),
        "capacity": shows("capacity", "packets that it can keep"),
        "highwater_length": shows("highwater", "most packets that were in it"),
        "drops": shows("drops", "packets dropped because it was full"),
    }
    WRITE = {"reset": WriteHandler("throw away what is in it", lambda queue, _: queue.reset())}

    @property
    def length(self) -> int:
        """Packets kept."""
        return len(self.packets)
