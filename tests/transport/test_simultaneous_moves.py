"""Both ends of a session move at once and nobody answers at the old places: the rendezvous service."""

from __future__ import annotations

import pytest

from tests.transport.simpath import Path, Simulation
from tests.transport.transfer import connected
from xiatb.transport.config import StreamConfig
from xiatb.transport.endpoint import Endpoint
from xiatb.transport.mobility import DIRECT_TRIES, detour, readdressed
from xiatb.wire import xip
from xiatb.wire.dag import DAG
from xiatb.wire.xid import SID_RENDEZVOUS, XID, XidType

MEETING = DAG.chain(XID(XidType.AD, b"m" * 20), XID(XidType.HID, b"m" * 20), SID_RENDEZVOUS)


class WithRendezvous(Simulation):
    """A simulation whose rendezvous service knows where everybody is."""

    detours = 0

    def send(self, packet: bytes) -> None:
        header = xip.parse(packet)
        if SID_RENDEZVOUS in header.dst().nodes:
            self.detours += 1
            packet = readdressed(packet, self.endpoints[header.intent_key].local)
        super().send(packet)


def two(service: DAG | None) -> tuple[WithRendezvous, Endpoint, Endpoint]:
    sim = WithRendezvous()
    sim.path = Path(delay=0.01)
    a, b = (sim.add(seed, place, StreamConfig(rendezvous=service)) for seed, place in ((1, "a"), (2, "b")))
    b.listen()
    return sim, a, b


def test_a_stream_goes_on() -> None:
    sim, a, b = two(MEETING)
    stream, peer = connected(sim, a, b)
    sim.move(a, "a2")
    sim.move(b, "b2")
    began = sim.now
    stream.write(b"x" * 5000)
    assert sim.run(5.0, lambda: peer.readable == 5000)
    assert sim.now - began < 0.3 and sim.detours > 0
    assert sim.run(1.0, lambda: stream.stats()["moves"] == peer.stats()["moves"] == 1)
    assert (stream.remote, peer.remote) == (b.local, a.local)


def test_without_the_service_it_does_not() -> None:
    sim, a, b = two(None)
    stream, peer = connected(sim, a, b)
    sim.move(a, "a2")
    sim.move(b, "b2")
    stream.write(b"x" * 5000)
    assert not sim.run(5.0, lambda: peer.readable == 5000)


def test_one_end_alone_needs_no_service() -> None:
    sim, a, b = two(MEETING)
    stream, _peer = connected(sim, a, b)
    sim.move(a, "a2")
    assert sim.run(1.0, lambda: stream.stats()["moves"] == 1)
    assert sim.detours == 0


def test_addresses() -> None:
    peer = DAG.service(XID(XidType.AD, b"p" * 20), XID(XidType.HID, b"p" * 20), XID(XidType.SID, b"p" * 20))
    assert detour(DIRECT_TRIES, MEETING, peer) is None and detour(9, None, peer) is None
    found = detour(DIRECT_TRIES + 1, MEETING, peer)
    assert found == MEETING * peer.nodes[1] * peer.intent
    assert detour(9, MEETING, DAG.chain(peer.intent)) is None
    assert detour(9, DAG.chain(*(XID(XidType.AD, bytes([i]) * 20) for i in range(19))), peer) is None


@pytest.mark.parametrize("service", [MEETING, None])
def test_datagram_sockets_tell_by_the_service_too(service: DAG | None) -> None:
    sim, a, b = two(service)
    for one, other in ((a, b), (b, a)):
        assert one.send_datagram(b"hello", other.local, sim.now)
    sim.run(0.1)
    assert [data for one in (a, b) for data, _ in one.receive_datagrams()] == [b"hello", b"hello"]
    sim.move(a, "a2")
    sim.move(b, "b2")
    sim.run(2.0)
    moved = [one.datagram.stats["moves_acknowledged"] for one in (a, b)]
    assert moved == ([1, 1] if service else [0, 0])
