"""A connection that nothing comes through."""

from __future__ import annotations

from xiatb.click.element import Element
from xiatb.click.packet import Packet


class Idle(Element):
    """Never gives a packet and drops what it gets; connect unused ports to it."""

    __slots__ = ()
    PORTS = "-/-"
    PROCESSING = "a/a"

    def receive(self, p: Packet) -> None:
        """Drop."""

    def pull(self, port: int) -> Packet | None:
        """Nothing."""
        return None
