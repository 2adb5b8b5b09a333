"""Pulls from its inputs in order of priority."""

from __future__ import annotations

from xiatb.click.element import Element
from xiatb.click.packet import Packet


class PrioSched(Element):
    """Each pull takes a packet from the input with the lowest number that has one."""

    __slots__ = ()
    PORTS = "1-/1"
    PROCESSING = "pull"

    def pull(self, port: int) -> Packet | None:
        """Ask the inputs in order."""
        for pull in self.ins:
            p = pull()
            if p is not None:
                return p
        return None
