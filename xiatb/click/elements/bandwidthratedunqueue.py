"""From pull to push, at a rate in octets."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_byte_rate, to_count
from xiatb.click.context import Timer
from xiatb.click.drain import Drain
from xiatb.click.element import WriteHandler, shows


class BandwidthRatedUnqueue(Drain):
    """Pulls packets at RATE (octets a second, or as `100Mbps`), up to BURST octets at once.

    Octets are those of the frame with its Ethernet header.
    """

    __slots__ = ("burst", "free_at", "rate", "timer_")
    ARGS = (
        Arg("RATE", to_byte_rate, "octets a second", REQUIRED),
        Arg("BURST", to_count, "octets that may go at once", 0),
    )
    READ = {"rate": shows("rate", "octets a second")}
    WRITE = {"rate": WriteHandler("set the rate", lambda element, value: element.set_rate(value))}
    rate: float
    burst: int

    def configure(self, args: dict[str, Any]) -> None:
        """Take the rate."""
        super().configure(args)
        self.free_at = float("-inf")
        self.timer_: Timer | None = None

    def set_rate(self, value: str) -> None:
        """Write handler `rate`."""
        self.rate = to_byte_rate(value.strip())

    def cleanup(self) -> None:
        """Stop the timer."""
        if self.timer_ is not None:
            self.timer_.cancel()

    def run(self) -> None:
        """Send what the rate allows, come back for the rest."""
        if self.timer_ is not None:
            return
        now = self.ctx.now()
        slack = self.burst / self.rate
        self.free_at = max(self.free_at, now - slack)
        while self.free_at <= now + 1e-9:
            p = self.in0()
            if p is None:
                return
            self.free_at += len(p.data) / self.rate
            self.out0(p)
        self.timer_ = self.timer(self.free_at - now, self._resume)

    def _resume(self) -> None:
        self.timer_ = None
        self.run()
