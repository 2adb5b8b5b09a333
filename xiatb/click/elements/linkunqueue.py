"""From pull to push, as a link does: serialisation, then propagation."""

from __future__ import annotations

from collections import deque
from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_byte_rate, to_seconds
from xiatb.click.context import Timer
from xiatb.click.drain import Drain
from xiatb.click.element import WriteHandler, shows
from xiatb.click.packet import Packet


class LinkUnqueue(Drain):
    """Behaves like a link of LATENCY and BANDWIDTH (octets a second, or as `100Mbps`): a packet is
    pulled when the one before it has left, and arrives its own length divided by BANDWIDTH, and
    LATENCY, later.
    """

    __slots__ = ("arrival", "bandwidth", "departure", "flying", "free_at", "latency")
    ARGS = (
        Arg("LATENCY", to_seconds, "propagation time", REQUIRED),
        Arg("BANDWIDTH", to_byte_rate, "octets a second", REQUIRED),
    )
    READ = {
        "latency": shows("latency", "seconds"),
        "bandwidth": shows("bandwidth", "octets a second"),
        "size": shows("size", "packets on the link"),
    }
    WRITE = {
        "latency": WriteHandler(
            "set it for packets to come", lambda element, value: element.set_latency(value)
        ),
        "bandwidth": WriteHandler("set it for packets to come", lambda e, value: e.set_bandwidth(value)),
    }
    latency: float
    bandwidth: float

    def configure(self, args: dict[str, Any]) -> None:
        """Take latency and bandwidth."""
        super().configure(args)
        self.free_at = float("-inf")
        self.flying: deque[tuple[float, Packet]] = deque()
        self.departure: Timer | None = None
        self.arrival: Timer | None = None

    @property
    def size(self) -> int:
        """Packets on the link."""
        return len(self.flying)

    def set_latency(self, value: str) -> None:
        """Write handler `latency`."""
        self.latency = to_seconds(value.strip())

    def set_bandwidth(self, value: str) -> None:
        """Write handler `bandwidth`."""
        self.bandwidth = to_byte_rate(value.strip())

    def cleanup(self) -> None:
        """Stop the timers."""
        for timer in (self.departure, self.arrival):
            if timer is not None:
                timer.cancel()

    def run(self) -> None:
        """Put packets on the link while it is free."""
        now = self.ctx.now()
        if self.departure is None:
            self.free_at = max(self.free_at, now)
            while self.free_at <= now + 1e-9:
                p = self.in0()
                if p is None:
                    break
                self.free_at += len(p.data) / self.bandwidth
                last = self.flying[-1][0] if self.flying else 0.0
                self.flying.append((max(last, self.free_at + self.latency), p))
            else:
                self.departure = self.timer(self.free_at - now, self._depart)
        if self.flying and self.arrival is None:
            self.arrival = self.timer(self.flying[0][0] - now, self._arrive)

    def _depart(self) -> None:
        self.departure = None
        self.run()

    def _arrive(self) -> None:
        self.arrival = None
        now = self.ctx.now()
        while self.flying and self.flying[0][0] <= now + 1e-9:
            self.out0(self.flying.popleft()[1])
        self.run()
