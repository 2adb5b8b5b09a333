"""Moves of either end of a stream: intact, quick, and only by the owner of the SID."""

from __future__ import annotations

import pytest

from tests.transport.simpath import host_dag
from tests.transport.transfer import Transfer, connected, pair
from xiatb.errors import TransportError
from xiatb.identity.keys import KeyPair
from xiatb.transport.events import EventKind
from xiatb.transport.stream import State
from xiatb.wire import migrate, xip, xstream

FAULTS = {"rate": 100e6, "delay": 0.005, "loss": 0.02, "reorder": 0.05, "extra": 0.003, "duplicate": 0.01}


def _settled(transfer: Transfer) -> bool:
    peer = transfer.peer
    return peer is not None and not (transfer.stream.stats()["move_pending"] or peer.stats()["move_pending"])


@pytest.mark.parametrize("who", ["sender", "receiver", "alternately"])
def test_ten_moves_under_loss_stay_intact(who: str) -> None:
    transfer = Transfer(2_000_000, seed=5, **FAULTS)
    moves = 0

    def hook(t: Transfer) -> None:
        nonlocal moves
        if moves < 10 and len(t.got) > (moves + 1) * 160_000 and _settled(t):
            moves += 1
            sender = who == "sender" or (who == "alternately" and moves % 2)
            t.sim.move(t.a if sender else t.b, f"p{moves}")

    transfer.hook = hook
    transfer.run()
    assert moves == 10
    peer = transfer.peer
    assert peer is not None
    assert transfer.stream.stats()["moves"] + peer.stats()["moves"] == 10
    assert transfer.goodput > 3e6


def test_both_ends_move_at_once_while_the_old_places_still_answer() -> None:
    transfer = Transfer(2_000_000, seed=6, **FAULTS)
    moves = 0

    def hook(t: Transfer) -> None:
        nonlocal moves
        if moves < 10 and len(t.got) > (moves + 1) * 160_000 and _settled(t):
            moves += 1
            t.sim.move(t.a, f"p{moves}", keep=True)
            t.sim.move(t.b, f"q{moves}", keep=True)

    transfer.hook = hook
    transfer.run()
    assert moves == 10


def test_both_ends_move_within_one_round_trip_of_each_other() -> None:
    """The second mover hears the first's MIGRATE at its old place while it still receives there."""
    sim, a, b = pair(delay=0.02)
    stream, peer = connected(sim, a, b)
    sim.move(a, "a2")
    sim.run(0.005)
    sim.move(b, "b2", keep=True)
    assert sim.run(5.0, lambda: stream.stats()["moves"] == peer.stats()["moves"] == 1)
    assert stream.remote == b.local
    assert peer.remote == a.local


def test_a_move_is_told_at_once_and_outstanding_data_follows_in_one_round_trip() -> None:
    sim, a, b = pair(delay=0.01)
    stream, peer = connected(sim, a, b)
    sim.run(1.0)
    sim.places[a.sid.key].clear()
    peer.write(b"d" * 5000)
    sim.run(3.0)
    assert peer._rtt.rto > 1.0, "its timer has backed off by now"
    assert stream.readable == 0
    sim.move(a, "elsewhere")
    began = sim.now
    assert sim.run(5.0, lambda: stream.readable == 5000)
    assert sim.now - began == pytest.approx(0.02, abs=0.002)
    assert EventKind.PEER_MOVED in [event.kind for event in peer.events()]
    sim.run(0.1)
    moved = [event.detail for event in stream.events() if event.kind is EventKind.MOVED]
    assert moved == [pytest.approx(0.02, abs=0.002)]


def test_a_reattached_end_can_kick_its_peers_without_a_new_locator() -> None:
    sim, a, b = pair(delay=0.01)
    stream, peer = connected(sim, a, b)
    sim.down = True
    peer.write(b"d" * 5000)
    sim.run(3.0)
    sim.down = False
    a.move(a.local, sim.now)
    began = sim.now
    assert sim.run(5.0, lambda: stream.readable == 5000)
    assert sim.now - began < 0.03


