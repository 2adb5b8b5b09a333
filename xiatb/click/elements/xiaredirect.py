"""Sends packets on to where a host has moved."""

from __future__ import annotations

from typing import Any

from xiatb.click.element import Element, shows, zeroes
from xiatb.click.packet import REASON_NONE, REASON_UNREACHABLE, Packet
from xiatb.errors import WireError
from xiatb.wire.dag import DAG
from xiatb.wire.rendezvous import redirected, sought

_ENTRY = 0x7E


class XIARedirect(Element):
    """Input: packets with a reason annotation. Output 0: those that found no route to a host that has moved
    away from here, with the destination rewritten to where it is now; they are to be routed again. Output 1:
    all others.

    The node tells which hosts have moved, and forgets each after some seconds.
    """

    __slots__ = ("moved", "redirected")
    PORTS = "1/2"
    PROCESSING = "push"
    READ = {"redirected": shows("redirected", "packets that were sent on")}
    WRITE = {"reset": zeroes("redirected")}

    def configure(self, args: dict[str, Any]) -> None:
        """Nobody has moved at first."""
        super().configure(args)
        self.redirected = 0
        self.moved: dict[bytes, DAG] = {}

    def receive(self, p: Packet) -> None:
        """Look for the host that the packet could not reach."""
        if not self.moved or p.reason > REASON_UNREACHABLE or not self._readdress(p):
            self.outs[1](p)
            return
        self.redirected += 1
        self.out0(p)

    def _readdress(self, p: Packet) -> bool:
        data, net = p.data, p.net
        count, last = data[net + 5], data[net + 7]
        head = net + 8
        nodes = bytes(data[head : head + 28 * count])
        try:
            hid = sought(nodes, last)
            locator = None if hid is None else self.moved.get(hid)
            if locator is None:
                return False
            wire = redirected(nodes, last, locator)
        except WireError:
            return False
        if wire == _unvisited(nodes):
            return False  # it has been sent on already, in vain
        data[head : head + 28 * count] = wire
        data[net + 5] = len(wire) // 28
        data[net + 7] = _ENTRY
        p.steps = p.path = 0
        p.reason = REASON_NONE
        return True


def _unvisited(nodes: bytes) -> bytes:
    """The node list without the marks of nodes that were visited."""
    clean = bytearray(nodes)
    for at in range(24, len(clean), 28):
        for slot in range(at, at + 4):
            clean[slot] &= 0x7F
    return bytes(clean)
