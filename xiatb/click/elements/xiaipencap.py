"""Puts XIP packets into IPv4."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_ip_prefix
from xiatb.click.context import Context
from xiatb.click.element import Element, Receiver, shows, zeroes
from xiatb.click.packet import ETHER_LEN, REASON_UNREACHABLE, Packet
from xiatb.errors import WireError
from xiatb.wire import ipencap
from xiatb.wire.xid import address_of


class XIAIPEncap(Element):
    """Writes IPv4 and UDP headers (port 13781) before the XIP header: from IP to the address in the 4ID that
    the annotation `nexthop` holds. Packets without one go to output 1 with the reason annotation for XCMP, or
    are dropped. The Ethernet header is left for ARPQuerier.
    """

    __slots__ = ("count", "drops", "failed", "ident", "ip")
    PORTS = "1/1-2"
    PROCESSING = "push"
    ARGS = (Arg("IP", to_ip_prefix, "own address, with or without prefix length", REQUIRED),)
    READ = {"count": shows("count", "packets sent"), "drops": shows("drops", "packets without a 4ID")}
    WRITE = {"reset": zeroes("count", "drops")}
    ip: tuple[bytes, int]

    def configure(self, args: dict[str, Any]) -> None:
        """Take the address."""
        super().configure(args)
        self.count = self.drops = self.ident = 0
        self.failed: Receiver | None = None

    def initialize(self, ctx: Context) -> None:
        """See whether failures are wanted."""
        self.failed = self.optional_output(1)

    def receive(self, p: Packet) -> None:
        """Encapsulate."""
        target = None if p.nexthop is None else address_of(p.nexthop)
        xip = memoryview(p.data)[p.net :]
        try:
            if target is None:
                raise WireError("no 4ID")
            head = ipencap.headers(self.ip[0], target, len(xip), self.ident)
        except WireError:
            self.drops += 1
            if self.failed is not None:
                p.reason = REASON_UNREACHABLE
                self.failed(p)
            return
        self.ident = (self.ident + 1) & 0xFFFF
        self.count += 1
        whole = bytearray(ETHER_LEN)
        whole += head
        whole += xip
        out = Packet(whole, ETHER_LEN + len(head), p.port)
        out.nexthop = p.nexthop
        self.out0(out)