def test_migrate_is_repeated_on_its_own_short_timer() -> None:
    sim, a, b = pair(delay=0.001)
    stream, peer = connected(sim, a, b)
    sim.run(0.5)
    sim.down = True
    sim.move(a, "x")
    times = []
    for _ in range(400):
        before = stream.counters["migrate_sent"]
        sim.run(0.005)
        if stream.counters["migrate_sent"] > before:
            times.append(sim.now)
    gaps = [round(b - a, 2) for a, b in zip(times, times[1:], strict=False)]
    assert gaps[:4] == pytest.approx([0.02, 0.04, 0.08, 0.16], abs=0.011)
    assert set(gaps[5:]) <= {0.25, 0.26}
    sim.down = False
    assert sim.run(0.3, lambda: peer.remote == a.local)


def test_unanswered_moves_are_given_up_after_their_time() -> None:
    sim, a, b = pair(config={"migrate_give_up": 2.0, "keepalive_idle": 0.0})
    stream, _ = connected(sim, a, b)
    sim.down = True
    sim.move(a, "x")
    sim.run(5.0)
    assert EventKind.MOVE_FAILED in [event.kind for event in stream.events()]
    assert stream.state is State.ESTABLISHED
    assert stream.next_deadline() is None


def test_data_from_elsewhere_does_not_move_the_peer() -> None:
    sim, a, b = pair()
    stream, peer = connected(sim, a, b)
    home = peer.remote
    sim.tap = True
    stream.write(b"x" * 500)
    sim.run(0.001)
    packet = next(p for p in sim.taps if len(p) > 500)
    header = xip.parse(packet)
    elsewhere = xip.build(header.nxt, header.dst(), host_dag("evil", a.sid), header.payload)
    b.receive(elsewhere, sim.now)
    assert peer.readable == 500
    assert peer.remote is home
    sim.tap = False
    b.transmit(sim.now)
    assert peer.remote is home


def _option(message: migrate.Migrate, stream: object) -> bytes:
    options = xstream.Options(timestamp=(1, 1), migrate=migrate.option_value(message))
    seq = (stream.iss + stream._snd_next) & 0xFFFFFFFF  # type: ignore[attr-defined]
    ack = (stream.irs + stream._received.next) & 0xFFFFFFFF  # type: ignore[attr-defined]
    return xstream.pack(xstream.ACK, seq, ack, 1000, options)


def test_forged_migrates_are_refused() -> None:
    sim, a, b = pair()
    stream, peer = connected(sim, a, b)
    home = peer.remote
    there = host_dag("evil", a.sid)
    owner, thief = KeyPair.from_seed(b"\1" * 32), KeyPair.from_seed(b"\7" * 32)
    seq = 10**18 + 100
    good = migrate.Migrate(seq, there, owner.public)
    signature = owner.sign(good.signed_bytes(a.sid, b.sid))
    forged = [
        good.signed(bytes(64)),
        good.signed(bytes(signature[:-1]) + bytes([signature[-1] ^ 1])),
        migrate.Migrate(seq, there, thief.public).signed(thief.sign(good.signed_bytes(a.sid, b.sid))),
        good._replace(public=thief.public).signed(
            thief.sign(good._replace(public=thief.public).signed_bytes(a.sid, b.sid))
        ),
        good._replace(seq=seq + 1).signed(signature),
        good._replace(dag=host_dag("evil2", a.sid)).signed(signature),
        good.signed(owner.sign(good.signed_bytes(a.sid, thief.xid(0x13)))),
        good.signed(owner.sign(good.signed_bytes(b.sid, a.sid))),
        migrate.Migrate(seq, host_dag("evil", b.sid), owner.public).signed(
            owner.sign(migrate.Migrate(seq, host_dag("evil", b.sid), owner.public).signed_bytes(a.sid, b.sid))
        ),
    ]
    for message in forged:
        b.receive(xip.build(xip.NXT_XSTREAM, b.local, there, _option(message, stream)), sim.now)
        assert peer.remote is home
    assert peer.counters["migrate_refused"] == len(forged)
    b.receive(xip.build(xip.NXT_XSTREAM, b.local, there, _option(good.signed(signature), stream)), sim.now)
    assert peer.remote == there


def test_replayed_and_reordered_migrates_are_stale() -> None:
    sim, a, b = pair(delay=0.005)
    stream, peer = connected(sim, a, b)
    captured = []
    for place in ("one", "two", "three"):
        sim.tap, sim.taps = True, []
        sim.move(a, place)
        sim.run(1.0)
        captured += [p for p in sim.taps if xip.parse(p).src_intent_key == a.sid.key][:1]
        sim.tap = False
    assert peer.remote == host_dag("three", a.sid)
    answered = b.stats["packets_out"]
    for packet in captured[:2]:
        b.receive(packet, sim.now)
        assert peer.remote == host_dag("three", a.sid)
    assert peer.counters["migrate_stale"] == 2
    b.receive(captured[2], sim.now)
    sim.run(0.1)
    assert peer.remote == host_dag("three", a.sid)
    assert b.stats["packets_out"] > answered, "the newest one is acknowledged again"


