"""Says where the XIP header of packets begins."""

from __future__ import annotations

from xiatb.click.args import Arg, to_count
from xiatb.click.element import Element
from xiatb.click.packet import ETHER_LEN, Packet


class MarkXIAHeader(Element):
    """Sets the annotation `net`, the offset of the XIP header, to OFFSET (14: behind an Ethernet header)."""

    __slots__ = ("offset",)
    ARGS = (Arg("OFFSET", to_count, "octets before the XIP header", ETHER_LEN),)
    offset: int

    def receive(self, p: Packet) -> None:
        """Mark and go on."""
        p.net = self.offset
        self.out0(p)

    def simple_action(self, p: Packet) -> Packet | None:
        """Mark."""
        p.net = self.offset
        return p
