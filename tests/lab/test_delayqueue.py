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
