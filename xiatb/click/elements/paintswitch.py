"""Sorts packets by the port they came in by."""

from __future__ import annotations

from typing import Any

from xiatb.click.element import Element, shows
from xiatb.click.flows import Trace
from xiatb.click.packet import Packet


class PaintSwitch(Element):
    """Pushes a packet out of the output whose number its annotation `port` is; drops it when there is
    none.
    """

    __slots__ = ("drops",)
    PORTS = "1/1-"
    PROCESSING = "push"
    READ = {"drops": shows("drops", "packets with a number that has no output")}

    def configure(self, args: dict[str, Any]) -> None:
        """Nothing to take."""
        self.drops = 0

    def receive(self, p: Packet) -> None:
        """Choose the output."""
        if 0 <= p.port < self.n_out:
            self.outs[p.port](p)
        else:
            self.drops += 1

    def trace(self, port: int, trace: Trace) -> int | None:
        """The output is the annotation's."""
        return trace.packet.port if 0 <= trace.packet.port < self.n_out else None
