"""Separates what is for applications from what is for the node itself."""

from __future__ import annotations

from xiatb.click.element import Element
from xiatb.click.flows import Trace
from xiatb.click.packet import Packet


class XIADeliver(Element):
    """Output 0: packets for an XID whose owner sits behind a port (annotation `out` is that port).
    Output 1: packets for the node itself.
    """

    __slots__ = ()
    PORTS = "1/2"
    PROCESSING = "push"

    def receive(self, p: Packet) -> None:
        """Decide."""
        if p.out >= 0:
            self.out0(p)
        else:
            self.outs[1](p)

    def trace(self, port: int, trace: Trace) -> int | None:
        """As receive."""
        return 0 if trace.packet.out >= 0 else 1
