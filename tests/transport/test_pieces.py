"""RTT estimator, congestion control, send and receive buffers, scoreboard: each alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xiatb.transport import congestion
from xiatb.transport.config import StreamConfig
from xiatb.transport.reassembly import ReceiveBuffer
from xiatb.transport.rtt import RttEstimator
from xiatb.transport.scoreboard import Scoreboard, Segment
from xiatb.transport.sendbuffer import SendBuffer


def _make(name: str, mss: int, initial_window: int) -> congestion.CongestionControl:
    return congestion.make(name, mss, initial_window, random.Random(1))


def test_rtt_first_sample_and_backoff_follow_rfc_6298() -> None:
    rtt = RttEstimator(1.0, 0.01, 60.0)
    assert rtt.rto == 1.0
    rtt.sample(0.1, 0.0)
    assert (rtt.srtt, rtt.rttvar) == (0.1, 0.05)
    assert rtt.rto == pytest.approx(0.3)
    rtt.back_off()
    rtt.back_off()
    assert rtt.rto == pytest.approx(1.2)
    rtt.sample(0.1, 1.0)
    assert rtt.rttvar == pytest.approx(0.0375)
    assert rtt.rto == pytest.approx(0.25)


def test_rtt_is_bounded_and_restarts() -> None:
    rtt = RttEstimator(0.3, 0.2, 5.0)
    rtt.sample(0.001, 0.0)
    assert rtt.rto == 0.2
    for _ in range(20):
        rtt.back_off()
    assert rtt.rto == 5.0
    rtt.restart(0.3)
    assert rtt.rto == 0.3
    rtt.sample(0.05, 1.0)
    assert rtt.srtt == 0.05


def test_rtt_minimum_is_forgotten_after_its_window() -> None:
    rtt = RttEstimator(0.3, 0.2, 5.0)
    rtt.sample(0.01, 0.0)
    for second in range(1, 40):
        rtt.sample(0.05, float(second))
    assert rtt.min_rtt == 0.05


def test_reno_slow_start_avoidance_and_halving() -> None:
    reno = _make("reno", 1000, 10)
    assert reno.cwnd == 10_000
    reno.on_ack(10_000, 0.0, 0.1)
    assert reno.cwnd == 20_000
    reno.on_congestion(0.0, 20_000)
    assert reno.cwnd == reno.ssthresh == 10_000
    reno.on_ack(10_000, 0.1, 0.1)
    assert reno.cwnd == 11_000
    reno.on_timeout(0.2, 11_000)
    assert reno.cwnd == 1000
    assert reno.ssthresh == 5500
    reno.undo()
    assert reno.cwnd == 11_000


def test_cubic_returns_to_its_peak_after_k_seconds_and_then_passes_it() -> None:
    cubic = _make("cubic", 1000, 10)
    cubic.cwnd, cubic.ssthresh = 1_000_000, 1_000_000
    cubic.on_congestion(0.0, 1_000_000)
    assert cubic.cwnd == 700_000
    k = (1000 * 0.3 / 0.4) ** (1 / 3)
    now, rtt = 0.0, 0.05
    reached = None
    while now < 2 * k:
        cubic.on_ack(cubic.cwnd, now, rtt)
        now += rtt
        if reached is None and cubic.cwnd >= 995_000:
            reached = now
    assert reached == pytest.approx(k, rel=0.35)
    assert cubic.cwnd > 1_100_000


def test_cubic_fast_convergence_gives_way() -> None:
    cubic = congestion.Cubic(1000)
    cubic.cwnd = cubic.ssthresh = 100_000
    cubic.on_congestion(0.0, 100_000)
    cubic.on_congestion(1.0, 70_000)
    assert cubic._w_max == pytest.approx(70 * 1.7 / 2)


@pytest.mark.parametrize("name", ["cubic", "reno"])
def test_path_change_restarts_from_the_initial_window_with_the_old_one_as_threshold(name: str) -> None:
    control = _make(name, 1000, 10)
    control.cwnd = control.ssthresh = 500_000
    control.on_path_change()
    assert (control.cwnd, control.ssthresh) == (10_000, 500_000)


def test_initial_window_of_huge_segments_is_bounded_in_bytes() -> None:
    assert _make("cubic", 65_000, 10).cwnd == 130_000


def test_unknown_congestion_control_is_refused() -> None:
    with pytest.raises(ValueError, match="vegas"):
        StreamConfig(congestion="vegas")
    with pytest.raises(ValueError, match="mtu"):
        StreamConfig(mtu=100)


@given(
    st.lists(st.binary(max_size=5000), max_size=30), st.lists(st.integers(1, 3000), min_size=1, max_size=20)
)
def test_send_buffer_gives_back_what_went_in(writes: list[bytes], takes: list[int]) -> None:
    buffer = SendBuffer()
    out = bytearray()
    for i, data in enumerate(writes):
        buffer.append(bytearray(data) if i % 2 else data)
        limit = takes[i % len(takes)]
        if buffer.size:
            piece = buffer.take(limit)
            assert 0 < len(piece) <= limit
            out += piece
    while buffer.size:
        out += buffer.take(takes[0])
    assert bytes(out) == b"".join(writes)


def test_send_buffer_does_not_copy_immutable_data() -> None:
    buffer = SendBuffer()
    data = bytes(100_000)
    buffer.append(memoryview(data)[:50_000])
    assert buffer.take(1000).obj is data


def test_send_buffer_copies_what_can_change() -> None:
    buffer = SendBuffer()
    data = bytearray(b"a" * 5000)
    buffer.append(memoryview(data).toreadonly())
    data[:] = b"b" * 5000
    assert buffer.take(5000) == b"a" * 5000


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(1, 400))
def test_reassembly_is_exact_for_any_arrival(seed: int, size: int) -> None:
    rng = random.Random(seed)
    data = rng.randbytes(size)
    buffer = ReceiveBuffer(1, 1 << 20)
    out = bytearray()
    covered: set[int] = set()
    while len(covered) < size:
        start = rng.randrange(size)
        end = min(size, start + rng.randint(1, 60))
        repeated = buffer.insert(1 + start, data[start:end])
        old = covered & set(range(start, end))
        assert (repeated is not None) == bool(old)
        covered |= set(range(start, end))
        for left, right in buffer.sack_blocks(8):
            assert set(range(left - 1, right - 1)) <= covered
            assert left > buffer.next
        if rng.random() < 0.3:
            out += buffer.read(rng.randint(1, 50))
    out += buffer.read(1 << 30)
    assert bytes(out) == data
    assert (buffer.held, buffer.size, buffer.has_gap) == (0, 0, False)


def test_reassembly_reports_the_latest_range_first() -> None:
    buffer = ReceiveBuffer(0, 1 << 20)
    for start in (10, 30, 50):
        buffer.insert(start, b"x" * 5)
    buffer.insert(35, b"y" * 5)
    assert buffer.sack_blocks(3) == [(30, 40), (50, 55), (10, 15)]
    assert buffer.sack_blocks(1) == [(30, 40)]


def test_reassembly_bounds_the_number_of_pieces() -> None:
    buffer = ReceiveBuffer(0, 4096)
    for i in range(10_000):
        buffer.insert(2 + 2 * i, b"x")
    assert len(buffer._pieces) == 4096
    buffer.insert(0, b"ab")
    assert buffer.next == 3


def test_tiny_in_order_segments_are_glued() -> None:
    buffer = ReceiveBuffer(0, 1 << 20)
    for _ in range(10_000):
        buffer.append(b"x")
    assert len(buffer._chunks) < 10
    target = bytearray(10_000)
    assert buffer.read_into(memoryview(target)) == 10_000
    assert bytes(target) == b"x" * 10_000


def _board(count: int, size: int = 100) -> tuple[Scoreboard, list[Segment]]:
    board = Scoreboard(1)
    segments = []
    for i in range(count):
        segment = Segment(1 + i * size, 1 + (i + 1) * size, bytes(size), False, 0.001 * i)
        board.sent(segment)
        segments.append(segment)
    return board, segments


def test_scoreboard_finds_a_hole_after_three_sacks() -> None:
    board, segments = _board(10)
    board.acknowledge(101, [], 0.1, 0.1)
    board.acknowledge(101, [(201, 401)], 0.1, 0.1)
    assert board.find_losses(0.1, 0.1, 0.1, False) > 0.1
    assert not board.lost_bytes
    board.acknowledge(101, [(201, 501)], 0.105, 0.1)
    board.find_losses(0.105, 0.1, 0.1, False)
    assert board.next_lost() is segments[1]
    assert (board.lost_bytes, board.sacked, board.in_flight) == (100, 300, 500)


def test_scoreboard_finds_a_lost_retransmission() -> None:
    board, segments = _board(10)
    board.acknowledge(1, [(101, 401)], 0.1, 0.1)
    board.find_losses(0.1, 0.1, 0.1, False)
    board.resent(segments[0], 0.1)
    late = Segment(1001, 1101, bytes(100), False, 0.11)
    board.sent(late)
    board.acknowledge(1, [(101, 1101)], 0.21, 0.1)
    board.find_losses(0.21, 0.1, 0.1, True)
    assert board.next_lost() is segments[0]


def test_scoreboard_learns_of_reordering() -> None:
    board, _ = _board(10)
    board.acknowledge(1, [(101, 201)], 0.1, 0.1)
    assert not board.reordering_seen
    board.acknowledge(201, [], 0.101, 0.1)
    assert board.reordering_seen


@settings(max_examples=200)
@given(st.integers(0, 2**32))
def test_scoreboard_accounts_add_up(seed: int) -> None:
    """Bytes in flight, SACKed and lost are always what the segments' marks say."""
    rng = random.Random(seed)
    board = Scoreboard(1)
    end, now = 1, 0.0
    for _ in range(120):
        now += 0.001
        act = rng.random()
        if act < 0.4:
            size = rng.randint(1, 200)
            board.sent(Segment(end, end + size, bytes(size), False, now))
            end += size
        elif act < 0.75 and end > board.una:
            blocks = []
            for _ in range(rng.randint(0, 3)):
                left = rng.randint(board.una, end)
                blocks.append((left, rng.randint(left, end + 5)))
            board.acknowledge(rng.randint(board.una, end), blocks, now, 0.001)
            board.find_losses(now, 0.002, 0.002, rng.random() < 0.5)
        elif act < 0.9:
            lost = board.next_lost()
            if lost is not None:
                if len(lost.data) > 50:
                    lost = board.split(lost, 50)
                board.resent(lost, now)
        elif act < 0.93:
            board.mark_all_lost()
        elif act < 0.95:
            board.unmark_lost()
        elif act < 0.96:
            board.forget_sacks()
        live = board._segments[board._head :]
        assert board.sacked == sum(s.end - s.start for s in live if s.sacked)
        assert board.lost_bytes == sum(s.end - s.start for s in live if s.lost)
        assert board.in_flight == sum(s.end - s.start for s in live if not s.lost and not s.sacked)
        assert all(len(s.data) == s.end - s.start for s in live)
        assert (board.lost_bytes > 0) == (board.next_lost() is not None)
