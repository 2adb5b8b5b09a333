"""Copies packets to several outputs."""

from __future__ import annotations

from xiatb.click.args import Arg, to_positive
from xiatb.click.element import Element
from xiatb.click.packet import Packet


class Tee(Element):
    """Sends a copy of every packet out of every output; the last output gets the packet itself.

    N, when it is given, is how many outputs there must be.
    """

    __slots__ = ("n",)
    PORTS = "1/1-"
    PROCESSING = "push"
    ARGS = (Arg("N", to_positive, "number of outputs", None),)
    n: int | None

    def ports_wanted(self) -> tuple[int | None, int | None]:
        """N outputs, when N is given."""
        return 1, self.n

    def receive(self, p: Packet) -> None:
        """Copy."""
        outs = self.outs
        for out in outs[:-1]:
            out(p.clone())
        outs[-1](p)
