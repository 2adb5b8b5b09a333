from __future__ import annotations

import struct

import pytest

from tests.node.namespaces import Namespaces, ip, needs_root
from xiatb.node import internal_link, rtnetlink


def message(kind: int, attributes: bytes, flags: int = 0x41, index: int = 7) -> bytes:
    body = struct.pack("=BxHiII", 0, 1, index, flags, 0) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def test_parses_notify_peers() -> None:
    data = message(
        16, attribute(3, b"eth0\0") + attribute(4, struct.pack("=I", 9000)) + attribute(1, b"\2" * 6)
    )
    data += message(16, attribute(3, b"eth0\0") + attribute(44, struct.pack("=I", 4)), flags=1)
    data += message(17, attribute(3, b"eth1\0"), index=8)
    first, second, third = rtnetlink.parse_messages(data)
    assert (first.ifindex, first.name, first.mtu, first.mac, first.up) == (7, "eth0", 9000, b"\2" * 6, True)
    assert second.event == rtnetlink.NOTIFY_PEERS and not second.up
    assert third.deleted and third.name == "eth1"


def test_broken_messages_are_ignored() -> None:
    good = message(16, attribute(3, b"eth0\0"))
    for cut in range(len(good)):
        assert rtnetlink.parse_messages(good[:cut]) == []
    assert rtnetlink.parse_messages(message(16, struct.pack("=HH", 3, 1)))[0].name == ""
    assert rtnetlink.parse_messages(struct.pack("=IHHII", 16, 16, 0, 0, 0)) == []


@needs_root
@pytest.mark.netns
def test_veth_and_monitor(namespaces: Namespaces) -> None:
    namespaces.add("a")
    with namespaces.entered("a"):
        monitor = rtnetlink.LinkMonitor()
        try:
            assert rtnetlink.get_link("xia0") is None
            internal_link.ensure_internal_link(9000)
            internal_link.ensure_internal_link(4000)
            link = rtnetlink.get_link("xia0")
            assert link is not None and link.up and link.mtu == 4000 and len(link.mac) == 6
            names = {found.name for found in monitor.drain()[0]}
            assert {"xia0", "xia0r"} <= names
            ip("-n", namespaces["a"], "link", "set", "xia0r", "down")
            changes = [found for found in monitor.drain()[0] if found.name == "xia0"]
            assert changes and not changes[-1].up
            with pytest.raises(rtnetlink.NetlinkError):
                rtnetlink.set_link("nothere", up=True)
            ip("-n", namespaces["a"], "link", "del", "xia0")
            assert any(found.deleted for found in monitor.drain()[0])
        finally:
            monitor.close()
