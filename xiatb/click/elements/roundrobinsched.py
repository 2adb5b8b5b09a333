"""Pulls from its inputs in turn."""

from __future__ import annotations

from typing import Any

from xiatb.click.element import Element
from xiatb.click.packet import Packet


class RoundRobinSched(Element):
    """Each pull takes a packet from the next input that has one, in turn."""

    __slots__ = ("next",)
    PORTS = "1-/1"
    PROCESSING = "pull"

    def configure(self, args: dict[str, Any]) -> None:
        """Nothing to take."""
        self.next = 0

    def pull(self, port: int) -> Packet | None:
        """Ask the inputs, beginning behind the one that gave last."""
        count = self.n_in
        for step in range(count):
            index = (self.next + step) % count
            p = self.ins[index]()
            if p is not None:
                self.next = (index + 1) % count
                return p
        return None
