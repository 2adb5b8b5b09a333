"""Makes packets as fast as they go."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import Arg, to_bool, to_int, to_positive, to_text
from xiatb.click.context import Context
from xiatb.click.element import Element, WriteHandler, shows, zeroes
from xiatb.click.packet import Packet


class InfiniteSource(Element):
    """Pushes packets with the octets of DATA, BURST a task, LIMIT in all (-1: without end)."""

    __slots__ = ("active", "burst", "count", "data", "limit")
    PORTS = "0/1"
    PROCESSING = "push"
    ARGS = (
        Arg(
            "DATA",
            to_text,
            "what is in the packets",
            "Random data in a packet, at least 64 octets long. Well, it is now.",
        ),
        Arg("LIMIT", to_int, "packets in all, -1 without end", -1),
        Arg("BURST", to_positive, "packets in one go", 1),
        Arg("ACTIVE", to_bool, "whether it sends from the start", True),
    )
    READ = {"count": shows("count", "packets made"), "active": shows("active", "whether it sends")}
    WRITE = {
        "active": WriteHandler("turn it on or off", lambda element, value: element.turn(value)),
        "reset": zeroes("count"),
    }
    data: str
    limit: int
    burst: int
    active: bool

    def configure(self, args: dict[str, Any]) -> None:
        """Take data and limits."""
        super().configure(args)
        self.count = 0

    def initialize(self, ctx: Context) -> None:
        """Begin."""
        self.sched.wake(self._run)

    def turn(self, value: str) -> None:
        """Write handler `active`."""
        was, self.active = self.active, to_bool(value.strip())
        if self.active and not was:
            self.sched.wake(self._run)

    def _run(self) -> None:
        octets = self.data.encode("latin-1", "replace")
        for _ in range(self.burst):
            if not self.active or 0 <= self.limit <= self.count:
                return
            self.count += 1
            self.out0(Packet(bytearray(octets), 0))
        self.sched.wake(self._run)
