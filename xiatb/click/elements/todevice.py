"""Frames that leave by a port of the node."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_text
from xiatb.click.context import Context, Device
from xiatb.click.element import Element, shows, zeroes
from xiatb.click.errors import ConfigError
from xiatb.click.packet import Packet


class ToDevice(Element):
    """Sends packets, which begin with their Ethernet header, out by the node's port DEVNAME.

    Its input is push or pull. As a pull element it sends whenever the queue before it has something. A
    frame that the system refuses (ENOBUFS, link down) is counted in `drops`.
    """

    __slots__ = ("bytes", "count", "device", "devname", "drops", "scheduled")
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

    def initialize(self, ctx: Context) -> None:
        """Find the port and, when the input is pull, listen to the queue."""
        device = ctx.device(self.devname)
        if device is None:
            raise ConfigError(f"the node has no port '{self.devname}'")
        self.device = device
        self.listen(self._wake)

    def receive(self, p: Packet) -> None:
        """Send a pushed packet."""
        data = p.data
        if self.device.send(data):
            self.count += 1
            self.bytes += len(data)
        else:
            self.drops += 1

    def _wake(self) -> None:
        if not self.scheduled:
            self.scheduled = True
            self.sched.wake(self._drain)

    def _drain(self) -> None:
        """Send what the queue holds, a burst at a time."""
        self.scheduled = False
        pull, send = self.in0, self.device.send
        for _ in range(self.BURST):
            p = pull()
            if p is None:
                return
            data = p.data
            if send(data):
                self.count += 1
                self.bytes += len(data)
            else:
                self.drops += 1
        self._wake()
