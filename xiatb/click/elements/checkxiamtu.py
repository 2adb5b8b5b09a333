"""Keeps packets from ports that are too narrow for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xiatb.click.args import Arg, to_count
from xiatb.click.context import Context
from xiatb.click.element import Element, Receiver, WriteHandler, number, shows
from xiatb.click.errors import HandlerError
from xiatb.click.flows import Trace
from xiatb.click.packet import REASON_TOO_BIG, Packet


class CheckXIAMTU(Element):
    """Output 0: XIP packets of at most MTU octets (without the Ethernet header). Larger ones go to
    output 1 with the reason annotation for XCMP "too big", or are dropped when output 1 is not
    connected. MTU 0 lets everything through.
    """

    __slots__ = ("changed", "drops", "mtu", "too_big")
    PORTS = "1/1-2"
    PROCESSING = "push"
    ARGS = (Arg("MTU", to_count, "largest XIP packet, octets", 1500),)
    READ = {"mtu": shows("mtu", "the MTU"), "drops": shows("drops", "packets that were too big")}
    WRITE = {"mtu": WriteHandler("set the MTU", lambda element, value: element.set_mtu(value))}
    mtu: int

    def configure(self, args: dict[str, Any]) -> None:
        """Take the MTU."""
        super().configure(args)
        self.drops = 0
        self.too_big: Receiver | None = None
        self.changed: Callable[[], None] | None = None

    def initialize(self, ctx: Context) -> None:
        """See whether big packets are wanted."""
        self.too_big = self.optional_output(1)

    def set_mtu(self, value: str) -> None:
        """Write handler `mtu`."""
        mtu = number(value, "mtu")
        if mtu < 0:
            raise HandlerError("mtu is negative")
        self.mtu = mtu
        self.forget_flows()
        if self.changed is not None:
            self.changed()

    def receive(self, p: Packet) -> None:
        """Compare."""
        if len(p.data) - p.net <= self.mtu or not self.mtu:
            self.out0(p)
            return
        self.drops += 1
        if self.too_big is not None:
            p.reason = REASON_TOO_BIG
            p.value = self.mtu
            self.too_big(p)

    def trace(self, port: int, trace: Trace) -> int | None:
        """Packets that are not too big pass."""
        if self.mtu:
            trace.limit = min(trace.limit, self.mtu + trace.packet.net)
        return 0
