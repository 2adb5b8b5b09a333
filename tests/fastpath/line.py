"""A - R - B: three namespaces in a row, the engine in the middle one, and sockets to look on."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
from collections.abc import Callable
from types import TracebackType

from tests.node.namespaces import Namespaces
from xiatb.fastpath.engine import Fastpath
from xiatb.fastpath.mirror import Mirror, PortInfo
from xiatb.wire import xip
from xiatb.wire.dag import DAG
from xiatb.wire.walk import SELF, Entry
from xiatb.wire.xid import XID, XidType

MTU = 9000
ETH_P_ALL, ETH_P_XIP = 0x0003, 0xC0DE
FAR, HERE, NOWHERE = (XID(XidType.AD, bytes([number]) * 20) for number in (1, 2, 3))
NEIGHBOUR = XID(XidType.HID, bytes([4]) * 20)
SERVICE = XID(XidType.SID, bytes([5]) * 20)
SOURCE = DAG.host(FAR, NEIGHBOUR)


def packet(dst: DAG, payload: bytes, hlim: int = 250) -> bytes:
    return xip.build(0, dst, SOURCE, payload, hlim=hlim)


class Wire:
    """A packet socket on one interface; `received` waits for frames, `silent` sees that there are none."""

    def __init__(self, device: str, ethertype: int) -> None:
        # Protocol 0 until it is bound: else frames of every interface come in meanwhile (packet(7)).
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
        self.socket.bind((device, ethertype))

    def send(self, frame: bytes) -> None:
        self.socket.send(frame)

    def received(self, count: int = 1, timeout: float = 5.0) -> list[bytes]:
        """At least `count` frames, or what came before there was nothing for `timeout` seconds."""
        frames: list[bytes] = []
        while len(frames) < count and select.select([self.socket], [], [], timeout)[0]:
            frames.append(self.socket.recv(70000))
        return frames

    def waiting(self) -> list[bytes]:
        """What has come by now."""
        return self.received(1 << 30, 0.0)


def interface(device: str) -> tuple[int, bytes]:
    """(number, MAC) of an interface of the present namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16s24x", device.encode())
        mac = fcntl.ioctl(sock, 0x8927, request)[18:24]
    return socket.if_nametoindex(device), mac


def open_tap(device: str) -> int:
    """A new tap in the present namespace: the descriptor that frames are written to."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", device.encode(), 0x1002))
    return fd


class Line:
    """The three namespaces with R's engine: port 0 is xia0r, 1 towards A, 2 towards B; FAR is behind B."""

    def __init__(self, namespaces: Namespaces, engine: Fastpath) -> None:
        self.spaces = namespaces
        self.engine = engine
        self.mirror = Mirror(engine)
        self.ports: dict[int, PortInfo] = {}
        self._closers: list[Callable[[], None]] = []
        for name in "arb":
            namespaces.add(name)
        namespaces.link("a", "eth0", "r", "r1", mtu=MTU)
        namespaces.link("r", "r2", "b", "eth0", mtu=MTU)
        namespaces.link("r", "xia0r", "r", "xia0", mtu=MTU)
        for index, device in enumerate(("xia0r", "r1", "r2")):
            self.add_port(index, device)
        with namespaces.entered("b"):
            self.mac_b = interface("eth0")[1]
        self.mirror.set(HERE.key, Entry(SELF))
        self.mirror.set(SERVICE.key, Entry(SELF, deliver=0))
        self.mirror.set(FAR.key, Entry(2, NEIGHBOUR.key))
        self.mirror.set_neighbour(2, NEIGHBOUR.key, self.mac_b)

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for closer in self._closers:
            closer()

    def add_port(self, index: int, device: str) -> None:
        with self.spaces.entered("r"):
            ifindex, mac = interface(device)
            self.engine.attach(ifindex, index)
        self.ports[index] = PortInfo(ifindex, mac, MTU, internal=index == 0)
        self.mirror.set_port(index, self.ports[index])

    def detach(self, index: int) -> None:
        with self.spaces.entered("r"):
            self.engine.detach(self.ports[index].ifindex)

    def wire(self, name: str, device: str, ethertype: int = ETH_P_XIP) -> Wire:
        with self.spaces.entered(name):
            wire = Wire(device, ethertype)
        self._closers.append(wire.socket.close)
        return wire

    def to_router(self, xip_packet: bytes) -> bytes:
        """The frame with which A sends a packet to R."""
        return self.ports[1].mac + b"\x02aaaaa" + b"\xc0\xde" + xip_packet
