"""Sets the ingress port annotation."""

from __future__ import annotations

from xiatb.click.args import REQUIRED, Arg, to_int
from xiatb.click.element import Element, ReadHandler, WriteHandler, number
from xiatb.click.flows import Trace
from xiatb.click.packet import Packet


class Paint(Element):
    """Sets every packet's annotation `port`, the number of the port it came in by, to COLOR."""

    __slots__ = ("color",)
    ARGS = (Arg("COLOR", to_int, "number to set", REQUIRED),)
    READ = {"color": ReadHandler("the number", lambda element, _: str(element.color))}
    WRITE = {"color": WriteHandler("set the number", lambda element, value: element.set_color(value))}
    color: int

    def set_color(self, value: str) -> None:
        """Write handler `color`."""
        self.color = number(value, "color")

    def receive(self, p: Packet) -> None:
        """Paint and go on."""
        p.port = self.color
        self.out0(p)

    def simple_action(self, p: Packet) -> Packet | None:
        """Paint."""
        p.port = self.color
        return p

    def trace(self, port: int, trace: Trace) -> int | None:
        """As simple_action."""
        self.simple_action(trace.packet)
        return 0
