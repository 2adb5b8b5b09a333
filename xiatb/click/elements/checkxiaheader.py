"""Lets only well-formed XIP packets through."""

from __future__ import annotations

from typing import Any

from xiatb.click.context import Context
from xiatb.click.element import Element, ReadHandler, Receiver, WriteHandler, listing, shows
from xiatb.click.flows import Trace
from xiatb.click.packet import Packet

_REASONS = ("version", "nodes", "truncated", "last")


class CheckXIAHeader(Element):
    """Checks XIP headers: version 1, 1 to 20 nodes in both DAGs, nothing missing, last visited node in range.

    Octets behind the packet (Ethernet padding) are cut off. What is wrong is counted by reason and
    dropped, or goes to output 1 when that is connected. Elements behind it may rely on all of this. The
    rules are those of `xiatb.wire.xip.parse_fast`.
    """

    __slots__ = ("bad", "count", "drops", "reasons")
    PORTS = "1/1-2"
    PROCESSING = "push"

    def configure(self, args: dict[str, Any]) -> None:
        """Nothing to take."""
        self.count = self.drops = 0
        self.reasons = dict.fromkeys(_REASONS, 0)
        self.bad: Receiver | None = None

    def initialize(self, ctx: Context) -> None:
        """See whether bad packets are wanted."""
        self.bad = self.optional_output(1)

    def receive(self, p: Packet) -> None:
        """Check a packet."""
        self.count += 1
        data, net = p.data, p.net
        size = len(data) - net
        if size < 8:
            self._drop(p, "truncated")
            return
        dnode, snode, last = data[net + 5], data[net + 6], data[net + 7]
        if data[net] != 1:
            self._drop(p, "version")
            return
        if not 0 < dnode <= 20 or not 0 < snode <= 20:
            self._drop(p, "nodes")
            return
        need = 8 + 28 * (dnode + snode) + (data[net + 2] << 8) + data[net + 3]
        if size < need:
            self._drop(p, "truncated")
            return
        if last >= dnode and last != 0x7E:
            self._drop(p, "last")
            return
        if size > need:
            del data[net + need :]
        p.steps = 0
        self.out0(p)

    def trace(self, port: int, trace: Trace) -> int | None:
        """Version and length of a flow's packets are known to be right."""
        data, net = trace.packet.data, trace.packet.net
        dnode, snode, last = data[net + 5], data[net + 6], data[net + 7]
        trace.packet.steps = 0
        good = 0 < dnode <= 20 and 0 < snode <= 20 and (last < dnode or last == 0x7E)
        return 0 if good and len(data) >= net + 8 + 28 * (dnode + snode) else None

    def count_flow(self, packets: int, octets: int) -> None:
        """Good packets."""
        self.count += packets

    def _drop(self, p: Packet, reason: str) -> None:
        self.drops += 1
        self.reasons[reason] += 1
        if self.bad is not None:
            self.bad(p)

    def details(self) -> str:
        """One line a reason."""
        return listing(f"{reason}\t{count}" for reason, count in self.reasons.items())

    def reset(self) -> None:
        """Begin at 0."""
        self.count = self.drops = 0
        self.reasons = dict.fromkeys(_REASONS, 0)

    READ = {
        "count": shows("count", "packets checked"),
        "drops": shows("drops", "packets found bad"),
        "drop_details": ReadHandler(
            "bad packets by reason, one a line", lambda element, _: element.details()
        ),
    }
    WRITE = {"reset": WriteHandler("set the counters to 0", lambda element, _: element.reset())}
