"""Flow control, acknowledgement policy, keep-alive, and what the writer is told."""

from __future__ import annotations

import pytest

from tests.transport.simpath import Path
from tests.transport.transfer import Transfer, connected, pair
from xiatb.errors import TransportError
from xiatb.transport import errors
from xiatb.transport.events import EventKind
from xiatb.transport.stream import State
from xiatb.wire import xip, xstream


def test_slow_reader_closes_the_window_and_loses_nothing() -> None:
    transfer = Transfer(400_000, config={"recv_buffer": 32_768}, rate=100e6, delay=0.002)
    sim = transfer.sim
    peak = 0
    due = 0.0

    def pump() -> bool:
        nonlocal peak, due
        stream = transfer.stream
        if stream.state is State.ESTABLISHED and transfer.sent < len(transfer.data):
            transfer.sent += stream.write(memoryview(transfer.data)[transfer.sent :])
            if transfer.sent == len(transfer.data):
                stream.shutdown()
        transfer.peer = transfer.peer or transfer.b.accept()
        peer = transfer.peer
        if peer is not None:
            peak = max(peak, peer.readable + peer._received.held)
            if sim.now >= due:
                due = sim.now + 0.2
                transfer.got += peer.read(30_000)
        return len(transfer.got) == len(transfer.data)

    assert sim.run(200.0, pump)
    assert transfer.got == transfer.data
    assert peak <= 32_768 + 1296


def test_stopped_reader_is_probed_and_the_stream_goes_on_when_it_reads() -> None:
    sim, a, b = pair(config={"recv_buffer": 16_384, "give_up": 5.0})
    stream, peer = connected(sim, a, b)
    data = bytes(range(256)) * 400
    sent = stream.write(data)
    sim.run(120.0)
    assert stream.state is State.ESTABLISHED, "a peer that answers probes is alive"
    assert stream.unsent > 0
    assert stream.counters["segments_out"] < 100, "probes back off"
    got = bytearray()

    def pump() -> bool:
        nonlocal sent
        got.extend(peer.read())
        return len(got) == len(data)

    assert sent == len(data)
    assert sim.run(5.0, pump)
    assert bytes(got) == data


def test_lost_window_update_is_made_good_by_a_probe() -> None:
    sim, a, b = pair(config={"recv_buffer": 8192})
    stream, peer = connected(sim, a, b)
    stream.write(bytes(20_000))
    sim.run(3.0)
    sim.down = True
    taken = len(peer.read())
    sim.run(1.0)
    sim.down = False
    total = taken

    def pump() -> bool:
        nonlocal total
        total += len(peer.read())
        return total == 20_000

    assert sim.run(15.0, pump)


def test_silent_peer_with_closed_window_is_given_up() -> None:
    sim, a, b = pair(config={"recv_buffer": 8192, "give_up": 5.0, "keepalive_idle": 0.0})
    stream, _ = connected(sim, a, b)
    stream.write(bytes(20_000))
    sim.run(3.0)
    sim.down = True
    sim.run(60.0)
    assert isinstance(stream.error, errors.TimedOutError)


def test_unacknowledged_data_is_given_up_after_the_set_time() -> None:
    sim, a, b = pair(config={"give_up": 4.0})
    stream, _ = connected(sim, a, b)
    sim.down = True
    stream.write(b"x")
    began = sim.now
    assert sim.run(60.0, lambda: stream.error is not None)
    assert isinstance(stream.error, errors.TimedOutError)
    assert 4.0 <= sim.now - began < 9.0


def test_keep_alive_notices_a_dead_peer_and_spares_a_live_one() -> None:
    config = {"keepalive_idle": 10.0, "keepalive_interval": 1.0, "keepalive_probes": 3}
    sim, a, b = pair(config=config)
    stream, peer = connected(sim, a, b)
    sim.run(200.0)
    assert stream.state is peer.state is State.ESTABLISHED
    assert a.stats["packets_in"] + b.stats["packets_in"] < 120
    sim.down = True
    began = sim.now
    assert sim.run(60.0, lambda: stream.error is not None and peer.error is not None)
    assert isinstance(stream.error, errors.TimedOutError)
    assert sim.now - began < 30.0


def test_keep_alive_answers_across_a_half_closed_stream() -> None:
    config = {"keepalive_idle": 10.0, "keepalive_interval": 1.0, "keepalive_probes": 3}
    sim, a, b = pair(config=config)
    stream, peer = connected(sim, a, b)
    stream.shutdown()
    sim.run(200.0)
    assert (stream.state, peer.state) == (State.FIN_WAIT_2, State.CLOSE_WAIT)


