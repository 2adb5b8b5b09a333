"""Opening and closing a stream in every way that there is."""

from __future__ import annotations

import pytest

from tests.transport.simpath import Simulation, host_dag
from tests.transport.transfer import Transfer, connected, pair
from xiatb.errors import TransportError
from xiatb.transport import errors
from xiatb.transport.config import StreamConfig
from xiatb.transport.events import EventKind
from xiatb.transport.stream import State, Stream
from xiatb.wire import xcmp, xip, xstream
from xiatb.wire.xid import XidType


def kinds(stream: object) -> list[EventKind]:
    return [event.kind for event in stream.events()]  # type: ignore[attr-defined]


def test_connect_is_one_round_trip_and_announced() -> None:
    sim, a, b = pair(delay=0.01)
    stream, peer = connected(sim, a, b)
    assert sim.now - 1000.0 == pytest.approx(0.03, abs=0.005)
    assert EventKind.CONNECTED in kinds(stream)
    assert EventKind.CONNECTED in kinds(peer)
    assert peer.remote == a.local
    assert stream.stats()["mss"] == 1500 - 176 - 28


def test_nobody_listens() -> None:
    sim, a, b = pair()
    stream = a.connect(b.local, sim.now)
    sim.run(1.0)
    assert isinstance(stream.error, errors.RefusedError)
    assert kinds(stream) == [EventKind.CLOSED]
    assert not a.streams


def test_nobody_answers() -> None:
    sim, a, b = pair(config={"connect_timeout": 3.0}, loss=1.0)
    stream = a.connect(b.local, sim.now)
    assert sim.run(20.0, lambda: stream.error is not None)
    assert isinstance(stream.error, errors.TimedOutError)
    assert sim.now - 1000.0 == pytest.approx(3.0)


def test_unreachable_ends_a_connect_early_but_no_open_stream() -> None:
    sim, a, b = pair()
    stream = a.connect(b.local, sim.now)
    (syn, _), *_ = a.transmit(sim.now)
    a.receive(xip.build(xip.NXT_XCMP, a.local, b.local, xcmp.unreachable(xcmp.CODE_NET, syn)), sim.now)
    assert isinstance(stream.error, errors.UnreachableError)
    sim, a, b = pair()
    stream, _ = connected(sim, a, b)
    stream.write(b"x")
    header, payload = a.transmit(sim.now)[0]
    complaint = xcmp.unreachable(xcmp.CODE_NET, header + bytes(payload))
    a.receive(xip.build(xip.NXT_XCMP, a.local, b.local, complaint), sim.now)
    assert stream.error is None
    assert stream.counters["unreachable"] == 1


def test_unreachable_about_another_sequence_is_not_believed() -> None:
    sim, a, b = pair()
    stream = a.connect(b.local, sim.now)
    (syn, _), *_ = a.transmit(sim.now)
    off = xip.parse(syn).payload_off
    forged = syn[: off + 4] + b"\0\0\0\0" + syn[off + 8 :]
    a.receive(xip.build(xip.NXT_XCMP, a.local, b.local, xcmp.unreachable(xcmp.CODE_NET, forged)), sim.now)
    assert stream.error is None


def told_of_fin(code: int, at: XidType, *, with_data: bool = False) -> Stream:
    """A stream whose peer has closed and is gone, after an XCMP error about its FIN from the node `at`."""
    sim, a, b = pair()
    stream, peer = connected(sim, a, b)
    peer.shutdown()
    assert sim.run(5.0, lambda: stream.state is State.CLOSE_WAIT)
    del sim.endpoints[b.sid.key]
    stream.write(b"x" if with_data else b"")
    stream.shutdown()
    out = [header + bytes(payload) for header, payload in a.transmit(sim.now)]
    fin = next(one for one in out if one[xip.parse(one).payload_off + 1] & xstream.FIN)
    visited = next(i for i, node in enumerate(xip.parse(fin).dst().nodes) if node.type == at)
    about = fin[:7] + bytes([visited]) + fin[8:]
    a.receive(xip.build(xip.NXT_XCMP, a.local, b.local, xcmp.unreachable(code, about)), sim.now)
    return stream


def test_a_peer_that_ended_before_it_answered_our_fin_is_not_waited_for() -> None:
    stream = told_of_fin(xcmp.CODE_INTENT, XidType.HID)
    assert stream.state is State.CLOSED
    assert stream.error is None


