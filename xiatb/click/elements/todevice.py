"""Frames that leave by a port of the node."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_text
from xiatb.click.context import Context, Device, port_of
from xiatb.click.element import Element, shows, zeroes
from xiatb.click.flows import Trace
from xiatb.click.packet import Packet


class ToDevice(Element):
    """Sends packets, which begin with their Ethernet header, out by the node's port DEVNAME.

    Its input is push or pull. As a pull element it sends whenever the queue before it has something. A
    frame that the system refuses (ENOBUFS, link down) is counted in `drops`. Frames that came of one burst
    of received ones are sent together, at its end.
    """

    __slots__ = ("burst", "bytes", "count", "device", "devname", "drops", "scheduled")
    PORTS = "1/0"
    PROCESSING = "a/h"
    ARGS = (Arg("DEVNAME", to_text, "name of the port", REQUIRED),)
    READ = {
        "count": shows("count", "frames sent"),
        "bytes": shows("bytes", "octets sent"),
        "drops": shows("drops", "frames that the system refused"),
    }
    WRITE = {"reset": zeroes("count", "bytes", "drops")}
    devname: str
    device: Device

    BURST = 64

    def configure(self, args: dict[str, Any]) -> None:
        """Take the port's name."""
        super().configure(args)
        self.count = self.bytes = self.drops = 0
        self.scheduled = False
        self.burst: list[bytearray] = []

    def initialize(self, ctx: Context) -> None:
        """Find the port and, when the input is pull, listen to the queue."""
        self.device = port_of(ctx, self.devname)
        self.sched.senders.append((self.burst, self._send))
        self.listen(self._wake)

    def receive(self, p: Packet) -> None:
        """Send a pushed packet."""
        self.burst.append(p.data)
        if not self.sched.bursting:
            self._send()

    def trace(self, port: int, trace: Trace) -> None:
        """The end of a way."""
        trace.send = self.burst.append

    def _send(self) -> None:
        """Send the frames that are kept."""
        frames = self.burst.copy()
        self.burst.clear()
        if len(frames) == 1:
            refused = [] if self.device.send(frames[0]) else [0]
        else:
            refused = self.device.send_burst(frames)
        self.count += len(frames) - len(refused)
        self.bytes += sum(map(len, frames)) - sum(len(frames[number]) for number in refused)
        self.drops += len(refused)

    def _wake(self) -> None:
        if not self.scheduled:
            self.scheduled = True
            self.sched.wake(self._drain)

    def _drain(self) -> None:
        """Take what the queue holds, a burst at a time."""
        self.scheduled = False
        pull, keep = self.in0, self.burst.append
        for _ in range(self.BURST):
            p = pull()
            if p is None:
                break
            keep(p.data)
        else:
            self._wake()
        if self.burst and not self.sched.bursting:
            self._send()
