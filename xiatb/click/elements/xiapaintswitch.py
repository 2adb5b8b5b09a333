"""Sorts packets by the port they leave by."""

from __future__ import annotations

from typing import Any

from xiatb.click.element import Element, shows
from xiatb.click.flows import Trace
from xiatb.click.packet import Packet


class XIAPaintSwitch(Element):
    """Pushes a packet out of the output whose number its annotation `out` is; drops it when there is none.

    A route table sets `out` to the egress port of the route.
    """

    __slots__ = ("drops",)
    PORTS = "1/1-"
    PROCESSING = "push"
    READ = {"drops": shows("drops", "packets for a port that does not exist")}

    def configure(self, args: dict[str, Any]) -> None:
        """Nothing to take."""
        self.drops = 0

    def receive(self, p: Packet) -> None:
        """Choose the output."""
        if 0 <= p.out < self.n_out:
            self.outs[p.out](p)
        else:
            self.drops += 1

    def trace(self, port: int, trace: Trace) -> int | None:
        """The output is the annotation's."""
        return trace.packet.out if 0 <= trace.packet.out < self.n_out else None
