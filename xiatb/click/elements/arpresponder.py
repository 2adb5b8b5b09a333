"""Answers ARP requests for the node's IPv4 address."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_ip_prefix, to_text
from xiatb.click.context import Context, port_of
from xiatb.click.element import Element, shows, zeroes
from xiatb.click.packet import ETHER_LEN, Packet
from xiatb.errors import WireError
from xiatb.wire import arp


class ARPResponder(Element):
    """Answers ARP requests for IP with the Ethernet address of port DEVNAME; drops everything else."""

    __slots__ = ("answered", "devname", "ip", "mac", "malformed")
    PORTS = "1/1"
    PROCESSING = "push"
    ARGS = (
        Arg("DEVNAME", to_text, "port that the requests came in by", REQUIRED),
        Arg("IP", to_ip_prefix, "own address, with or without prefix length", REQUIRED),
    )
    READ = {
        "answered": shows("answered", "requests answered"),
        "malformed": shows("malformed", "frames that are not ARP for IPv4"),
    }
    WRITE = {"reset": zeroes("answered", "malformed")}
    devname: str
    ip: tuple[bytes, int]

    def configure(self, args: dict[str, Any]) -> None:
        """Take port and address."""
        super().configure(args)
        self.answered = self.malformed = 0
        self.mac = bytes(6)

    def initialize(self, ctx: Context) -> None:
        """Learn the port's address."""
        self.mac = port_of(ctx, self.devname).mac

    def receive(self, p: Packet) -> None:
        """Answer a request."""
        try:
            asked = arp.parse(p.data, ETHER_LEN)
        except WireError:
            self.malformed += 1
            return
        if asked.op != arp.REQUEST or asked.tpa != self.ip[0] or asked.sha[0] & 1:
            return
        self.answered += 1
        reply = arp.Arp(arp.REPLY, self.mac, self.ip[0], asked.sha, asked.spa)
        head = asked.sha + self.mac + arp.ETH_P_ARP.to_bytes(2, "big")
        self.out0(Packet(bytearray(head + reply.pack())))
