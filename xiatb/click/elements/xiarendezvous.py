"""Sends packets on to where their host is now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xiatb.click.element import Element, shows, zeroes
from xiatb.click.packet import REASON_UNREACHABLE, Packet
from xiatb.errors import WireError
from xiatb.wire.dag import DAG
from xiatb.wire.rendezvous import redirected, sought
from xiatb.wire.xid import SID_RENDEZVOUS

_KEY = SID_RENDEZVOUS.key


class XIARendezvous(Element):
    """Input: packets for the node itself. Output 0: those that do not stand at the rendezvous SID
    (SID:1110..1116). Output 1: those that do, with the destination rewritten to where the HID behind that SID
    is now; they are to be routed again. Output 2: those whose host is not known (reason annotation for XCMP).

    Like xia-core's rendezvous daemon on its data SID; the node tells where hosts are.
    """

    __slots__ = ("locate", "redirected", "unknown")
    PORTS = "1/3"
    PROCESSING = "push"
    READ = {
        "redirected": shows("redirected", "packets that were sent on"),
        "unknown": shows("unknown", "packets for hosts that are not known"),
    }
    WRITE = {"reset": zeroes("redirected", "unknown")}

    def configure(self, args: dict[str, Any]) -> None:
        """Nobody is known at first."""
        super().configure(args)
        self.redirected = self.unknown = 0
        self.locate: Callable[[bytes], DAG | None] = _nowhere

    def receive(self, p: Packet) -> None:
        """Look where the packet stands."""
        data, net = p.data, p.net
        count, last = data[net + 5], data[net + 7]
        node = net + 8 + 28 * last
        if last >= count or data[node : node + 24] != _KEY:
            self.out0(p)
            return
        head = net + 8
        wire = self._redirected(bytes(data[head : head + 28 * count]), last)
        if wire is None:
            self.unknown += 1
            p.reason = REASON_UNREACHABLE
            self.outs[2](p)
            return
        data[head : head + 28 * count] = wire
        data[net + 5] = len(wire) // 28
        data[net + 7] = 0x7E
        p.steps = p.path = 0
        self.redirected += 1
        self.outs[1](p)

    def _redirected(self, nodes: bytes, at: int) -> bytes | None:
        try:
            hid = sought(nodes, at)
            locator = None if hid is None else self.locate(hid)
            return None if locator is None else redirected(nodes, at, locator)
        except WireError:
            return None


def _nowhere(hid_key: bytes) -> DAG | None:
    return None
