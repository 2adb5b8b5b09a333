"""Buffers without a set size grow with the path; those with one do not."""

from __future__ import annotations

from tests.transport.simpath import Path
from tests.transport.transfer import Transfer
from xiatb.transport.autotuning import RECV_MAX, SEND_MAX, WindowGrowth, send_limit

FAST = {"mtu": 9000}


def _fat(config: dict[str, object], size: int) -> Transfer:
    """1 Gbit/s and 100 ms, with a queue that holds whatever the largest buffers let out."""
    transfer = Transfer(size, config=config)
    transfer.sim.path = Path(delay=0.05, rate=1e9, queue=4000)
    return transfer


def test_a_default_stream_fills_a_gigabit_at_100_ms() -> None:
    transfer = _fat(FAST, 170_000_000)
    marks: list[tuple[float, int]] = []

    def hook(t: Transfer) -> None:
        if len(t.got) > (160_000_000 if marks else 80_000_000) and len(marks) < 2:
            marks.append((t.sim.now, len(t.got)))

    transfer.hook = hook
    transfer.run()
    (since, before), (until, after) = marks
    assert (after - before) * 8 / (until - since) > 0.93e9


def test_buffers_of_a_set_size_stay() -> None:
    transfer = _fat({**FAST, "send_buffer": 1 << 20, "recv_buffer": 4 << 20}, 8_000_000)
    sizes = set()

    def hook(t: Transfer) -> None:
        if t.peer is not None:
            sizes.add((t.stream.send_limit, t.peer.recv_limit))
            assert t.stream.unsent + t.stream.unacked <= 1 << 20

    transfer.hook = hook
    transfer.run()
    assert sizes == {(1 << 20, 4 << 20)}


def test_a_limit_set_at_run_time_ends_the_growth() -> None:
    transfer = _fat(FAST, 8_000_000)
    transfer.sim.run(0.15, transfer.pump)
    transfer.stream.set_send_limit(2 << 20)
    transfer.run()
    assert transfer.stream.send_limit == 2 << 20


def test_a_slow_path_grows_no_buffers() -> None:
    transfer = Transfer(3_000_000, rate=20e6, delay=0.01, queue=50)
    transfer.run()
    assert transfer.peer is not None
    assert (transfer.stream.send_limit, transfer.peer.recv_limit) == (1 << 20, 4 << 20)


def test_the_window_doubles_a_round_and_has_a_bound() -> None:
    growth = WindowGrowth(1 << 20, 8 << 20)
    assert growth.on_data(1.0, 0, 0.1) == 1 << 20
    assert growth.due == 1.1
    assert growth.on_data(1.1, 1 << 20, 0.1) == (2 << 20) + (1 << 16)
    assert growth.on_data(1.2, 9 << 20, 0.1) == 8 << 20
    assert growth.on_data(1.3, 9 << 20, 60.0) == 8 << 20
    assert growth.due < 1.5, "an answer after a pause is no round trip"
    assert send_limit(1 << 20, 3 << 20) == (6 << 20) + (1 << 16)
    assert send_limit(1 << 20, SEND_MAX) == SEND_MAX
    assert send_limit(SEND_MAX * 2, SEND_MAX) == SEND_MAX * 2
    assert RECV_MAX >= 2 * 12_500_000