@pytest.mark.parametrize(
    ("code", "at", "with_data"),
    [
        (xcmp.CODE_HOST, XidType.AD, False),
        (xcmp.CODE_INTENT, XidType.AD, False),
        (xcmp.CODE_HOST, XidType.HID, False),
        (xcmp.CODE_INTENT, XidType.HID, True),
    ],
)
def test_only_its_own_host_tells_that_and_only_when_nothing_else_is_outstanding(
    code: int, at: XidType, with_data: bool
) -> None:
    assert told_of_fin(code, at, with_data=with_data).state is State.LAST_ACK


def test_lost_handshake_segments_are_repeated() -> None:
    for seed in range(12):
        Transfer(2000, seed=seed, delay=0.005, loss=0.4).run()


def test_half_close_leaves_the_other_direction_open() -> None:
    sim, a, b = pair()
    stream, peer = connected(sim, a, b)
    stream.write(b"question")
    stream.shutdown()
    assert sim.run(5.0, lambda: peer.readable == 8 and EventKind.EOF in kinds(peer))
    assert peer.read() == b"question"
    assert peer.at_eof
    assert peer.state is State.CLOSE_WAIT
    with pytest.raises(errors.ClosedForWritingError):
        stream.write(b"more")
    peer.write(b"answer" * 1000)
    peer.shutdown()
    assert sim.run(5.0, lambda: stream.readable == 6000)
    assert stream.read() == b"answer" * 1000
    assert stream.at_eof
    sim.run(10.0)
    assert stream.state is peer.state is State.CLOSED
    assert stream.error is None
    assert peer.error is None


def test_both_close_at_once() -> None:
    sim, a, b = pair(delay=0.05)
    stream, peer = connected(sim, a, b)
    stream.shutdown()
    peer.shutdown()
    sim.run(10.0)
    assert stream.state is peer.state is State.CLOSED
    assert stream.error is peer.error is None


def test_both_open_at_once() -> None:
    sim, a, b = pair(delay=0.05)
    one = a.connect(b.local, sim.now)
    two = b.connect(a.local, sim.now)
    assert sim.run(5.0, lambda: one.state is two.state is State.ESTABLISHED)
    one.write(b"x" * 10_000)
    two.write(b"y" * 10_000)
    assert sim.run(5.0, lambda: one.readable == two.readable == 10_000)


def test_abort_resets_the_peer() -> None:
    sim, a, b = pair()
    stream, peer = connected(sim, a, b)
    stream.write(b"x" * 100)
    sim.run(0.1)
    stream.abort("enough")
    sim.run(1.0)
    assert isinstance(peer.error, errors.ResetError)
    assert peer.read() == b"x" * 100
    assert isinstance(stream.error, errors.AbortedError)
    assert stream.error.message == "enough"
    assert not a.streams
    assert not b.streams
    with pytest.raises(errors.ResetError):
        peer.write(b"y")


def test_close_with_unread_data_or_later_data_is_abortive() -> None:
    sim, a, b = pair()
    stream, peer = connected(sim, a, b)
    stream.write(b"unread")
    sim.run(0.1)
    peer.close(sim.now)
    sim.run(1.0)
    assert isinstance(stream.error, errors.ResetError)
    sim, a, b = pair()
    stream, peer = connected(sim, a, b)
    peer.close(sim.now)
    sim.run(0.1)
    assert stream.at_eof
    stream.write(b"late")
    sim.run(1.0)
    assert isinstance(stream.error, errors.ResetError)


def test_orderly_close_of_both_sides_delivers_all() -> None:
    sim, a, b = pair(loss=0.1, seed=4)
    stream, peer = connected(sim, a, b)
    stream.write(b"z" * 50_000)
    stream.close(sim.now)
    assert sim.run(60.0, lambda: peer.readable == 50_000 and peer._fin_seen)
    assert len(peer.read()) == 50_000
    peer.close(sim.now)
    sim.run(60.0)
    assert stream.error is peer.error is None
    assert not a.streams
    assert not b.streams


def test_peer_that_never_closes_is_dropped_after_the_linger() -> None:
    sim, a, b = pair(config={"linger": 2.0})
    stream, peer = connected(sim, a, b)
    stream.close(sim.now)
    sim.run(10.0)
    assert isinstance(stream.error, errors.TimedOutError)
    assert isinstance(peer.error, errors.ResetError)


def _forged(sim: Simulation, source: object, to: object, flags: int, seq: int, ack: int = 0) -> None:
    body = xstream.pack(flags, seq, ack, 0)
    to.receive(xip.build(xip.NXT_XSTREAM, to.local, source.local, body), sim.now)  # type: ignore[attr-defined]


