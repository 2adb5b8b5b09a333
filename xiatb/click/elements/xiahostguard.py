"""Keeps an end host from being a router."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import Arg, to_count
from xiatb.click.context import Context
from xiatb.click.element import Element, Receiver, shows
from xiatb.click.flows import Trace
from xiatb.click.packet import REASON_UNREACHABLE, Packet


class XIAHostGuard(Element):
    """Output 0: packets that this node sends: made by itself or come from its applications at port
    INTERNAL. Output 1 (or nowhere): packets of others that would only pass through. Routes like a
    host's default would send those straight back and make a loop.
    """

    __slots__ = ("drops", "internal", "refused")
    PORTS = "1/1-2"
    PROCESSING = "push"
    ARGS = (Arg("INTERNAL", to_count, "port of the node's own applications", 0),)
    READ = {"drops": shows("drops", "packets that would only pass through")}
    internal: int

    def configure(self, args: dict[str, Any]) -> None:
        """Take the port."""
        super().configure(args)
        self.drops = 0
        self.refused: Receiver | None = None

    def initialize(self, ctx: Context) -> None:
        """See whether refused packets are wanted."""
        self.refused = self.optional_output(1)

    def receive(self, p: Packet) -> None:
        """Decide by where the packet came from."""
        if p.port < 0 or p.port == self.internal:
            self.out0(p)
            return
        self.drops += 1
        if self.refused is not None:
            p.reason = REASON_UNREACHABLE
            self.refused(p)

    def trace(self, port: int, trace: Trace) -> int | None:
        """Packets of the node's own pass; others are counted one by one."""
        return 0 if trace.packet.port < 0 or trace.packet.port == self.internal else None
