"""Makes packets at a rate."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import Arg, to_bool, to_int, to_positive, to_text
from xiatb.click.context import Context, Timer
from xiatb.click.element import Element, WriteHandler, shows, zeroes
from xiatb.click.packet import Packet


class RatedSource(Element):
    """Pushes RATE packets a second with the octets of DATA, LIMIT in all (-1: without end)."""

    __slots__ = ("active", "count", "data", "limit", "rate", "timer_")
    PORTS = "0/1"
    PROCESSING = "push"
    ARGS = (
        Arg(
            "DATA",
            to_text,
            "what is in the packets",
            "Random data in a packet, at least 64 octets long. Well, it is now.",
        ),
        Arg("RATE", to_positive, "packets a second", 10),
        Arg("LIMIT", to_int, "packets in all, -1 without end", -1),
        Arg("ACTIVE", to_bool, "whether it sends from the start", True),
    )
    READ = {
        "count": shows("count", "packets made"),
        "rate": shows("rate", "packets a second"),
        "active": shows("active", "whether it sends"),
    }
    WRITE = {
        "active": WriteHandler("turn it on or off", lambda element, value: element.turn(value)),
        "rate": WriteHandler("set the rate", lambda element, value: element.set_rate(value)),
        "reset": zeroes("count"),
    }
    data: str
    rate: int
    limit: int
    active: bool

    def configure(self, args: dict[str, Any]) -> None:
        """Take data, rate and limit."""
        super().configure(args)
        self.count = 0
        self.timer_: Timer | None = None

    def initialize(self, ctx: Context) -> None:
        """Begin."""
        self._arm()

    def cleanup(self) -> None:
        """Stop the timer."""
        if self.timer_ is not None:
            self.timer_.cancel()

    def turn(self, value: str) -> None:
        """Write handler `active`."""
        self.active = to_bool(value.strip())
        self._arm()

    def set_rate(self, value: str) -> None:
        """Write handler `rate`."""
        self.rate = to_positive(value.strip())

    def _arm(self) -> None:
        if self.active and self.timer_ is None and (self.limit < 0 or self.count < self.limit):
            self.timer_ = self.timer(1 / self.rate, self._send)

    def _send(self) -> None:
        self.timer_ = None
        if not self.active:
            return
        self.count += 1
        self._arm()
        self.out0(Packet(bytearray(self.data.encode("latin-1", "replace")), 0))
