"""Sends all packets one way, which can be changed."""

from __future__ import annotations

from xiatb.click.args import Arg, to_int
from xiatb.click.element import Element, WriteHandler, number, shows
from xiatb.click.packet import Packet


class Switch(Element):
    """Pushes every packet out of output OUTPUT; the handler `switch` changes it. -1 drops."""

    __slots__ = ("output",)
    PORTS = "1/1-"
    PROCESSING = "push"
    ARGS = (Arg("OUTPUT", to_int, "number of the output", 0),)
    READ = {"switch": shows("output", "number of the output")}
    WRITE = {"switch": WriteHandler("change the output", lambda element, value: element.set_output(value))}
    output: int

    def set_output(self, value: str) -> None:
        """Write handler `switch`."""
        self.output = number(value, "switch")

    def receive(self, p: Packet) -> None:
        """Send on."""
        if 0 <= self.output < self.n_out:
            self.outs[self.output](p)
