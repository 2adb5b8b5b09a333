"""Has the packet arrived, or does its DAG go on from here?"""

from __future__ import annotations

from xiatb.click.element import Element
from xiatb.click.flows import Trace
from xiatb.click.packet import Packet


class XIACheckDest(Element):
    """Output 0: the last visited node is the final intent, or one of an endpoint type (SID, CID, NCID,
    ICID), so the packet is for something on this node. Output 1: its DAG goes on from the last visited
    node.
    """

    __slots__ = ()
    PORTS = "1/2"
    PROCESSING = "push"

    def receive(self, p: Packet) -> None:
        """Decide."""
        self.outs[self._output(p)](p)

    def trace(self, port: int, trace: Trace) -> int | None:
        """As receive."""
        return self._output(trace.packet)

    @staticmethod
    def _output(p: Packet) -> int:
        data, net = p.data, p.net
        last = data[net + 7]
        if last + 1 == data[net + 5]:
            return 0
        node = net + 8 + 28 * last
        kind = data[node + 3]
        final = kind in (0x12, 0x13, 0x31, 0x32) and not (data[node] or data[node + 1] or data[node + 2])
        return 0 if final else 1
