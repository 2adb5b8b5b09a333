"""Path MTU: segments fit, shrink on a believable report, and grow back after a move."""

from __future__ import annotations

import pytest

from tests.transport.simpath import host_dag
from tests.transport.transfer import Transfer, connected, pair
from xiatb.errors import TransportError
from xiatb.transport.config import StreamConfig
from xiatb.transport.endpoint import Endpoint
from xiatb.transport.errors import MessageTooLongError
from xiatb.wire import xcmp, xip
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID, XidType


def _report(endpoint: Endpoint, mtu: int, packet: bytes, now: float) -> None:
    endpoint.receive(xip.build(xip.NXT_XCMP, endpoint.local, endpoint.local, xcmp.too_big(mtu, packet)), now)


@pytest.mark.parametrize("mtu", [576, 1500, 9000, 65535])
def test_every_packet_of_a_transfer_fits(mtu: int) -> None:
    transfer = Transfer(400_000, config={"mtu": mtu}, seed=3, delay=0.002, loss=0.02)
    moved = []

    def hook(t: Transfer) -> None:
        if len(t.got) > 100_000 and not moved:
            moved.append(t.sim.move(t.a, "x"))

    transfer.hook = hook
    transfer.run()
    assert transfer.stream.stats()["mss"] == mtu - 204


def test_smaller_mtu_of_the_peer_counts() -> None:
    sim, a, _ = pair(config={"mtu": 9000})
    small = sim.add(3, "c", StreamConfig(mtu=1500))
    stream, peer = connected(sim, a, small)
    assert stream.mss == peer.mss == 1500 - 204


def test_too_big_cuts_what_is_outstanding_and_sends_it_again() -> None:
    transfer = Transfer(600_000, config={"mtu": 9000}, seed=3, delay=0.005, rate=50e6)
    sim = transfer.sim
    sim.path.mtu = 2000
    original = sim.send

    def send(packet: bytes) -> None:
        if len(packet) > sim.path.mtu:
            source = sim.endpoints[xip.parse(packet).src_intent_key]
            _report(source, sim.path.mtu, packet, sim.now)
        else:
            original(packet)

    sim.send = send  # type: ignore[method-assign]
    transfer.run()
    stats = transfer.stream.stats()
    assert stats["mss"] == 2000 - 204
    assert stats["timeouts"] == 0
    assert transfer.goodput > 5e6


def test_too_big_is_believed_only_about_something_outstanding() -> None:
    sim, a, b = pair()
    stream, _ = connected(sim, a, b)
    stream.write(bytes(1000))
    header, payload = a.transmit(sim.now)[0]
    packet = header + bytes(payload)
    off = xip.parse(packet).payload_off
    seq = (stream.iss + 100_000) & 0xFFFFFFFF
    _report(a, 700, packet[: off + 4] + seq.to_bytes(4, "big") + packet[off + 8 :], sim.now)
    assert stream.mss == 1296
    _report(a, 100, packet, sim.now)
    assert stream.mss == 1296
    _report(a, 5000, packet, sim.now)
    assert stream.mss == 1296
    _report(a, 1000, packet, sim.now)
    assert stream.mss == 796
    sim.move(a, "x")
    assert stream.mss == 1296


def test_endpoint_mtu_can_change() -> None:
    sim, a, b = pair()
    stream, peer = connected(sim, a, b)
    a.set_mtu(1000)
    stream.write(bytes(50_000))
    assert sim.run(2.0, lambda: peer.readable == 50_000)
    with pytest.raises(TransportError):
        stream.set_mtu(70_000)


def test_addresses_that_leave_no_room_are_refused() -> None:
    sim, a, b = pair(config={"mtu": 576})
    stream, peer = connected(sim, a, b)
    middle = [XID(XidType.AD, bytes([i] * 20)) for i in range(1, 14)]
    long = DAG.chain(*middle, a.sid)
    with pytest.raises(TransportError):
        stream.move(long, sim.now)
    with pytest.raises(TransportError):
        b.connect(long, sim.now)
    with pytest.raises(MessageTooLongError):
        b.send_datagram(bytes(600), host_dag("a", a.sid), sim.now)
    assert b.datagram.room(a.local) == 576 - 8 - 168 - 4
    assert b.send_datagram(bytes(b.datagram.room(a.local)), a.local, sim.now)
