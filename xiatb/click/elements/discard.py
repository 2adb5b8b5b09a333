"""Where packets end."""

from __future__ import annotations

from typing import Any

from xiatb.click.context import Context
from xiatb.click.element import Element, shows, zeroes
from xiatb.click.packet import Packet


class Discard(Element):
    """Drops every packet and counts it. With a pull input it empties the queue before it."""

    __slots__ = ("count", "scheduled")
    PORTS = "1/0"
    PROCESSING = "a/h"
    READ = {"count": shows("count", "packets dropped")}
    WRITE = {"reset": zeroes("count")}

    def configure(self, args: dict[str, Any]) -> None:
        """Nothing to take."""
        self.count = 0
        self.scheduled = False

    def initialize(self, ctx: Context) -> None:
        """Listen to the queue before it, if there is one."""
        self.listen(self._wake)

    def receive(self, p: Packet) -> None:
        """Drop."""
        self.count += 1

    def _wake(self) -> None:
        if not self.scheduled:
            self.scheduled = True
            self.sched.wake(self._drain)

    def _drain(self) -> None:
        self.scheduled = False
        for _ in range(64):
            if self.in0() is None:
                return
            self.count += 1
        self._wake()
