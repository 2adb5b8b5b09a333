"""Finds the Ethernet addresses of IPv4 neighbours and addresses frames to them."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_ip_prefix, to_positive, to_seconds, to_text
from xiatb.click.element import ReadHandler, listing, shows, zeroes
from xiatb.click.packet import ETHER_LEN, REASON_NEIGHBOUR, Packet
from xiatb.click.waiting import Querier
from xiatb.errors import WireError
from xiatb.wire import arp, ipencap

_BROADCAST = b"\xff" * 6
_NOWHERE = bytes(4)
MAX_ENTRIES = 1024


class ARPQuerier(Querier):
    """Writes the Ethernet header of IPv4 packets: to their destination when that is within IP's prefix, else
    to GATEWAY.

    Input 0: IPv4 packets, whose header begins behind 14 octets for Ethernet's and ends before the XIP header.
    Input 1: ARP frames received; replies to requests of ours teach addresses, and so do requests for IP.
    Output 0: frames to send, ARP requests among them. Output 1: the XIP packets inside those whose neighbour
    is silent or not there, with the reason annotation for XCMP "host unreachable".

    TRIES requests are sent RETRY apart; meanwhile up to 64 packets wait for a neighbour, the oldest go first.
    An address is asked for again after TIMEOUT.
    """

    __slots__ = ("drops", "gateway", "ip", "known", "malformed", "mask", "net", "queries", "timeout")
    ARGS = (
        Arg("DEVNAME", to_text, "port whose address is the source", REQUIRED),
        Arg("IP", to_ip_prefix, "own address with prefix length", REQUIRED),
        Arg("GATEWAY", to_ip_prefix, "router for all other addresses; 0.0.0.0: none", (_NOWHERE, 32)),
        Arg("RETRY", to_seconds, "time between requests", 0.3, positional=False),
        Arg("TRIES", to_positive, "requests before giving up", 3, positional=False),
        Arg("TIMEOUT", to_seconds, "how long an address holds", 60.0, positional=False),
    )
    READ = {
        "table": ReadHandler("addresses known: `IP MAC`, one a line", lambda table, _: table.table_text()),
        "queries": shows("queries", "requests sent"),
        "drops": shows("drops", "packets that could not be addressed"),
        "malformed": shows("malformed", "frames that are not ARP for IPv4"),
    }
    WRITE = {"reset": zeroes("queries", "drops", "malformed")}
    ip: tuple[bytes, int]
    gateway: tuple[bytes, int]
    timeout: float

    def configure(self, args: dict[str, Any]) -> None:
        """Take addresses and times."""
        super().configure(args)
        self.queries = self.drops = self.malformed = 0
        self.mask = 0xFFFFFFFF << (32 - self.ip[1]) & 0xFFFFFFFF
        self.net = int.from_bytes(self.ip[0], "big") & self.mask
        self.known: dict[bytes, tuple[bytes, float]] = {}

    def receive(self, p: Packet) -> None:
        """Address a packet, or keep it until its neighbour is known."""
        target = bytes(p.data[ETHER_LEN + 16 : ETHER_LEN + 20])
        if int.from_bytes(target, "big") & self.mask != self.net:
            target = self.gateway[0]
        found = self.known.get(target)
        if found is not None and self.ctx.now() < found[1]:
            self._address(p, found[0])
        elif target in (_NOWHERE, self.ip[0]):
            self._fail(p)
        else:
            self._wait(target, p)

    def _address(self, p: Packet, mac: bytes) -> None:
        p.data[:ETHER_LEN] = mac + self.mac + ipencap.ETH_P_IP.to_bytes(2, "big")
        self.out0(p)

    def _wait(self, target: bytes, p: Packet) -> None:
        """Keep a packet, unless too many neighbours are sought already."""
        if target not in self.waiting and len(self.waiting) >= MAX_ENTRIES:
            self._fail(p)
        else:
            self.drops += self.waiting.add(target, p)

    def _ask(self, target: bytes) -> None:
        self.queries += 1
        question = arp.Arp(arp.REQUEST, self.mac, self.ip[0], bytes(6), target)
        head = _BROADCAST + self.mac + arp.ETH_P_ARP.to_bytes(2, "big")
        self.out0(Packet(bytearray(head + question.pack())))

    def _fail(self, p: Packet) -> None:
        self.drops += 1
        if self.failed is not None:
            inner = Packet.from_xip(p.xip, p.port)
            inner.reason = REASON_NEIGHBOUR
            self.failed(inner)

    def _learn(self, p: Packet) -> None:
        """An ARP frame came in. Replies that nobody asked for teach nothing."""
        try:
            message = arp.parse(p.data, ETHER_LEN)
        except WireError:
            self.malformed += 1
            return
        near = int.from_bytes(message.spa, "big") & self.mask == self.net
        if message.sha[0] & 1 or not near or message.spa == self.ip[0] or message.tpa != self.ip[0]:
            return
        if message.op == arp.REPLY and message.spa not in self.waiting:
            return
        if message.spa not in self.known and len(self.known) >= MAX_ENTRIES:
            del self.known[next(iter(self.known))]
        self.known[message.spa] = (message.sha, self.ctx.now() + self.timeout)
        for waiting in self.waiting.take(message.spa):
            self._address(waiting, message.sha)

    def table_text(self) -> str:
        """`IP MAC`, one a line."""
        now = self.ctx.now()
        rows = sorted((ip, mac) for ip, (mac, until) in self.known.items() if now < until)
        return listing([f"{'.'.join(map(str, ip))} {mac.hex(':')}" for ip, mac in rows])
