"""Handlers tell the same, to the octet, whichever engine forwarded, dropped or passed."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.node.minilab import MiniLab
from tests.node.namespaces import needs_root
from xiatb.fastpath import probe
from xiatb.wire import xip
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID, XidType

pytestmark = [
    needs_root,
    pytest.mark.netns,
    pytest.mark.skipif(not probe.available()[0], reason="eBPF does not load here"),
]
GONE, NOWHERE = XID(XidType.AD, b"g" * 20), XID(XidType.AD, b"n" * 20)


@contextlib.contextmanager
def wire(lab: MiniLab, node: str, device: str) -> Iterator[socket.socket]:
    """All frames at an interface."""
    with lab.net.entered(node), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((device, 0x0003))
        yield sock


def arrived(sock: socket.socket) -> list[bytes]:
    """Frames that the other end has sent, up to now."""
    frames = []
    while select.select([sock], [], [], 0)[0]:
        frame, address = sock.recvfrom(10000)
        if address[2] != socket.PACKET_OUTGOING:
            frames.append(frame)
    return frames


def frames(lab: MiniLab, mac: bytes) -> dict[str, list[bytes]]:
    """What is sent to r1, by what is to become of it."""
    h2, source = lab.locator("h2", "ad1"), lab.locator("h1", "ad1")

    def packet(dag: DAG, size: int = 100, hlim: int = 9) -> bytes:
        return mac + b"\2" * 6 + b"\xc0\xde" + xip.build(xip.NXT_XDGRAM, dag, source, bytes(size), hlim=hlim)

    good = packet(h2)

    def with_octet(at: int, value: int) -> bytes:
        return good[: 14 + at] + bytes([value]) + good[15 + at :]

    return {
        "forwarded": [packet(h2, size) for size in (0, 1, 500, 1300)] + [good + bytes(23)],
        "version": [with_octet(0, 2)] * 3,
        "nodes": [with_octet(5, 0), with_octet(6, 21)],
        "truncated": [good[:-1], good[:20], good[:60], good[:-50]],
        "last": [with_octet(7, 0x7D)],
        "discarded": [packet(DAG.chain(GONE)), packet(DAG.chain(GONE), 700)],
        "no route": [packet(DAG.chain(NOWHERE))] * 2,
        "used up": [packet(h2, hlim=1)] * 2,
        "too big": [packet(h2, 2000), packet(h2, 5000)],
        "for r1": [packet(lab.locator("r1", "ad1"), 30)],
        "for another": [b"\2\0\0\0\0\x77" + good[6:]],
    }


@pytest.mark.parametrize("engine", ["click", "ebpf"])
def test_every_reason_is_counted_with_its_octets(lab: MiniLab, engine: str) -> None:
    lab.node("r1", "router", ad="ad1")
    for name, mtu in (("h1", 9000), ("h2", 1500)):
        lab.node(name, "host")
        lab.link(name, "r1", mtu)
    for name in ("r1", "h1", "h2"):
        lab.start(name, data_plane=engine)
    for name in ("h1", "h2"):
        lab.joined(name)
        lab.nodes[name].send_signal(signal.SIGSTOP)  # from now on only the test sends
    r1 = lab.client("r1")

    def read(name: str) -> int:
        return int(r1.ask("handlers", read=name)["value"])

    r1.ask("handlers", write="core/rt_AD.set", value=f"{GONE} DISCARD")
    numbers = ("lc1/in.count", "lc1/in.bytes", "lc1/check.count", "lc1/check.drops")
    numbers += ("core/rt_AD.drops", "lc2/mtu.drops")
    kinds = frames(lab, bytes.fromhex(str(r1.ask("status")["ports"][1]["mac"]).replace(":", "")))
    sent = [frame for group in kinds.values() for frame in group]
    with wire(lab, "h2", "eth0") as there, wire(lab, "h1", "eth0") as here:
        before = {name: read(name) for name in numbers}
        out = {name: read(name) for name in ("lc2/device.count", "lc2/device.bytes")}
        arrived(there)
        for frame in sent:
            here.send(frame)
        assert any(read("lc1/in.count") - before["lc1/in.count"] == len(sent) for _ in range(200))
        got = {name: read(name) - before[name] for name in numbers}
        caught: list[bytes] = []
        for _ in range(50):  # until no HELLO or beacon of r1 comes between the two readings
            after = {name: read(name) for name in out}
            caught += arrived(there)
            if {name: read(name) for name in out} == after:
                break
    bad = [frame for kind in ("version", "nodes", "truncated", "last") for frame in kinds[kind]]
    assert got == {
        "lc1/in.count": len(sent),
        "lc1/in.bytes": sum(map(len, sent)),
        "lc1/check.count": len(sent),
        "lc1/check.drops": len(bad),
        "core/rt_AD.drops": 2,
        "lc2/mtu.drops": 2,
    }
    rows = r1.ask("handlers", read="lc1/check.drop_details")["value"].splitlines()
    details = dict(row.split("\t") for row in rows)
    assert details == {"version": "3", "nodes": "2", "truncated": "4", "last": "1"}
    passed = r1.ask("status")["ports"][1]["passed"]
    if engine == "ebpf":
        want = {"no_route": 2, "hop_limit": 2, "too_big": 2, "local": 1, "foreign": 1}
        assert {reason: passed[reason] for reason in want} == want
    assert len([frame for frame in caught if len(frame) in set(map(len, kinds["forwarded"]))]) >= 4
    octets = sum(map(len, caught))
    assert [after[name] - out[name] for name in out] == [len(caught), octets], "what left by port 2"
