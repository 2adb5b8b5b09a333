"""Arbitrary and nearly right bytes: counted and dropped, never an exception, never a harmed stream."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.transport.simpath import Simulation, host_dag
from tests.transport.transfer import Transfer, connected, pair
from xiatb.transport.endpoint import Endpoint
from xiatb.transport.packets import lone_packets
from xiatb.transport.stream import State
from xiatb.wire import extension, migrate, xcmp, xip, xstream
from xiatb.wire.xid import XID, XidType

RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _endpoint() -> tuple[Simulation, Endpoint, Endpoint]:
    sim, a, b = pair()
    b.listen()
    return sim, a, b


@RELAXED
@given(st.binary(max_size=400))
def test_random_bytes(data: bytes) -> None:
    _, _, b = _endpoint()
    b.receive(data, 1.0)
    assert b.stats["malformed"] == 1


@RELAXED
@given(st.sampled_from([0, 1, 2, 3, 4, 50, 51, 99]), st.binary(max_size=400))
def test_random_payload_under_a_good_header(nxt: int, payload: bytes) -> None:
    sim, a, b = _endpoint()
    packet = xip.build(nxt, b.local, a.local, payload)
    stream, _ = connected(sim, a, b)
    for _ in range(2):
        b.receive(packet, sim.now)
        b.tick(sim.now)
        b.transmit(sim.now)
    assert stream.state is State.ESTABLISHED


segments = st.builds(
    lambda flags, seq, ack, win, tail, data: (flags, seq, ack, win, tail, data),
    st.integers(0, 0x1FF),
    st.integers(-70_000, 70_000),
    st.integers(-70_000, 70_000),
    st.one_of(st.integers(0, 70_000), st.integers(0, 2**32 - 1)),
    st.binary(max_size=60).map(lambda raw: raw + bytes(-len(raw) % 4)),
    st.binary(max_size=300),
)


@RELAXED
@given(st.lists(segments, max_size=25), st.integers(0, 2))
def test_segments_near_the_window_never_raise(
    batch: list[tuple[int, int, int, int, bytes, bytes]], act: int
) -> None:
    sim, a, b = _endpoint()
    stream, peer = connected(sim, a, b)
    peer.write(bytes(5000))
    stream.write(bytes(5000))
    if act == 1:
        peer.shutdown()
    for flags, seq, ack, win, tail, data in batch:
        body = (
            bytes((0, 4 + len(tail) // 4))
            + flags.to_bytes(2, "big")
            + ((stream.iss + 1 + seq) & 0xFFFFFFFF).to_bytes(4, "big")
            + ((peer.iss + 1 + ack) & 0xFFFFFFFF).to_bytes(4, "big")
            + win.to_bytes(4, "big")
        )
        b.receive(xip.build(xip.NXT_XSTREAM, b.local, a.local, body + tail + data), sim.now)
        sim.run(0.003)
        peer.read()
        peer.events()
    assert peer._received.size + peer._received.held <= (4 << 20)
    sim.run(0.2)


@RELAXED
@given(st.integers(0, 2**32), st.integers(1, 8))
def test_flipped_bits_in_real_traffic_never_raise(seed: int, flips: int) -> None:
    """There is no checksum (the link has one), so data may come out changed; nothing may break."""
    rng = random.Random(seed)
    sim, a, b = _endpoint()
    deliver = sim.deliver

    def noisy(packet: bytes) -> None:
        if rng.random() < 0.3:
            broken = bytearray(packet)
            for _ in range(flips):
                broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
            for endpoint in (a, b):
                endpoint.receive(bytes(broken), sim.now)
        else:
            deliver(packet)

    sim.deliver = noisy  # type: ignore[method-assign]
    a.connect(b.local, sim.now).write(bytes(20_000))
    for place in ("x", "y"):
        sim.run(0.1)
        a.send_datagram(b"d", b.local, sim.now)
        sim.move(a, place)
        for stream in a.streams + b.streams:
            stream.read()
            stream.events()


@RELAXED
@given(st.binary(max_size=300), st.booleans())
def test_migrate_bodies_of_any_content(body: bytes, ack: bool) -> None:
    sim, a, b = _endpoint()
    stream, peer = connected(sim, a, b)
    home = peer.remote
    value = b"\0\0" + body
    options = xstream.Options(timestamp=(1, 1))
    if ack:
        options.migrate_ack = value
    else:
        options.migrate = value
    packed = xstream.pack(xstream.ACK, stream.iss + 1, peer.iss + 1, 1000, options)
    b.receive(xip.build(xip.NXT_XSTREAM, b.local, a.local, packed), sim.now)
    head = bytes((0, (4 + len(body) + 3) // 4, 0, 0)) + body + bytes(-len(body) % 4)
    b.receive(xip.build(xip.NXT_MIGRATEACK if ack else xip.NXT_MIGRATE, b.local, a.local, head), sim.now)
    assert peer.remote is home
    assert b.datagram.peer_dag(a.sid) is None


@RELAXED
@given(st.binary(max_size=200), st.integers(0, 20), st.integers(0, 20))
def test_xcmp_about_anything(quoted: bytes, kind: int, code: int) -> None:
    sim, a, b = _endpoint()
    stream, _ = connected(sim, a, b)
    stream.write(bytes(3000))
    header, payload = next(lone_packets(a.transmit(sim.now)))
    for original in (quoted, header[: len(quoted)], header + bytes(payload)[:8]):
        message = bytearray(bytes((kind, code, 0, 0)) + quoted[:4].ljust(4, b"\0") + original)
        message[2:4] = xcmp.checksum(message).to_bytes(2, "big")
        a.receive(xip.build(xip.NXT_XCMP, a.local, b.local, message), sim.now)
    sim.run(1.0)
    assert stream.state is State.ESTABLISHED
    assert stream.unacked == 0


def test_syn_from_addresses_too_long_for_the_mtu_is_dropped() -> None:
    sim, _, b = pair(config={"mtu": 576})
    b.listen()
    chain = [XID(XidType.AD, bytes([i] * 20)) for i in range(1, 19)]
    far = type(b.local).chain(*chain, XID(XidType.SID, b"\1" * 20))
    body = xstream.pack(xstream.SYN, 1, 0, 1000, xstream.Options(mss=1500))
    b.receive(xip.build(xip.NXT_XSTREAM, b.local, far, body), sim.now)
    assert b.transmit(sim.now) == []
    assert b.stats["syn_dropped"] == 1


def test_longest_addresses_still_work_where_they_fit() -> None:
    transfer = Transfer(50_000)
    assert transfer.run().stream.stats()["mss"] == 1296


def test_extension_chain_bombs_are_dropped() -> None:
    _, a, b = _endpoint()
    b.receive(xip.build(2, b.local, a.local, b"\x02\x01\0\0" * 50), 0.0)
    b.receive(xip.build(4, b.local, a.local, b"\x04\x00\0\0"), 0.0)
    assert b.stats["malformed"] == 2
    assert extension.MAX_CHAIN == 8
    assert migrate.FIXED_LEN == 108
    assert host_dag("x", b.sid).intent == b.sid