def test_a_later_move_overtaking_an_earlier_one_wins() -> None:
    sim, a, b = pair()
    stream, peer = connected(sim, a, b)
    a.move(host_dag("one", a.sid), sim.now)
    first = [h + bytes(p) for h, p in a.transmit(sim.now)]
    sim.places[a.sid.key] = {b"two".ljust(20, b"\0")}
    a.move(host_dag("two", a.sid), sim.now)
    second = [h + bytes(p) for h, p in a.transmit(sim.now)]
    for packet in second + first:
        b.receive(packet, sim.now)
    assert peer.remote == host_dag("two", a.sid)
    sim.run(1.0)
    assert stream.stats()["moves"] == 1
    assert not stream.stats()["move_pending"]


def test_acknowledgements_of_a_move_must_be_the_peers_own() -> None:
    sim, a, b = pair()
    stream, peer = connected(sim, a, b)
    sim.down = True
    sim.move(a, "x")
    sim.run(0.001)
    thief = KeyPair.from_seed(b"\7" * 32)
    ack = migrate.MigrateAck(10**18 + 1, thief.public)
    forged = ack.signed(thief.sign(ack.signed_bytes(b.sid, a.sid)))
    options = xstream.Options(timestamp=(1, 1), migrate_ack=migrate.option_value(forged))
    body = xstream.pack(xstream.ACK, peer.iss + 1, stream.iss + 1, 1000, options)
    a.receive(xip.build(xip.NXT_XSTREAM, a.local, b.local, body), sim.now)
    assert stream.stats()["move_pending"]


def test_client_that_moves_during_the_handshake_gets_through() -> None:
    sim, a, b = pair(delay=0.05)
    b.listen()
    stream = a.connect(b.local, sim.now)
    sim.run(0.06)
    sim.move(a, "x")
    assert sim.run(2.0, lambda: stream.state is State.ESTABLISHED and b.acceptable)
    peer = b.accept()
    assert peer is not None
    assert peer.remote == a.local
    stream.write(b"x" * 3000)
    assert sim.run(1.0, lambda: peer.readable == 3000)


def test_server_that_moves_during_the_handshake_answers_from_its_new_place() -> None:
    sim, a, b = pair(delay=0.05)
    b.listen()
    stream = a.connect(b.local, sim.now)
    sim.run(0.02)
    sim.move(b, "y", keep=True)
    assert sim.run(2.0, lambda: stream.state is State.ESTABLISHED)
    assert stream.remote == b.local


def test_a_stream_cannot_move_to_another_sids_address() -> None:
    sim, a, b = pair()
    stream, _ = connected(sim, a, b)
    with pytest.raises(TransportError):
        a.move(b.local, sim.now)
    with pytest.raises(TransportError):
        stream.move(b.local, sim.now)


def test_move_while_closing_still_delivers_the_end() -> None:
    transfer = Transfer(200_000, seed=2, rate=20e6, delay=0.02)
    done = []

    def hook(t: Transfer) -> None:
        if t.stream.state is State.FIN_WAIT_1 and not done and len(t.got) > 100_000:
            done.append(True)
            t.sim.move(t.a, "x")
            t.sim.run(0.05)
            t.sim.move(t.b, "y")

    transfer.hook = hook
    transfer.run()
    assert done


def test_congestion_state_restarts_on_both_sides() -> None:
    transfer = Transfer(4_000_000, seed=2, rate=200e6, delay=0.01)
    windows = []

    def hook(t: Transfer) -> None:
        if len(t.got) > 2_000_000 and not windows:
            windows.append(t.stream.stats()["cwnd"])
            t.sim.move(t.b, "y")
            assert t.peer is not None
            t.sim.run(5.0, lambda: t.stream.counters["migrate_accepted"])
            windows.append(t.stream.stats()["cwnd"])
            windows.append(t.stream.stats()["rto"])

    transfer.hook = hook
    transfer.run()
    before, after, rto = windows
    assert before > 100_000
    assert 12_960 <= after <= 2 * 12_960
    assert rto == 0.3