def test_blind_reset_and_syn_only_draw_a_challenge() -> None:
    sim, a, b = pair()
    stream, peer = connected(sim, a, b)
    wire = (peer.irs + peer._received.next) & 0xFFFFFFFF
    for seq in (wire + 1000, wire - 5, wire + (1 << 28)):
        _forged(sim, a, b, xstream.RST, seq & 0xFFFFFFFF)
        _forged(sim, a, b, xstream.SYN, seq & 0xFFFFFFFF)
        sim.run(0.02)
    assert peer.state is stream.state is State.ESTABLISHED
    _forged(sim, a, b, xstream.RST, wire)
    assert isinstance(peer.error, errors.ResetError)


def test_restarted_client_with_the_same_sid_gets_through() -> None:
    sim, a, b = pair()
    stream, peer = connected(sim, a, b)
    sim.endpoints.pop(a.sid.key)
    again = sim.add(1, "a")
    fresh = again.connect(b.local, sim.now)
    assert sim.run(10.0, lambda: fresh.state is State.ESTABLISHED and b.acceptable)
    assert isinstance(peer.error, errors.ResetError)
    fresh.write(b"hello")
    newer = b.accept()
    assert newer is not None
    assert sim.run(1.0, lambda: newer.readable == 5)


def test_second_connection_between_the_same_sids_is_refused_locally() -> None:
    sim, a, b = pair()
    connected(sim, a, b)
    with pytest.raises(errors.InUseError):
        a.connect(b.local, sim.now)


def test_connection_can_be_made_anew_after_close() -> None:
    sim, a, b = pair()
    for _ in range(3):
        stream, peer = connected(sim, a, b)
        stream.write(b"abc")
        stream.shutdown()
        assert sim.run(1.0, lambda p=peer: p.readable == 3)
        peer.read()
        peer.shutdown()
        sim.run(5.0)
        assert not a.streams
        assert not b.streams


def test_peer_in_time_wait_accepts_a_new_connection_at_once() -> None:
    sim, a, b = pair(config={"time_wait": 50.0})
    stream, peer = connected(sim, a, b)
    peer.shutdown()
    sim.run(0.5)
    stream.shutdown()
    sim.run(0.5)
    assert peer.state is State.TIME_WAIT
    connected(sim, a, b)


def test_backlog_bounds_complete_connections() -> None:
    sim = Simulation(1)
    server = sim.add(1, "s")
    server.listen(3)
    clients = [sim.add(i, f"c{i}") for i in range(2, 12)]
    for client in clients:
        client.connect(server.local, sim.now)
    sim.run(1.0)
    assert server.acceptable == 3
    assert server.stats["syn_dropped"] > 0
    while server.accept() is not None:
        pass
    sim.run(10.0)
    assert server.acceptable == 3


def test_syn_flood_costs_a_bounded_number_of_records() -> None:
    sim = Simulation(1)
    server = sim.add(1, "s", StreamConfig(syn_backlog=50))
    server.listen(3)
    for i in range(500):
        sid = type(server.sid)(0x13, i.to_bytes(20, "big"))
        body = xstream.pack(xstream.SYN, i, 0, 1000, xstream.Options(mss=1500))
        server.receive(xip.build(xip.NXT_XSTREAM, server.local, host_dag("x", sid), body), sim.now)
        server.transmit(sim.now)
    assert len(server._handshakes) == 50
    assert not server.streams
    sim.run(60.0)
    assert len(server._handshakes) == 0


def test_segments_of_no_connection_draw_a_limited_number_of_resets() -> None:
    sim, a, b = pair()
    for i in range(1000):
        _forged(sim, a, b, xstream.ACK, i, 7)
    assert b.stats["resets_sent"] == 200
    _forged(sim, a, b, xstream.RST, 1)
    assert b.stats["resets_sent"] == 200


def test_address_of_another_sid_is_refused() -> None:
    _, a, b = pair()
    with pytest.raises(TransportError):
        type(a)(None, a.sid, b.local)


@pytest.mark.parametrize("seed", range(16))
def test_timestamps_of_both_ends_are_one_clock_from_the_first_segment_on(seed: int) -> None:
    """Whatever random offsets were drawn, no side takes the other's first data for an old duplicate."""
    sim, a, b = pair(seed=seed, delay=0.01)
    stream, peer = connected(sim, a, b)
    for sender, receiver in ((peer, stream), (stream, peer)):
        sender.write(bytes(20_000))
        assert sim.run(0.2, lambda end=receiver: end.readable == 20_000)
        sim.run(0.1)
        assert sender.stats()["srtt"] == pytest.approx(0.02, abs=0.01)
        assert sender.stats()["retransmitted"] == 0
    assert stream.counters["dropped"] == peer.counters["dropped"] == 0
