from __future__ import annotations

import asyncio
import select
import subprocess
from collections.abc import Callable

import pytest

from tests.node.namespaces import Namespaces, ip, needs_root
from xiatb.node import rtnetlink, sid_filter
from xiatb.node.packet_socket import DeviceError, PacketSocket
from xiatb.node.port import Port
from xiatb.wire import xip
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID, XidType

pytestmark = [needs_root, pytest.mark.netns]
SID = XID(XidType.SID, bytes(range(20)))
OTHER = XID(XidType.SID, bytes(20))


def frame(intent: XID, size: int = 10) -> bytes:
    return (
        b"\xff" * 6 + b"\2" * 6 + b"\xc0\xde" + xip.build(0, DAG.chain(intent), DAG.chain(OTHER), bytes(size))
    )


def received(sock: PacketSocket, count: int) -> list[bytes]:
    """At least `count` frames, or what came within two seconds."""
    frames: list[bytes] = []
    while len(frames) < count and select.select([sock], [], [], 2.0)[0]:
        sock.drain(lambda view: frames.append(bytes(view)))
    return frames


def test_filtered_socket_and_down_up(namespaces: Namespaces) -> None:
    for name in "ab":
        namespaces.add(name)
    namespaces.link("a", "eth0", "b", "eth0", mtu=2000)
    with namespaces.entered("a"):
        sender = PacketSocket("eth0", 0xC0DE)
    with namespaces.entered("b"):
        everything = PacketSocket("eth0", 0xC0DE)
        one = PacketSocket("eth0", 0xC0DE, program=sid_filter.match_intent(SID.key))
        with pytest.raises(DeviceError):
            PacketSocket("nothere", 0xC0DE)
    try:
        assert sender.send(frame(SID)) and sender.send_parts((frame(OTHER)[:14], frame(OTHER)[14:]))
        assert received(everything, 2) == [frame(SID), frame(OTHER)]
        assert received(one, 1) == [frame(SID)]
        assert not received(sender, 0)
        assert not sender.send(frame(SID, 4000)) and sender.tx_dropped == 1
        ip("-n", namespaces["b"], "link", "set", "eth0", "down")
        assert received(one, 1) == [] and one.rx_down == 1
        sender.send(frame(SID))
        ip("-n", namespaces["b"], "link", "set", "eth0", "up")
        while rtnetlink_down(namespaces):
            pass
        assert sender.send(frame(SID))
        assert received(one, 1) == [frame(SID)]
    finally:
        for sock in (sender, everything, one):
            sock.close()


def rtnetlink_down(namespaces: Namespaces) -> bool:
    with namespaces.entered("a"):
        link = rtnetlink.get_link("eth0")
    assert link is not None
    return not link.up


def gone(namespaces: Namespaces) -> bool:
    with namespaces.entered("b"):
        return rtnetlink.get_link("eth0") is None


def run_until(loop: asyncio.AbstractEventLoop, true: Callable[[], bool]) -> None:
    """Let the loop run until `true()` holds, five seconds at most."""

    async def wait() -> None:
        async with asyncio.timeout(5):
            while not true():
                await asyncio.sleep(0.001)

    loop.run_until_complete(wait())


def test_port_survives_its_interface(namespaces: Namespaces) -> None:
    for name in "ab":
        namespaces.add(name)
    loop = asyncio.new_event_loop()
    port = Port(1, "eth0", "link", 1500, loop)
    got: list[bytes] = []
    port.set_receiver(lambda frames: got.extend(map(bytes, frames)))
    try:
        for round_number in range(2):
            assert not port.send(frame(SID))
            namespaces.link("a", "eth0", "b", "eth0")
            with namespaces.entered("b"):
                port.update(rtnetlink.get_link("eth0"))
            assert port.up and port.ifindex
            with namespaces.entered("a"):
                sender = PacketSocket("eth0", 0xC0DE)
            port.exclude([OTHER.key])
            sender.send(frame(OTHER))
            sender.send(frame(SID))
            run_until(loop, lambda wanted=round_number + 1: len(got) >= wanted)
            sender.close()
            assert len(got) == round_number + 1
            ip("-n", namespaces["a"], "link", "del", "eth0")
            run_until(loop, lambda: gone(namespaces))
            port.update(None)
        assert port.counters()["rx"] == 2 and port.counters()["tx_dropped"] == 2
    finally:
        port.close()
        loop.close()


def test_full_qdisc_counts_drops(namespaces: Namespaces) -> None:
    for name in "ab":
        namespaces.add(name)
    namespaces.link("a", "eth0", "b", "eth0")
    tc = ["tc", "-n", namespaces["a"], "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "8kbit"]
    subprocess.run([*tc, "burst", "3000", "limit", "6000"], check=True, timeout=20)
    with namespaces.entered("a"):
        sender = PacketSocket("eth0", 0xC0DE)
    try:
        results = [sender.send(frame(SID, 1000)) for _ in range(50)]
        assert results[0] and not results[-1]
        assert sender.tx_dropped == results.count(False) > 30
    finally:
        sender.close()