def test_keep_alive_can_be_switched_off() -> None:
    sim, a, b = pair(config={"keepalive_idle": 0.0})
    stream, _ = connected(sim, a, b)
    sim.run(1.0)
    assert stream.next_deadline() is None


def test_acknowledgements_are_delayed_but_not_long() -> None:
    sim, a, b = pair(delay=0.001)
    stream, peer = connected(sim, a, b)
    sim.run(1.0)
    before = b.stats["packets_out"]
    stream.write(b"x")
    sim.run(0.01)
    assert peer.readable == 1
    assert b.stats["packets_out"] == before
    sim.run(0.05)
    assert b.stats["packets_out"] == before + 1
    assert stream.unacked == 0


def test_writer_is_woken_when_there_is_room_again() -> None:
    sim, a, b = pair(config={"send_buffer": 50_000}, rate=10e6)
    stream, peer = connected(sim, a, b)
    stream.events()
    assert stream.write(bytes(80_000)) == 50_000
    assert stream.write(b"x") == 0
    assert stream.send_space == 0

    def pump() -> bool:
        peer.read()
        return any(event.kind is EventKind.WRITABLE for event in stream.events())

    assert sim.run(5.0, pump)
    assert stream.send_space >= 12_500


def test_unsent_bytes_and_send_limit_are_bounded() -> None:
    sim, a, b = pair(config={"unsent_limit": 10_000}, rate=10e6)
    stream, peer = connected(sim, a, b)
    most = 0

    def pump() -> bool:
        nonlocal most
        stream.write(bytes(100_000))
        most = max(most, stream.unsent)
        peer.read()
        return False

    sim.run(1.0, pump)
    assert most == 10_000
    stream.set_send_limit(20_000)
    sim.run(1.0, lambda: bool(peer.read()) and False)
    assert stream.send_space > 0
    while stream.write(bytes(5000)):
        pass
    assert stream.unsent + stream.unacked <= 20_000
    with pytest.raises(TransportError):
        stream.set_send_limit(1)


def test_data_beyond_the_offered_window_is_not_stored() -> None:
    sim, a, b = pair(config={"recv_buffer": 8192})
    stream, peer = connected(sim, a, b)
    seq = stream.iss + 1
    for i in range(40):
        body = xstream.pack_plain(xstream.ACK, seq + i * 1000, stream.irs + 1, 100, 1, 1) + bytes(1000)
        b.receive(xip.build(xip.NXT_XSTREAM, b.local, a.local, body), sim.now)
    assert peer.readable + peer._received.held <= 65_535
    far = xstream.pack_plain(xstream.ACK, seq + (1 << 24), stream.irs + 1, 100, 1, 1) + bytes(1000)
    b.receive(xip.build(xip.NXT_XSTREAM, b.local, a.local, far), sim.now)
    assert peer._received.held == 0


def test_acknowledgement_of_unsent_data_is_ignored() -> None:
    sim, a, b = pair()
    stream, peer = connected(sim, a, b)
    body = xstream.pack_plain(xstream.ACK, peer.iss + 1, stream.iss + 500, 100, 1, 1)
    a.receive(xip.build(xip.NXT_XSTREAM, a.local, b.local, body), sim.now)
    assert stream._board.una == 1
    assert stream.state is State.ESTABLISHED


@pytest.mark.parametrize("peer_options", ["none", "no_sack"])
def test_peer_without_options_is_served(peer_options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """xia-core knows no SACK; another stack may know no timestamps and no scaling either."""
    import xiatb.transport.endpoint as module

    parse = xstream.parse

    def stripped(buf: bytes, off: int = 0, end: int | None = None) -> xstream.Header:
        header = parse(buf, off, end)
        header.options.sack_permitted = False
        if peer_options == "none":
            header.options.wscale = header.options.timestamp = header.options.mss = None
        return header

    monkeypatch.setattr(module.xstream, "parse", stripped)
    Transfer(600_000, seed=3, rate=50e6, delay=0.01, loss=0.02, queue=100).run()


def test_window_scales_to_a_long_fat_path() -> None:
    config = {"mtu": 9000, "recv_buffer": 16 << 20, "send_buffer": 16 << 20}
    transfer = Transfer(24_000_000, config=config)
    transfer.sim.path = Path(delay=0.05, rate=1e9, queue=4000)
    transfer.run()
    assert transfer.goodput > 150e6
    assert transfer.stream.stats()["retransmitted"] == 0
