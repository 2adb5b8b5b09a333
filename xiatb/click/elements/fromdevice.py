"""Frames received at a port of the node."""

from __future__ import annotations

from functools import partial
from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_text
from xiatb.click.context import Context, port_of
from xiatb.click.element import Element, shows, zeroes
from xiatb.click.packet import ETHER_LEN, Packet


class FromDevice(Element):
    """Pushes every Ethernet frame that arrives at the node's port DEVNAME.

    The packets' annotation `port` stays -1: XIAPaint or the line card says which port it was. Frames
    shorter than an Ethernet header are counted in `malformed` and dropped.
    """

    __slots__ = ("bytes", "count", "devname", "malformed")
    PORTS = "0/1"
    PROCESSING = "push"
    ARGS = (Arg("DEVNAME", to_text, "name of the port", REQUIRED),)
    READ = {
        "count": shows("count", "frames received"),
        "bytes": shows("bytes", "octets received"),
        "malformed": shows("malformed", "frames too short to be Ethernet"),
    }
    WRITE = {"reset": zeroes("count", "bytes", "malformed")}
    devname: str

    def configure(self, args: dict[str, Any]) -> None:
        """Take the port's name."""
        super().configure(args)
        self.count = self.bytes = self.malformed = 0

    def initialize(self, ctx: Context) -> None:
        """Ask the port for its frames."""
        device = port_of(ctx, self.devname)
        receive = self.targets[0][0].shortcut(self) or self.receive_frames
        device.set_receiver(partial(self.sched.burst, receive))

    def receive_frames(self, frames: list[bytearray]) -> None:
        """Frames came in together."""
        for data in frames:
            self.receive_frame(data)

    def receive_frame(self, data: bytearray) -> None:
        """A frame came in; `data` is ours from now on."""
        self.count += 1
        size = len(data)
        self.bytes += size
        if size < ETHER_LEN:
            self.malformed += 1
            return
        self.sched.enter(self.out0, Packet(data))

    def count_flow(self, packets: int, octets: int) -> None:
        """Packets that came in here."""
        self.count += packets
        self.bytes += octets
