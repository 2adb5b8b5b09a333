"""A port of a node: one interface with its packet sockets, as the Click graph's `Device`.

A port may exist before its interface does and outlives it: a tap that a hypervisor makes later is
opened when the kernel tells of it, and an interface that was deleted and made again is reopened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from xiatb.click.context import BurstReceiver
from xiatb.node import rtnetlink, sid_filter
from xiatb.node.control_protocol import Json
from xiatb.node.packet_socket import PacketSocket

ETHERTYPES = (0xC0DE, 0x9990, 0x9991)
"""XIP, XARP and XJOIN; the first one's socket also sends."""
IP_ETHERTYPES = (0x0800, 0x0806)
"""IPv4 and ARP, of a port of role "ip"."""


def _discard(frames: list[bytearray]) -> None:
    """Receiver of a port whose graph has no FromDevice for it."""


class Port:
    """One interface of the node. Fulfils the `Device` protocol of xiatb.click.context.

    index: number in the graph (0 is the internal link); name: the kernel's; label: what people call it;
    role: "internal", "link" or "guest".
    """

    def __init__(
        self, index: int, name: str, role: str, mtu: int, loop: asyncio.AbstractEventLoop, label: str = ""
    ) -> None:
        self.index = index
        self.name = name
        self.label = label or name
        self.role = role
        self.mtu = mtu
        self.mac = bytes(6)
        self.ifindex = 0
        self.up = False
        self.unsent = 0
        self._loop = loop
        self._receiver: BurstReceiver = _discard
        self._sockets: list[PacketSocket] = []
        self._program: Sequence[sid_filter.Instruction] | None = None
        self._past = {"rx": 0, "tx": 0, "tx_dropped": 0, "rx_down": 0, "rx_dropped": 0}

    def set_receiver(self, receiver: BurstReceiver) -> None:
        """Gives the function that takes received Ethernet frames, up to 64 that waited together (copies)."""
        self._receiver = receiver

    def update(self, link: rtnetlink.Link | None) -> None:
        """Follows the kernel's view of the interface: opens, reopens or closes the sockets.

        None means that the interface does not exist. Raises DeviceError when a socket cannot be opened.
        """
        if link is None or link.deleted:
            self._close_sockets()
            self.up = False
            self.ifindex = 0
            return
        if link.ifindex != self.ifindex:
            self._close_sockets()
        self.mac = link.mac
        self.mtu = link.mtu
        self.up = link.up
        if not self._sockets:
            self._open()
            self.ifindex = link.ifindex

    def _open(self) -> None:
        for ethertype in IP_ETHERTYPES if self.role == "ip" else ETHERTYPES:
            program = self._program if ethertype == ETHERTYPES[0] else None
            sock = PacketSocket(self.name, ethertype, program=program)
            self._sockets.append(sock)
            self._loop.add_reader(sock.fileno(), self._readable, sock)

    def _readable(self, sock: PacketSocket) -> None:
        try:
            frames = sock.receive_burst()
            if frames:
                self._receiver(frames)
        except OSError:
            # The interface is going away; the link monitor tells and logs whether it comes back.
            self._close_sockets()
            self.up = False
            self.ifindex = 0

    def send(self, data: bytes | bytearray | memoryview) -> bool:
        """Sends one Ethernet frame; False when it was dropped."""
        if not self._sockets:
            self.unsent += 1
            return False
        return self._sockets[0].send(data)

    def send_burst(self, frames: Sequence[bytearray]) -> list[int]:
        """Sends Ethernet frames in order; gives the numbers, from 0, of those that were dropped."""
        if not self._sockets:
            self.unsent += len(frames)
            return list(range(len(frames)))
        return self._sockets[0].send_burst(frames)

    def exclude(self, keys: Sequence[bytes]) -> None:
        """Stops receiving XIP frames whose final intent is one of these XIDs (24-byte keys)."""
        self._program = sid_filter.exclude_intents(keys) if keys else None
        if self._sockets:
            self._sockets[0].set_filter(self._program)

    def describe(self) -> Json:
        """The port as JSON for `status`."""
        return {
            "index": self.index,
            "name": self.label,
            "ifname": self.name,
            "role": self.role,
            "up": self.up,
            "mac": self.mac.hex(":"),
            "mtu": self.mtu,
            **self.counters(),
        }

    def counters(self) -> dict[str, int]:
        """Totals over the life of the port: rx, tx, tx_dropped, rx_dropped, rx_down."""
        total = dict(self._past)
        for sock in self._sockets:
            self._past["rx_dropped"] += sock.kernel_drops()
            for key in ("rx", "tx", "tx_dropped", "rx_down"):
                total[key] += getattr(sock, key)
        total["rx_dropped"] = self._past["rx_dropped"]
        total["tx_dropped"] += self.unsent
        return total

    def add(self, *, rx: int, tx: int) -> None:
        """Counts frames that were forwarded without the sockets."""
        self._past["rx"] += rx
        self._past["tx"] += tx

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())
            for key in ("rx", "tx", "tx_dropped", "rx_down"):
                self._past[key] += getattr(sock, key)
            sock.close()
        self._sockets.clear()

    def close(self) -> None:
        """Closes the sockets."""
        self._close_sockets()
