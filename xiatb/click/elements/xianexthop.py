"""Marks that a packet has arrived at a node of its DAG."""

from __future__ import annotations

from xiatb.click.element import Element
from xiatb.click.flows import Trace
from xiatb.click.packet import Packet


class XIANextHop(Element):
    """The node owns the XID that the present edge leads to: marks the edge visited and moves `last` on to it.

    Plain forwarding does neither (xia-core xianexthop.cc).
    """

    __slots__ = ()
    PROCESSING = "push"

    def receive(self, p: Packet) -> None:
        """Advance."""
        self._advance(p)
        self.out0(p)

    def trace(self, port: int, trace: Trace) -> int | None:
        """As receive."""
        self._advance(trace.packet)
        return 0

    @staticmethod
    def _advance(p: Packet) -> None:
        data, net = p.data, p.net
        last = data[net + 7]
        edge = (net + 4 + 28 * data[net + 5] if last == 0x7E else net + 32 + 28 * last) + p.path
        index = data[edge] & 0x7F
        data[edge] |= 0x80
        data[net + 7] = index
        p.steps += 1
