"""Sets the egress port annotation."""

from __future__ import annotations

from xiatb.click.args import REQUIRED, Arg, to_int
from xiatb.click.element import Element
from xiatb.click.flows import Trace
from xiatb.click.packet import Packet


class XIAPaint(Element):
    """Sets every packet's annotation `out`, the number of the port it leaves by, to PORT."""

    __slots__ = ("port",)
    ARGS = (Arg("PORT", to_int, "number of the port", REQUIRED),)
    port: int

    def receive(self, p: Packet) -> None:
        """Paint and go on."""
        p.out = self.port
        self.out0(p)

    def simple_action(self, p: Packet) -> Packet | None:
        """Paint."""
        p.out = self.port
        return p

    def trace(self, port: int, trace: Trace) -> int | None:
        """As simple_action."""
        self.simple_action(trace.packet)
        return 0
