"""Counts packets and octets."""

from __future__ import annotations

from typing import Any

from xiatb.click.context import Context
from xiatb.click.element import Element, ReadHandler, WriteHandler, shows
from xiatb.click.packet import Packet


class Counter(Element):
    """Counts the packets that go through it, their octets, and their rate.

    The rate is the mean since it was last read, or since the start.
    """

    __slots__ = ("byte_count", "count", "seen", "since")

    def configure(self, args: dict[str, Any]) -> None:
        """Nothing to take."""
        self.count = self.byte_count = self.seen = 0
        self.since = 0.0

    def initialize(self, ctx: Context) -> None:
        """The rate counts from now."""
        self.since = ctx.now()

    def receive(self, p: Packet) -> None:
        """Count and go on."""
        self.count += 1
        self.byte_count += len(p.data)
        self.out0(p)

    def simple_action(self, p: Packet) -> Packet | None:
        """Count."""
        self.count += 1
        self.byte_count += len(p.data)
        return p

    def rate(self) -> float:
        """Packets a second since the last call."""
        now = self.ctx.now()
        passed, packets = now - self.since, self.count - self.seen
        self.since, self.seen = now, self.count
        return packets / passed if passed > 0 else 0.0

    def reset(self) -> None:
        """Begin at 0."""
        self.count = self.byte_count = self.seen = 0
        self.since = self.ctx.now()

    READ = {
        "count": shows("count", "packets that went through"),
        "byte_count": shows("byte_count", "octets of those packets"),
        "rate": ReadHandler(
            "packets a second since the last read", lambda counter, _: f"{counter.rate():.2f}"
        ),
    }
    WRITE = {
        "reset": WriteHandler("set the counters to 0", lambda counter, _: counter.reset()),
        "reset_counts": WriteHandler("the same", lambda counter, _: counter.reset()),
    }
