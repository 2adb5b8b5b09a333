"""Puts octets before packets."""

from __future__ import annotations

from xiatb.click.args import REQUIRED, Arg, to_count
from xiatb.click.element import Element
from xiatb.click.packet import Packet


class Unstrip(Element):
    """Puts LENGTH zero octets before the packet (Click gives back the octets that were stripped; these
    are new).
    """

    __slots__ = ("length",)
    ARGS = (Arg("LENGTH", to_count, "octets", REQUIRED),)
    length: int

    def simple_action(self, p: Packet) -> Packet | None:
        """Add."""
        p.data[:0] = bytes(self.length)
        p.net += self.length
        return p
