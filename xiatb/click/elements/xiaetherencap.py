"""Puts one fixed Ethernet header on packets."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import Arg, to_mac, to_text
from xiatb.click.context import Context, port_of
from xiatb.click.element import Element
from xiatb.click.flows import Trace
from xiatb.click.packet import ETHER_LEN, Packet


class XIAEtherEncap(Element):
    """Writes an Ethernet header with ethertype 0xC0DE before the XIP header: destination DST, source
    the address of port DEVNAME. For ports that need no XARP, such as the one that leads to the node's
    own applications.
    """

    __slots__ = ("devname", "dst", "header")
    ARGS = (
        Arg("DEVNAME", to_text, "port whose address is the source", ""),
        Arg("DST", to_mac, "destination address", b"\xff" * 6, positional=False),
    )
    devname: str
    dst: bytes

    def configure(self, args: dict[str, Any]) -> None:
        """Take the addresses."""
        super().configure(args)
        self.header = self.dst + bytes(6) + b"\xc0\xde"

    def initialize(self, ctx: Context) -> None:
        """Learn the port's address."""
        if self.devname:
            device = port_of(ctx, self.devname)
            self.header = self.dst + device.mac + b"\xc0\xde"

    def simple_action(self, p: Packet) -> Packet | None:
        """Write the header."""
        p.data[: p.net] = self.header
        p.net = ETHER_LEN
        return p

    def trace(self, port: int, trace: Trace) -> int | None:
        """As simple_action."""
        self.simple_action(trace.packet)
        return 0
