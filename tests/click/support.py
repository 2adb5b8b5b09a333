"""A composed node in a manual world, and frames for it."""

from __future__ import annotations

from typing import Any

from xiatb.click.compose import PortSpec, compose
from xiatb.click.context import ManualContext, ManualDevice
from xiatb.click.graph import Router
from xiatb.wire import xarp, xcmp, xip
from xiatb.wire.dag import DAG
from xiatb.wire.walk import SELF, Entry
from xiatb.wire.xid import XID, XidType


def ad(number: int) -> XID:
    return XID(XidType.AD, bytes([number]) * 20)


def hid(number: int) -> XID:
    return XID(XidType.HID, bytes([number]) * 20)


def sid(number: int) -> XID:
    return XID(XidType.SID, bytes([number]) * 20)


def mac(number: int) -> bytes:
    return bytes([2, 0, 0, 0, 0, number])


class Node:
    """A node with ports xia0r, eth0 and eth1, HID 1 and AD 1; HID 4 is a neighbour at eth0, HID 5 at eth1."""

    def __init__(self, role: str = "router", mtu: int = 1500) -> None:
        ports = [
            PortSpec("xia0r", "internal", 9000),
            PortSpec("eth0", "link", mtu),
            PortSpec("eth1", "link", mtu),
        ]
        self.router = Router.from_text(compose(role, ports), "node.click")
        self.ctx = ManualContext(hid=hid(1).key, dag=DAG.host(ad(1), hid(1)))
        devices = [self.ctx.add_device(port.name, mac(i + 1), port.mtu) for i, port in enumerate(ports)]
        self.xia0, self.eth0, self.eth1 = devices
        self.router.initialize(self.ctx)
        self.table("AD").set(ad(1).key, Entry(SELF))
        self.table("AD").set(ad(2).key, Entry(2, hid(5).key))
        self.table("HID").set(hid(4).key, Entry(1, hid(4).key))
        self.table("HID").set(hid(5).key, Entry(2, hid(5).key))

    def table(self, kind: str) -> Any:
        return self.router.elements[f"core/rt_{kind}"]

    def know_neighbours(self) -> None:
        self["lc1/xarpq"].insert(hid(4).key, mac(0x44))
        self["lc2/xarpq"].insert(hid(5).key, mac(0x55))

    def __getitem__(self, name: str) -> Any:
        return self.router.elements[name]

    def at(self, device: ManualDevice) -> list[bytes]:
        """What was sent by a port since the last look."""
        sent = list(device.sent)
        device.sent.clear()
        return sent


def frame(xip_packet: bytes, src: bytes = b"\2\0\0\0\0\x99") -> bytes:
    return b"\2\0\0\0\0\2" + src + b"\xc0\xde" + xip_packet


def remote() -> DAG:
    """A service in AD 1 on host 4."""
    return DAG.service(ad(1), hid(4), sid(4))


def datagram(dst: DAG, payload: bytes = b"data", hlim: int = 250) -> bytes:
    return xip.build(xip.NXT_XDGRAM, dst, remote(), payload, hlim=hlim)


def xcmp_in(sent: bytes) -> tuple[xip.Header, xcmp.Message]:
    header = xip.parse(sent, 14)
    assert header.nxt == xip.NXT_XCMP
    return header, xcmp.parse(header.payload)


def is_query(sent: bytes, for_hid: XID) -> bool:
    return sent[12:14] == b"\x99\x90" and xarp.parse(sent, 14).tpa == for_hid.key
