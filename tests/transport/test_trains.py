"""Trains: segments sent and taken as one have exactly the effect of their packets."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transport.simpath import Simulation
from tests.transport.transfer import Transfer, connected, pair
from xiatb.transport.packets import Out, Packet, lone_packets, payload_offset, stretches
from xiatb.transport.scoreboard import Scoreboard, Segment
from xiatb.transport.stream import Stream
from xiatb.wire import xip, xstream

PACKET = 100


def _board(packets: int) -> Scoreboard:
    board = Scoreboard(1)
    _extend(board, 1, packets, train=True, now=0.0)
    return board


def _extend(board: Scoreboard, start: int, packets: int, *, train: bool, now: float) -> None:
    size = PACKET * packets if train else PACKET
    for at in range(start, start + PACKET * packets, size):
        board.sent(Segment(at, at + size, bytes(size), False, now, PACKET))


def _lost(board: Scoreboard) -> list[tuple[int, int]]:
    """The lost packets."""
    return [
        (at, min(at + PACKET, segment.end))
        for segment in board._segments[board._head :]
        if segment.lost
        for at in range(segment.start, segment.end, PACKET)
    ]


def test_a_train_is_cut_at_the_edges_of_sack_and_the_threshold_counts_packets() -> None:
    board = _board(10)
    board.acknowledge(1, [(301, 501)], 0.1, 0.1)
    assert (board.sacked, board.sacked_segments, board.in_flight) == (200, 2, 800)
    assert board.find_losses(0.1, 0.1, 0.1, False) > 0.1
    assert not board.lost_bytes
    board.acknowledge(1, [(301, 601)], 0.1, 0.1)
    board.find_losses(0.1, 0.1, 0.1, False)
    assert _lost(board) == [(1, 101), (101, 201), (201, 301)]
    assert (board.lost_bytes, board.sacked, board.in_flight) == (300, 300, 400)
    lost = board.next_lost()
    assert lost is not None
    assert (lost.start, lost.end, lost.packets) == (1, 301, 3)


def test_a_packet_that_a_block_covers_in_part_has_not_arrived() -> None:
    board = _board(10)
    board.acknowledge(1, [(350, 649)], 0.1, 0.1)
    assert board.sacked == 200
    assert [s.start for s in board._segments if s.sacked] == [401]


def test_a_partial_acknowledgement_leaves_the_rest_of_a_train() -> None:
    board = _board(10)
    board.acknowledge(401, [], 0.1, 0.1)
    first = board.first()
    assert first is not None
    assert (first.start, first.end, len(first.data), first.packets) == (401, 1001, 600, 6)
    assert (board.newly_delivered, board.in_flight, board.sample) == (400, 600, 0.1)


def test_the_last_packet_is_cut_off_for_a_tail_probe() -> None:
    board = _board(10)
    assert not board.single
    last = board.last(PACKET)
    assert last is not None
    assert (last.start, last.end) == (901, 1001)
    board.resent(last, 0.1)
    board.acknowledge(901, [], 0.2, 0.1)
    assert board.single


def test_only_the_middle_of_a_train_was_refused() -> None:
    board = _board(10)
    assert board.refused(301, 501)
    assert _lost(board) == [(301, 401), (401, 501)]
    assert board.in_flight == 800
    assert not board.refused(301, 501)
    assert not board.refused(1001, 1101)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_a_board_of_trains_finds_what_a_board_of_packets_finds(seed: int) -> None:
    rng = random.Random(seed)
    boards = [Scoreboard(1), Scoreboard(1)]
    now, end, una = 0.0, 1, 1
    for _ in range(25):
        now += rng.choice((0.0, 0.001, 0.02))
        act = rng.random()
        if act < 0.35:
            count = rng.randint(1, 12)
            for board, train in zip(boards, (True, False), strict=True):
                _extend(board, end, count, train=train, now=now)
            end += count * PACKET
        elif act < 0.8 and end > una:
            if rng.random() < 0.5:
                una = rng.randrange(una, end + 1, PACKET)
            blocks = [
                tuple(sorted(rng.choices(range(una, end + 1, PACKET), k=2))) for _ in range(rng.randint(0, 3))
            ]
            recovering = rng.random() < 0.5
            for board in boards:
                board.acknowledge(una, blocks, now, 0.01)  # type: ignore[arg-type]
                board.find_losses(now, 0.01, 0.012, recovering)
        elif act < 0.95:
            for _ in range(rng.randint(1, 6)):
                for board in boards:
                    lost = board.next_lost()
                    if lost is not None:
                        if lost.end - lost.start > PACKET:
                            board.split(lost, PACKET)
                        board.resent(lost, now)
        else:
            for board in boards:
                board.mark_all_lost()
        trains, packets = boards
        assert _lost(trains) == _lost(packets)
        for name in (
            "una", "in_flight", "lost_bytes", "sacked", "sacked_segments", "newly_delivered", "sample",
            "acked_resent_at", "reordering_seen", "newest_sent_at", "lost_total",
        ):  # fmt: skip
            assert getattr(trains, name) == getattr(packets, name), name


def _dropping(transfer: Transfer, wanted: set[int]) -> list[int]:
    """Drop the first transmission of the packets whose payload starts at these positions."""
    original = transfer.sim.send
    dropped: list[int] = []

    def send(packet: bytes) -> None:
        fields = xip.parse_fast(packet)
        header = xstream.parse(packet, fields[-1])
        position = (header.seq - transfer.stream.iss) & 0xFFFFFFFF
        size = len(packet) - fields[-1] - header.length
        if size > 0 and position in wanted and position not in dropped:
            dropped.append(position)
            return
        original(packet)

    transfer.sim.send = send  # type: ignore[method-assign]
    return dropped


def test_loss_inside_a_train_is_repaired_by_those_packets_alone() -> None:
    transfer = Transfer(500_000, seed=2, rate=100e6, delay=0.005, queue=1000)
    wanted = {1 + 1296 * number for number in (40, 41, 47, 100)}
    dropped = _dropping(transfer, wanted)
    transfer.run()
    stats = transfer.stream.stats()
    assert set(dropped) == wanted
    assert stats["retransmitted"] == 4
    assert stats["timeouts"] == 0


def _outs(stream: Stream, outs: list[Out]) -> list[Out]:
    return [out for out in outs if len(out) == 3 and len(out[1]) > stream.mss]


def test_what_goes_out_in_a_burst_is_one_train_of_whole_segments() -> None:
    sim, a, b = pair()
    stream, peer = connected(sim, a, b)
    stream.write(bytes(16_200))
    (train,) = _outs(stream, a.transmit(sim.now))
    packets = list(lone_packets([train]))
    assert [len(payload) for _, payload in packets] == [1296] * 12
    assert [xstream.parse(header, payload_offset(header)).flags for header, _ in packets] == [
        xstream.ACK
    ] * 12
    for header, payload in packets:
        b.receive(header + bytes(payload), sim.now)
    assert peer.readable == 15_552
    assert len(b.transmit(sim.now)) == 1
    assert stream.stats()["segments_out"] == 14


def test_refused_packets_of_a_train_go_out_again_and_no_others() -> None:
    sim, a, b = pair()
    stream, peer = connected(sim, a, b)
    stream.write(bytes(12_960))
    packets = list(lone_packets(a.transmit(sim.now)))
    refused = [packets[number] for number in (2, 3, 7)]
    assert [count for *_, count in stretches(refused)] == [2, 1]
    for packet in packets:
        if packet not in refused:
            sim.send(packet[0] + packet[1])
    a.not_sent(refused, sim.now)
    assert stream.stats()["in_flight"] == 7 * 1296
    assert sim.run(2.0, lambda: peer.readable == 12_960)
    assert stream.stats()["retransmitted"] == stream.stats()["refused"] == 3


def test_a_smaller_mtu_cuts_trains_that_are_under_way() -> None:
    transfer = Transfer(900_000, config={"mtu": 9000}, seed=3, delay=0.005, rate=80e6, loss=0.02)
    sizes = [9000, 3000, 1200]

    def hook(t: Transfer) -> None:
        if len(sizes) > 1 and len(t.got) > 300_000 * (4 - len(sizes)) - 150_000:
            del sizes[0]
            t.a.set_mtu(sizes[0])

    transfer.hook = hook
    transfer.run()
    assert sizes == [1200]


def test_a_move_in_the_middle_of_a_train_loses_nothing() -> None:
    sim, a, b = pair(delay=0.01)
    stream, peer = connected(sim, a, b)
    data = random.Random(1).randbytes(40_000)
    stream.write(data)
    packets = list(lone_packets(a.transmit(sim.now)))
    assert len(packets) == 12
    for header, payload in packets[:4]:
        sim.send(header + payload)
    sim.move(a, "elsewhere")
    assert sim.run(5.0, lambda: peer.readable == len(data))
    assert peer.read() == data
    assert stream.stats()["moves"] == 1


def _twins(data: bytes, arrivals: list[int], cuts: random.Random) -> tuple[Stream, Stream]:
    """Two receivers of the packets of one train of `data`: one packet by packet, one in trains.

    `arrivals`: numbers of packets in the order in which they come; neighbours are joined at random.
    """
    ends: list[Stream] = []
    for joined in (False, True):
        sim = Simulation(7)
        a, b = sim.add(1, "a"), sim.add(2, "b")
        stream, peer = connected(sim, a, b)
        stream.write(data)
        packets = list(lone_packets(a.transmit(sim.now, 1000)))
        assert len(packets) == -(-len(data) // 1296)
        at = 0
        while at < len(arrivals):
            run = 1
            while (
                joined
                and at + run < len(arrivals)
                and arrivals[at + run] == arrivals[at] + run
                and cuts.random() < 0.8
            ):
                run += 1
            chosen: list[Packet] = [packets[number] for number in arrivals[at : at + run]]
            if run > 1:
                b.receive_train(chosen[0][0], b"".join(p for _, p in chosen), run, sim.now)
            else:
                b.receive(chosen[0][0] + chosen[0][1], sim.now)
            at += run
        ends.append(peer)
    return ends[0], ends[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12_960), st.integers(0, 2**32))
def test_a_train_taken_as_one_has_the_effect_of_its_packets(size: int, seed: int) -> None:
    rng = random.Random(seed)
    count = -(-size // 1296)
    arrivals = [number for number in range(count) if rng.random() < 0.8]
    arrivals += [rng.randrange(count) for _ in range(rng.randint(0, 4))]
    if rng.random() < 0.3:
        cut = rng.randint(0, len(arrivals))
        arrivals = arrivals[cut:] + arrivals[:cut]
    data = rng.randbytes(size)
    single, joined = _twins(data, arrivals, rng)
    for name in ("_ts_recent", "_offered", "_ack_now", "_peer_segment", "_heard"):
        assert getattr(single, name) == getattr(joined, name), name
    if not single._ack_now:
        assert (single._ack_at, single._unacked_in) == (joined._ack_at, joined._unacked_in)
    one, other = single._received, joined._received
    assert (one.next, one.size, one.held) == (other.next, other.size, other.held)
    assert sorted(one.sack_blocks(50)) == sorted(other.sack_blocks(50))
    assert single.counters["segments_in"] == joined.counters["segments_in"]
    assert single.counters["bytes_in"] == joined.counters["bytes_in"]
    assert single.read() == joined.read() == data[: one.next - 1]


def test_a_train_for_a_connection_not_yet_complete_completes_it() -> None:
    sim, a, b = pair()
    b.listen()
    stream = a.connect(b.local, sim.now)
    for header, _ in lone_packets(a.transmit(sim.now)):
        b.receive(header, sim.now)
    for header, _ in lone_packets(b.transmit(sim.now)):
        a.receive(header, sim.now)
    stream.write(bytes(5000))
    (train,) = _outs(stream, a.transmit(sim.now))
    b.receive_train(train[0], bytes(train[1]), 4, sim.now)
    peer = b.accept()
    assert peer is not None
    assert peer.readable == 5000
