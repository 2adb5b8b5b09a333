"""The delay queue against what it was told to do."""

from __future__ import annotations

import random

from xiatb.lab.delayqueue import DelayQueue
from xiatb.lab.plan import Impairment

MS = 10**6


def test_constant_delay_keeps_order_and_time() -> None:
    queue = DelayQueue(Impairment(delay=5 * MS), random.Random(1))
    for number in range(10):
        queue.push(bytes([number]), number * MS)
    assert queue.next_time() == 5 * MS
    assert queue.pop_due(5 * MS - 1) == []
    assert queue.pop_due(9 * MS) == [bytes([number]) for number in range(5)]
    assert queue.pop_due(100 * MS) == [bytes([number]) for number in range(5, 10)]
    assert queue.next_time() is None


def test_jitter_stays_within_bounds_and_spreads() -> None:
    queue = DelayQueue(Impairment(delay=5 * MS, jitter=2 * MS), random.Random(1))
    lateness = []
    for number in range(1000):
        queue.push(b"x", number * 100 * MS)
        lateness.append((queue.next_time() or 0) - number * 100 * MS)
        queue.pop_due(number * 100 * MS + 50 * MS)
    assert 3 * MS <= min(lateness) < 3.2 * MS
    assert 6.8 * MS < max(lateness) <= 7 * MS


def test_shares_are_met_and_reproducible() -> None:
    def run(seed: int) -> dict[str, int]:
        queue = DelayQueue(
            Impairment(delay=MS, loss=10_000, duplicate=20_000, reorder=50_000), random.Random(seed)
        )
        for number in range(100_000):
            queue.push(b"frame", number)
            if number % 100 == 0:
                queue.pop_due(number)
        return queue.counters()

    counters = run(7)
    assert counters == run(7) != run(8)
    assert 900 <= counters["lost"] <= 1100
    assert 1850 <= counters["duplicated"] <= 2150
    assert 4800 <= counters["reordered"] <= 5400


def test_bytes_are_bounded() -> None:
    queue = DelayQueue(Impairment(delay=MS), random.Random(1), limit=100)
    for _ in range(20):
        queue.push(b"0123456789", 0)
    assert queue.counters()["overflowed"] == 10
    assert len(queue.pop_due(MS)) == 10
    assert queue.counters()["waiting_bytes"] == 0


def test_bursty_loss_has_its_share_and_its_runs() -> None:
    queue = DelayQueue(Impairment(loss=20_000, burst=8), random.Random(3))
    fates = []
    for number in range(200_000):
        before = queue.lost
        queue.push(b"x", number)
        fates.append(queue.lost > before)
        queue.pop_due(number)
    runs = [len(run) for run in "".join("x" if lost else " " for lost in fates).split()]
    assert 0.015 < sum(fates) / len(fates) < 0.025
    assert 6.5 < sum(runs) / len(runs) < 9.5


def test_all_four_numbers_of_the_gilbert_elliott_model_count() -> None:
    one = Impairment(gemodel=(100_000, 300_000, 500_000, 10_000))
    queue = DelayQueue(one, random.Random(3))
    for number in range(100_000):
        queue.push(b"x", number)
        queue.pop_due(number)
    assert one.mean_loss - 0.01 < queue.lost / 100_000 < one.mean_loss + 0.01


def test_a_double_that_is_lost_leaves_one() -> None:
    """As in sch_netem: duplication and loss are drawn separately; both at 100 % leave each frame once."""
    queue = DelayQueue(Impairment(loss=500_000, duplicate=1_000_000), random.Random(3))
    for number in range(10_000):
        queue.push(b"x", number)
    given = sum(len(queue.pop_due(10**9)) for _ in range(80))
    # half draw no loss: one, and a double that survives in half of these; half draw loss: one
    assert 12_000 < given < 13_000


def test_new_numbers_lose_no_frame_and_old_ones_keep_their_time() -> None:
    queue = DelayQueue(Impairment(delay=50 * MS), random.Random(1))
    for number in range(10):
        queue.push(bytes([number]), number)
    queue.configure(Impairment(delay=10 * MS))
    for number in range(10, 20):
        queue.push(bytes([number]), number)
    assert queue.next_time() == 10 * MS + 10
    assert queue.pop_due(20 * MS) == [bytes([number]) for number in range(10, 20)]
    queue.configure(Impairment(delay=60 * MS))
    queue.push(b"last", 20 * MS)
    assert queue.pop_due(100 * MS) == [*(bytes([number]) for number in range(10)), b"last"]
    assert queue.counters()["waiting_bytes"] == 0


def test_same_delay_again_keeps_the_order() -> None:
    queue = DelayQueue(Impairment(delay=5 * MS), random.Random(1))
    queue.push(b"a", 0)
    queue.configure(Impairment(delay=5 * MS, loss=1))
    queue.push(b"b", 0)
    assert queue.pop_due(5 * MS) == [b"a", b"b"]
