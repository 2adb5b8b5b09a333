"""Takes XIP packets out of IPv4."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_ip_prefix
from xiatb.click.context import Context
from xiatb.click.element import Element, Receiver, shows, zeroes
from xiatb.click.packet import ETHER_LEN, Packet
from xiatb.errors import WireError
from xiatb.wire import ipencap


class XIAIPDecap(Element):
    """Checks the IPv4 and UDP headers of frames to IP and gives what is behind UDP port 13781 to output 0, as
    a frame with an empty Ethernet header. Packets for other addresses or ports, fragments and broken ones go
    to output 1, or are dropped.
    """

    __slots__ = ("count", "drops", "ip", "other")
    PORTS = "1/1-2"
    PROCESSING = "push"
    ARGS = (Arg("IP", to_ip_prefix, "own address, with or without prefix length", REQUIRED),)
    READ = {"count": shows("count", "XIP packets taken out"), "drops": shows("drops", "all other packets")}
    WRITE = {"reset": zeroes("count", "drops")}
    ip: tuple[bytes, int]

    def configure(self, args: dict[str, Any]) -> None:
        """Take the address."""
        super().configure(args)
        self.count = self.drops = 0
        self.other: Receiver | None = None

    def initialize(self, ctx: Context) -> None:
        """See whether other packets are wanted."""
        self.other = self.optional_output(1)

    def receive(self, p: Packet) -> None:
        """Check and take out."""
        try:
            inside = ipencap.parse(p.data, ETHER_LEN)
            if inside.dst != self.ip[0]:
                raise WireError("for another")
        except WireError:
            self.drops += 1
            if self.other is not None:
                self.other(p)
            return
        self.count += 1
        data = bytearray(ETHER_LEN)
        data += memoryview(p.data)[inside.start : inside.end]
        self.out0(Packet(data, ETHER_LEN, p.port))
