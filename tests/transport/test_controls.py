"""What the congestion controls achieve: start time, fairness, loss, long fat pipes; kept as a snapshot.

The full table: python -m tests.transport.controls. To renew the snapshot after a deliberate change:
XIATB_UPDATE_SNAPSHOTS=1 pytest tests/transport/test_controls.py
"""

from __future__ import annotations

import os
import random
from pathlib import Path as File

import pytest

from tests.transport.controls import SHORT
from xiatb.transport.bbr import BBR, Mode
from xiatb.transport.delivery import Sample
from xiatb.transport.hystart import HyStart
from xiatb.transport.pacing import Pacer

SNAPSHOT = File(__file__).parent / "snapshots" / "controls.txt"


def test_the_table_of_controls() -> None:
    text = "\n".join(row() for row in SHORT) + "\n"
    if os.environ.get("XIATB_UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(text)
    assert text == SNAPSHOT.read_text(), text


def test_pacing_releases_bursts_of_a_millisecond_and_keeps_a_late_timer_s_credit() -> None:
    pacer = Pacer()
    assert pacer.refill(1.0, 0.0, 1000) == float("inf")
    pacer.credit = 0.0
    assert pacer.refill(1.001, 10e6, 1000) == pytest.approx(10_000)
    pacer.spend(10_000)
    assert pacer.due(1.001) == pytest.approx(1.002)
    assert pacer.refill(1.006, 10e6, 1000) == pytest.approx(50_000)
    assert pacer.refill(2.0, 10e6, 1000) == pytest.approx(50_000)
    pacer.spend(50_000)
    assert pacer.refill(3.0, 10e6, 1000) == pytest.approx(30_000), "idle time is not saved up"


def test_hystart_ends_slow_start_after_five_rounds_of_longer_round_trips() -> None:
    hystart = HyStart()
    seen = []
    una = 0
    for number in range(12):
        rtt = 0.05 if number < 4 else 0.06
        end = una + 100
        seen += [hystart.on_ack(rtt, at, end) for at in range(una, end, 10)]
        una = end
    assert seen.index(4) // 10 == 4
    assert seen.index(0) // 10 == 9


def test_hystart_goes_back_to_slow_start_when_the_delay_was_a_spike() -> None:
    hystart = HyStart()
    una, seen = 0, []
    for rtt in (0.05, 0.05, 0.06, 0.05, 0.05):
        end = una + 100
        seen += [hystart.on_ack(rtt, at, end) for at in range(una, end, 10)]
        una = end
    assert 4 in seen
    assert seen[-1] == 1


def test_hystart_sees_a_queue_that_a_paced_sender_fills_within_its_rounds() -> None:
    hystart = HyStart()
    una, seen = 0, []
    for number in range(6):
        end = una + 400
        late = 0.06 if number >= 3 else 0.05
        seen += [hystart.on_ack(0.05 if at < una + 200 else late, at, end) for at in range(una, end, 10)]
        una = end
    assert set(seen[: 3 * 40 + 20]) == {1}
    assert 4 in seen[3 * 40 + 20 : 4 * 40]


def judged(lost: int) -> BBR:
    """A BBR in a probe of 200 segments, after it has heard that so many segments of them were lost."""
    bbr = BBR(1000, 10, random.Random(1))
    total, now = 0, 0.0
    for _ in range(40):
        now += 0.01
        bbr.on_sample(Sample(now, 10_000, total + 10_000, total, 1e6, False, 0, 0, 20_000, 9_000, 0.01))
        total += 10_000
    bbr._probe_heard = False
    gone = lost * 1000
    bbr.on_sample(Sample(now, 1000, total + 1000, total, 1e6, False, gone, gone, 200_000, 9_000, 0.01))
    return bbr


def test_bbr_bounds_what_is_in_flight_by_losses_that_are_no_bad_luck() -> None:
    assert judged(9).inflight_hi == 1 << 62, "4 of 200 are 2 %, and three deviations make 10"
    assert judged(11).inflight_hi == 200_000


def test_bbr_s_window_covers_acknowledgements_that_come_in_heaps() -> None:
    windows = []
    for heap in (1, 8):
        bbr = BBR(1000, 10, random.Random(1))
        total = 0
        for turn in range(1, 401):
            size = heap * 10_000
            sample = Sample(
                turn * heap * 0.01, size, total + size, total, 1e6, False, 0, 0, 20_000, 9_000, 0.01
            )
            total += size
            bbr.on_sample(sample)
        windows.append(bbr._aggregated)
    assert windows[1] > 4 * windows[0] > 0


def test_bbr_finds_the_pipe_full_and_drains() -> None:
    bbr = BBR(1000, 10, random.Random(1))
    total, now = 0, 0.0
    for _ in range(40):
        now += 0.01
        sample = Sample(now, 10_000, total + 10_000, total, 1e6, False, 0, 0, 20_000, 9_000, 0.01)
        total += 10_000
        bbr.on_sample(sample)
    assert bbr.mode is not Mode.STARTUP
    assert bbr.bw == pytest.approx(1e6)
    assert bbr.min_rtt == pytest.approx(0.01)
    assert bbr.rate <= 2e6
