"""From pull to push, later."""

from __future__ import annotations

from collections import deque
from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_positive, to_seconds
from xiatb.click.context import Timer
from xiatb.click.drain import Drain
from xiatb.click.element import WriteHandler, shows
from xiatb.click.packet import Packet


class DelayUnqueue(Drain):
    """Pulls packets at once and pushes each on DELAY later, in order. At most LIMIT are under way;
    further ones stay in the queue before it.
    """

    __slots__ = ("delay", "flying", "limit", "timer_")
    ARGS = (
        Arg("DELAY", to_seconds, "how long each packet is held", REQUIRED),
        Arg("LIMIT", to_positive, "packets under way", 100_000, positional=False),
    )
    READ = {"delay": shows("delay", "seconds that each packet is held")}
    WRITE = {
        "delay": WriteHandler("set it for packets to come", lambda element, value: element.set_delay(value))
    }
    delay: float
    limit: int

    def configure(self, args: dict[str, Any]) -> None:
        """Take the delay."""
        super().configure(args)
        self.flying: deque[tuple[float, Packet]] = deque()
        self.timer_: Timer | None = None

    def set_delay(self, value: str) -> None:
        """Write handler `delay`."""
        self.delay = to_seconds(value.strip())

    def cleanup(self) -> None:
        """Stop the timer."""
        if self.timer_ is not None:
            self.timer_.cancel()

    def run(self) -> None:
        """Take what is there."""
        due = self.ctx.now() + self.delay
        while len(self.flying) < self.limit:
            p = self.in0()
            if p is None:
                break
            self.flying.append((due, p))
        self._arm()

    def _arm(self) -> None:
        if self.flying and self.timer_ is None:
            self.timer_ = self.timer(self.flying[0][0] - self.ctx.now(), self._release)

    def _release(self) -> None:
        self.timer_ = None
        now = self.ctx.now()
        while self.flying and self.flying[0][0] <= now + 1e-9:
            self.out0(self.flying.popleft()[1])
        self.run()
