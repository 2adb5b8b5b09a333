"""Datagrams and their peers' moves."""

from __future__ import annotations

import pytest

from tests.transport.simpath import Simulation, host_dag
from tests.transport.transfer import pair
from xiatb.errors import TransportError
from xiatb.identity.keys import KeyPair
from xiatb.transport.config import DatagramConfig
from xiatb.transport.datagram import Datagram
from xiatb.transport.endpoint import Endpoint
from xiatb.wire import migrate, xdgram, xip
from xiatb.wire.xid import XID, XidType


def _settle(sim: Simulation, *endpoints: Endpoint) -> None:
    assert sim.run(5.0, lambda: not any(e.datagram.move_pending for e in endpoints))


def test_there_and_back() -> None:
    sim, a, b = pair()
    assert a.send_datagram(b"ping", b.local, sim.now)
    sim.run(0.1)
    assert b.receive_datagrams() == [(b"ping", a.local)]
    assert b.receive_datagrams() == []
    b.send_datagram(memoryview(bytearray(b"pong")), a.local, sim.now)
    sim.run(0.1)
    assert a.receive_datagrams() == [(b"pong", b.local)]


def test_wire_form_is_the_plain_one() -> None:
    key = KeyPair.from_seed(b"\1" * 32)
    sid = key.xid(XidType.SID)
    to = host_dag("b", XID(XidType.SID, bytes(20)))
    socket = Datagram(sid, key, host_dag("a", sid))
    socket.send(b"hello", to, 0.0)
    ((header, payload),) = socket.transmit(0.0)
    assert header + payload == xip.build(xip.NXT_XDGRAM, to, host_dag("a", sid), xdgram.pack(b"hello"))


def test_sender_to_a_fixed_address_follows_a_move_at_once() -> None:
    """What the client's 1 kHz probe of a migrating guest does."""
    sim, client, guest = pair(delay=0.005)
    fixed = guest.local
    answers: list[float] = []
    due = sim.now
    moved_at = 0.0
    count = 0

    def pump() -> bool:
        nonlocal due, count, moved_at
        while sim.now >= due:
            client.send_datagram(count.to_bytes(4, "big"), fixed, sim.now)
            count += 1
            due += 0.001
        for data, source in guest.receive_datagrams():
            guest.send_datagram(data, source, sim.now)
        answers.extend(sim.now for _ in client.receive_datagrams())
        if count > 500 and not moved_at:
            moved_at = sim.now
            sim.move(guest, "new")
        return count > 1000

    for _ in range(4000):
        sim.run(0.0005, pump)
    gaps = [later - earlier for earlier, later in zip(answers, answers[1:], strict=False)]
    assert max(gaps) < 0.025
    assert len(answers) > 950
    assert client.datagram.peer_dag(guest.sid) == guest.local
    assert client.datagram.stats["redirected"] > 400
    assert guest.datagram.stats["moves_acknowledged"] == 1


def test_moving_there_and_back_again_leaves_no_trace() -> None:
    sim, a, b = pair()
    home = b.local
    a.send_datagram(b"1", home, sim.now)
    sim.run(0.1)
    for place in ("x", "b", "x", "b"):
        sim.move(b, place)
        _settle(sim, b)
        b.receive_datagrams()
        a.send_datagram(b"2", home, sim.now)
        sim.run(0.1)
        assert b.receive_datagrams() == [(b"2", a.local)]


def test_an_address_that_was_never_outdated_is_used_as_given() -> None:
    sim, a, b = pair()
    a.send_datagram(b"1", b.local, sim.now)
    sim.run(0.1)
    sim.move(b, "x")
    _settle(sim, b)
    b.local = host_dag("y", b.sid)
    sim.places[b.sid.key] = {b"y".ljust(20, b"\0")}
    b.receive_datagrams()
    a.send_datagram(b"fresh", host_dag("y", b.sid), sim.now)
    sim.run(0.1)
    assert b.receive_datagrams() == [(b"fresh", a.local)]


def test_lost_migrates_are_repeated_and_both_may_move() -> None:
    sim, a, b = pair(seed=9, loss=0.5)
    a.datagram.connect(b.local, sim.now)
    b.datagram.connect(a.local, sim.now)
    for round_ in range(5):
        sim.move(a, f"a{round_}", keep=True)
        sim.move(b, f"b{round_}", keep=True)
        _settle(sim, a, b)
        assert a.datagram.peer_dag(b.sid) == b.local
        assert b.datagram.peer_dag(a.sid) == a.local


def test_only_recent_and_connected_peers_are_told() -> None:
    sim, a, b = pair()
    a.send_datagram(b"1", b.local, sim.now)
    sim.run(0.1)
    sim.now += 100.0
    sim.move(a, "x")
    assert a.datagram.move_pending == 0
    a.datagram.connect(b.local, sim.now)
    sim.now += 100.0
    sim.move(a, "y")
    assert a.datagram.move_pending == 1


def test_peers_are_bounded_and_strangers_do_not_push_out_partners() -> None:
    sim, a, b = pair()
    a.send_datagram(b"1", b.local, sim.now)
    for i in range(500):
        stranger = XID(XidType.SID, i.to_bytes(20, "big"))
        a.receive(xip.build(xip.NXT_XDGRAM, a.local, host_dag("s", stranger), xdgram.pack(b"x")), sim.now)
    assert len(a.datagram._peers) == 64
    assert b.sid.key in a.datagram._peers
    sim.run(0.1)
    sim.move(b, "z")
    _settle(sim, b)
    assert a.datagram.peer_dag(b.sid) == b.local


