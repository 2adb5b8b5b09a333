"""Packets that the node itself puts into the graph."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import Arg, to_text
from xiatb.click.element import Element, shows, zeroes
from xiatb.click.packet import Packet


class FromHost(Element):
    """Pushes the packets that the node injects with `Router.inject(CHANNEL, packet)`, or under the
    element's name.
    """

    __slots__ = ("channel", "count", "inject_channel")
    PORTS = "0/1"
    PROCESSING = "push"
    ARGS = (Arg("CHANNEL", to_text, "name for the node; the element's own name when not given", ""),)
    READ = {"count": shows("count", "packets that the node put in")}
    WRITE = {"reset": zeroes("count")}
    channel: str

    def configure(self, args: dict[str, Any]) -> None:
        """Take the channel's name."""
        super().configure(args)
        self.inject_channel = self.channel or self.name
        self.count = 0

    def receive(self, p: Packet) -> None:
        """A packet of the node's."""
        self.count += 1
        self.out0(p)
