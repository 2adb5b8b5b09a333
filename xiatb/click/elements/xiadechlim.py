"""Counts hops down."""

from __future__ import annotations

from typing import Any

from xiatb.click.context import Context
from xiatb.click.element import Element, Receiver, shows
from xiatb.click.flows import Trace
from xiatb.click.packet import REASON_HLIM, Packet


class XIADecHLIM(Element):
    """Decrements the hop limit of forwarded packets. One whose limit is used up goes to output 1 with
    the reason annotation for XCMP "time exceeded", or is dropped when output 1 is not connected.
    """

    __slots__ = ("drops", "expired")
    PORTS = "1/1-2"
    PROCESSING = "push"
    READ = {"drops": shows("drops", "packets whose hop limit was used up")}

    def configure(self, args: dict[str, Any]) -> None:
        """Nothing to take."""
        self.drops = 0
        self.expired: Receiver | None = None

    def initialize(self, ctx: Context) -> None:
        """See whether expired packets are wanted."""
        self.expired = self.optional_output(1)

    def receive(self, p: Packet) -> None:
        """Count down."""
        at = p.net + 4
        data = p.data
        if data[at] > 1:
            data[at] -= 1
            self.out0(p)
            return
        self.drops += 1
        if self.expired is not None:
            p.reason = REASON_HLIM
            self.expired(p)

    def trace(self, port: int, trace: Trace) -> int | None:
        """Packets with hops to spare pass."""
        trace.hops += 1
        return 0