def _message(key: KeyPair, seq: int, place: str, peer: XID) -> bytes:
    sid = key.xid(XidType.SID)
    message = migrate.Migrate(seq, host_dag(place, sid), key.public)
    return migrate.pack_header(message.signed(key.sign(message.signed_bytes(sid, peer))), xip.NXT_DATA)


def test_forged_and_replayed_migrates_are_refused_even_after_the_peer_was_forgotten() -> None:
    sim, a, b = pair()
    owner, thief = KeyPair.from_seed(b"\2" * 32), KeyPair.from_seed(b"\7" * 32)
    a.send_datagram(b"1", b.local, sim.now)

    def give(body: bytes) -> None:
        a.receive(xip.build(xip.NXT_MIGRATE, a.local, b.local, body), sim.now)

    give(_message(thief, 5, "evil", a.sid))
    give(_message(owner, 5, "evil", b.sid))
    assert a.datagram.peer_dag(b.sid) is None
    assert a.datagram.stats["migrate_refused"] == 2
    give(_message(owner, 5, "one", a.sid))
    give(_message(owner, 6, "two", a.sid))
    give(_message(owner, 5, "one", a.sid))
    assert a.datagram.peer_dag(b.sid) == host_dag("two", b.sid)
    a.datagram._peers.clear()
    give(_message(owner, 5, "one", a.sid))
    assert a.datagram.peer_dag(b.sid) is None
    assert a.datagram.stats["migrate_stale"] == 2


def test_move_sequences_rise_even_for_a_peer_met_anew() -> None:
    sim, a, b = pair()
    a.send_datagram(b"1", b.local, sim.now)
    sim.run(0.1)
    sim.move(a, "x")
    _settle(sim, a)
    a.datagram._peers.clear()
    a.send_datagram(b"1", b.local, sim.now)
    sim.run(0.1)
    sim.move(a, "y")
    _settle(sim, a)
    assert b.datagram.peer_dag(a.sid) == a.local


def test_unkeyed_sender_can_hear_of_moves_but_not_make_them() -> None:
    sim, a, b = pair()
    sid = XID(XidType.SID, bytes.fromhex("30000ff0") + bytes(16))
    client = Endpoint(None, sid, host_dag("c", sid))
    sim.endpoints[sid.key] = client
    sim.places[sid.key] = {b"c".ljust(20, b"\0")}
    fixed = b.local
    client.send_datagram(b"1", fixed, sim.now)
    sim.run(0.1)
    sim.move(b, "z")
    _settle(sim, b)
    assert b.datagram.stats["moves_acknowledged"] == 1
    b.receive_datagrams()
    client.send_datagram(b"2", fixed, sim.now)
    sim.run(0.1)
    assert b.receive_datagrams() == [(b"2", client.local)]
    sim.move(client, "d")
    assert client.datagram.move_pending == 0
    body = _message(KeyPair.from_seed(b"\7" * 32), 5, "evil", b.sid)
    b.receive(xip.build(xip.NXT_MIGRATE, b.local, client.local, body), sim.now)
    assert b.datagram.peer_dag(sid) is None


def test_full_queue_is_reported() -> None:
    _, a, b = pair()
    results = [a.send_datagram(b"x", b.local, 0.0) for _ in range(5000)]
    assert results.count(True) == 4096
    assert a.datagram.stats["queue_full"] == 904


def test_datagrams_for_others_and_broken_ones_are_counted() -> None:
    _, a, b = pair()
    a.receive(xip.build(xip.NXT_XDGRAM, b.local, b.local, xdgram.pack(b"x")), 0.0)
    assert a.stats["misrouted"] == 1
    a.receive(xip.build(xip.NXT_XDGRAM, a.local, b.local, b"\0"), 0.0)
    a.receive(xip.build(77, a.local, b.local, b"\0\1\0\0"), 0.0)
    a.receive(xip.build(xip.NXT_MIGRATE, a.local, b.local, b"\0\1\0\0"), 0.0)
    assert a.stats["malformed"] == 3
    assert a.datagram.receive(b"junk", 0.0) == []
    with pytest.raises(TransportError):
        a.datagram.move(b.local, 0.0)


def test_config_is_kept() -> None:
    key = KeyPair.from_seed(b"\1" * 32)
    sid = key.xid(XidType.SID)
    assert Datagram(sid, key, host_dag("a", sid), DatagramConfig(mtu=9000)).mtu == 9000


def test_a_restarted_mover_goes_on_above_its_predecessor() -> None:
    sim, a, b = pair()
    a.datagram.connect(b.local, sim.now)
    sim.move(a, "x")
    _settle(sim, a)
    sim.move(a, "y")
    _settle(sim, a)
    for later, accepted in ((0, False), (1_000_000_000, True)):
        again = Endpoint(
            KeyPair.from_seed(b"\1" * 32),
            a.sid,
            a.local,
            datagram_config=DatagramConfig(move_base=10**18 + later),
        )
        sim.endpoints[a.sid.key] = again
        again.datagram.connect(b.local, sim.now)
        sim.move(again, f"z{later}")
        sim.run(1.0)
        assert (b.datagram.peer_dag(a.sid) == again.local) is accepted
