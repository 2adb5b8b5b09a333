"""Packets that leave the graph for the node's own software."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_text
from xiatb.click.element import Element, shows, zeroes
from xiatb.click.packet import Packet


class ToHost(Element):
    """Gives packets to the node on CHANNEL: `xcmp` (echo replies and errors), `routing`, `service`
    (datagrams for the node itself), `join` (whole frames).
    """

    __slots__ = ("channel", "count")
    PORTS = "1/0"
    PROCESSING = "push"
    ARGS = (Arg("CHANNEL", to_text, "name that the node knows it by", REQUIRED),)
    READ = {"count": shows("count", "packets given to the node")}
    WRITE = {"reset": zeroes("count")}
    channel: str

    def configure(self, args: dict[str, Any]) -> None:
        """Take the channel's name."""
        super().configure(args)
        self.count = 0

    def receive(self, p: Packet) -> None:
        """Hand over."""
        self.count += 1
        self.ctx.to_host(self.channel, p)
